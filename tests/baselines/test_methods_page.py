"""docs/baselines.md says of every method what it is."""

import pathlib
import re

from families import NEEDS, configured

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'baselines.md'
KEPT = {'fedbn': NEEDS['silobn']}  # statistics of training, without which there are none to replace


def test_the_table_has_every_method_as_its_value_says():
    rows = re.findall(r'^\| `(\w+)` \| (.*?) \| (.*?) \| (\w+) \|$', PAGE.read_text(), re.M)
    assert sorted(name for name, *_ in rows) == sorted(ALGORITHMS)
    for name, method, unseen, server in rows:
        if name == 'local_only':
            continue  # it has neither a server's model nor a sum
        c = configured({'algorithm': name, **{**NEEDS, **KEPT}.get(name, {})})
        made, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
        assert method.startswith(made.title.split(',')[0]), name
        assert unseen.removesuffix(' (AdaBN)') == (made.unseen or '–'), name
        assert server == ('sum' if made.sum_only else 'each'), name
