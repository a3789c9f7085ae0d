"""Small summaries to make tables and pages of."""

import pytest
from conforming import conforms_to


def block(x, names=('a', 'b')):
    x = round(x, 6)  # as JSON lines keep it
    centers = {n: {'balanced_accuracy': x, 'accuracy': x, 'n': 10} for n in names}
    level = {'balanced_accuracy': x, 'accuracy': x}
    return {'mean': level, 'worst': level, 'centers': centers}


def summary(method, held_out, seed, seen, unseen, **changes):
    """Every center scores `seen`, the held-out one `unseen`; its own model is the center model."""
    both = {'seen': block(seen), 'unseen': block(unseen, (held_out,))}
    return {
        'method': method, 'title': method.title(), 'task': 'classification', 'algorithm': 'any',
        'seed': seed, 'held_out': held_out, 'rounds': 2, 'device': 'cpu',
        'score_on': 'test', 'lower_is_better': [], 'units': {}, 'headline': '',
        'resolution': None, 'server_model': True,
        'at_unseen': ['nothing'], 'sum_only': True,
        **both, 'seen': {**both['seen'], 'pooled': both['seen']['centers']['a']},
        'center_model': both, 'controls': {'shuffled': None, 'sampled': None},
        'cost': {
            'bytes_up': 1024, 'bytes_down': 20480, 'round_seconds': 0.5, 'compile_seconds': 1.0,
            'parameters': {'base': 1234, 'part': 2},
        },
        'privacy': {},
        'config': {'method': method, 'seed': seed, 'client': {'lr': 0.1, 'clip': 1.0}},
        **changes,
    }


@pytest.fixture
def make():
    """`summary`, for a test to call."""
    return summary


@pytest.fixture
def summaries():
    """Two methods, two folds, two seeds: 'ours' is 5 points above 'theirs' everywhere."""
    return [
        summary(method, held_out, seed, 0.8 + gain, 0.5 + gain + drop + seed / 100)
        for method, gain in (('ours', 0.05), ('theirs', 0.0))
        for held_out, drop in (('x', 0.0), ('y', -0.2))
        for seed in (0, 1)
    ]


@pytest.fixture
def conforms():
    """`conforms_to`, for a test to call."""
    return conforms_to
