"""What a secure sum costs: keys and shares, masks, and taking them off, on one core.

    python -m benchmarks.secure

All parties run here one after another: 'keys and shares' and 'answers' are the time of all clients
together, 'masking' that of one client, 'unmasking' the server's.  Some clients drop out after they
have shared their secrets, which costs the server most.  Each sum is compared with the plain one.
"""

import secrets

import numpy as np
from absl import app, flags

from fedgen_jax.privacy.commit import identity
from fedgen_jax.privacy.encode import TYPES
from fedgen_jax.privacy.secure_server import secure_sum
from fedgen_jax.privacy.secure_setup import Setup
from fedgen_jax.report.tables import markdown

CLIENTS = flags.DEFINE_list('clients', ['5', '20', '100'], 'how many of them')
NUMBERS = flags.DEFINE_integer('numbers', 300_000, 'that each client sends')
REPEATS = flags.DEFINE_integer('repeats', 3, 'of which the fastest counts, part by part')


def row(clients: int, numbers: int, word: int, repeats: int) -> list[str]:
    """A row of the table: a tenth of the clients drop out, at least one of more than three."""
    threshold = 2 * clients // 3 + 1
    lost = min(max(1, clients // 10), clients - threshold)
    secret_of = {n: secrets.token_bytes(32) for n in range(clients)}
    identities = {n: identity(s) for n, s in secret_of.items()}
    dtype, rng = TYPES[word], np.random.default_rng(0)
    words = {
        n: rng.integers(0, np.iinfo(dtype).max, numbers, dtype, endpoint=True) for n in secret_of
    }
    dropped = dict.fromkeys(range(lost), 'masked')
    sums = [
        secure_sum(Setup(secrets.token_bytes(32), identities, threshold), secret_of,
                   bytes(32), words, dropped)
        for _ in range(repeats)
    ]
    plain = np.sum([words[n] for n in range(lost, clients)], axis=0, dtype=dtype)
    if not all(np.array_equal(s.words, plain) for s in sums):
        raise ValueError(f'{clients} clients: the sum is not the plain one')
    seconds = {k: min(s.seconds[k] for s in sums) for k in sums[0].seconds}
    return [
        str(clients), str(lost), str(word), f'{seconds["keys"]:.2f} s',
        f'{1000 * seconds["mask"]:.0f} ms', f'{seconds["agree"]:.2f} s',
        f'{seconds["unmask"]:.2f} s', f'{numbers * word / 8e6:.2f} MB',
        f'{sums[0].up - numbers * word / 8:,.0f}', f'{sums[0].down:,.0f}',
    ]


def main(_):
    columns = ['clients', 'drop out', 'bits', 'keys and shares, all clients', 'masking, each',
               'answers, all clients', 'unmasking', 'words up', 'other bytes up', 'bytes down']
    rows = [
        row(int(clients), NUMBERS.value, word, REPEATS.value)
        for clients in CLIENTS.value for word in TYPES
    ]
    print(f'{NUMBERS.value:,} numbers a client, fastest of {REPEATS.value}\n')
    print(markdown(columns, rows))


if __name__ == '__main__':
    app.run(main)
