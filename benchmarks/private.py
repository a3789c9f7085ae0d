"""What private steps cost: a round of DP-SGD beside a plain one of the same expected batch.

    python -m benchmarks.private

Four drawn centers of 48 pixels, eight steps a round, a CNN of widths 16, 32 and 64.  A private
step has room for five standard deviations more than the expected sample, and computes the empty
places too: else its time would tell how many were sampled.  `room` is that many units.
"""

import tempfile

from absl import app, flags, logging

from configs import common
from fedgen_jax.privacy.units import cap_of
from fedgen_jax.report.tables import markdown
from fedgen_jax.train import train

BATCHES = flags.DEFINE_list('batches', ['16', '64'], 'expected units of a step')
RATES = flags.DEFINE_list('rates', ['0.1', '1.0'], 'the chance of a unit to be in a step')
ALGORITHMS = flags.DEFINE_list('algorithms', ['fedavg', 'fedgen'], 'names of `algorithm`')
ROUNDS = flags.DEFINE_integer('rounds', 60, 'of which the median is taken')
TRAINING = 0.6  # of a drawn center's images


def seconds(algorithm: str, unit: str, batch: int, rate: float) -> float:
    """Of a round."""
    c = common.tuned()
    c.algorithm, c.rounds, c.eval_every, c.checkpoint_every = algorithm, ROUNDS.value, 100, 100
    c.data.source, c.data.centers = 'synthetic', 4
    c.data.examples = round(batch / rate / TRAINING)
    c.local_steps, c.batch_size, c.model.widths = 8, batch, (16, 32, 64)
    c.client.momentum, c.client.clip, c.client.schedule = 0.0, 0.0, 'constant'
    c.weighting, c.input.canonical = 'uniform', 'none'
    c.shifts.acquisition, c.shifts.zoom = 0.0, 1.0
    c.fedgen.theta, c.fedgen.modes = 'joint', ('input', 'film')
    c.finetune.steps, c.finetune.choose = 0, ()
    c.privacy.update({
        'unit': unit, 'delta': 1e-5, 'rate': rate, 'trainable': 'all', 'seed': '0',
        'public': 'synthetic' if algorithm == 'fedgen' else '', 'public_centers': 4,
        'public_rounds': 2,
    })
    with tempfile.TemporaryDirectory() as folder:
        return train(c, f'{folder}/run', progress=False)['cost']['round_seconds']


def main(_):
    logging.set_verbosity(logging.WARNING)
    rows = []
    for algorithm in ALGORITHMS.value:
        for batch in map(int, BATCHES.value):
            for rate in map(float, RATES.value):
                plain, private = (seconds(algorithm, x, batch, rate) for x in ('', 'image'))
                room = cap_of(round(batch / rate), rate)
                rows.append([
                    algorithm, str(batch), f'{rate:g}', str(room), f'{plain:.2f} s',
                    f'{private:.2f} s', f'{private / plain:.2f}',
                ])
    columns = ['algorithm', 'expected units', 'rate', 'room', 'plain', 'private', 'ratio']
    print(markdown(columns, rows))


if __name__ == '__main__':
    app.run(main)
