"""A number that no run can have is refused in one line, which names its field."""

import sys
import types

import pytest
from families import NEEDS, configured

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.baselines import fedprox
from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.settings import check_numbers

OWN_CHECKS = ('privacy', 'secure', 'robust')  # tested where they are made


def numbers(c, group=''):
    for name, value in c.items():
        if hasattr(value, 'items'):
            yield from numbers(value, f'{group}{name}.')
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f'{group}{name}', value


FIELDS = dict(numbers(base()))


def with_number(field, value):
    group = field.partition('.')[0]
    algorithm = group if group in ALGORITHMS else 'fedgen'
    c = configured({'algorithm': algorithm, **NEEDS.get(algorithm, {})})
    c.update_from_flattened_dict({field: type(FIELDS[field])(value)})
    return c


@pytest.mark.parametrize('value', [-1, 0])
def test_what_is_too_small_is_refused_by_name_or_means_something(value):
    """No field ends in a traceback; below 0 all are refused that do not begin there."""
    for field, default in FIELDS.items():
        if field.startswith(OWN_CHECKS):
            continue
        c = with_number(field, value)
        try:
            check_numbers(c)
            make_algorithm(c, c.data.image_size, synthetic.CLASSES, 3)
        except ValueError as error:
            assert field.rpartition('.')[2] in str(error) and '\n' not in str(error), field
        else:
            assert value == 0 or default < 0, field


@pytest.mark.parametrize(('field', 'value'), [
    ('client.momentum', 1.0), ('shifts.probability', 1.5), ('fedgen.stranger', 2.0),
    ('shifts.zoom', 0.5), ('data.image_size', 0), ('data.examples', 0), ('batch_size', 0),
])
def test_what_is_too_large_or_none_is_refused(field, value):
    with pytest.raises(ValueError, match=f'^{field}={value}'):
        check_numbers(with_number(field, value))
    check_numbers(with_number(field, FIELDS[field]))


def test_a_field_that_methods_share_is_called_by_its_group():
    with pytest.raises(ValueError, match='^ditto.mu=-1'):
        make_algorithm(with_number('ditto.mu', -1), 16, synthetic.CLASSES, 3)


def test_an_algorithm_of_a_user_s_own_wants_its_fields(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mine', types.SimpleNamespace(centralized=fedprox))
    c = configured({'algorithm': 'mine:centralized'})
    with pytest.raises(ValueError, match=r'c.centralized = centralized.defaults\(\)'):
        make_algorithm(c, 16, synthetic.CLASSES, 3)
    c.centralized = fedprox.defaults()
    assert make_algorithm(c, 16, synthetic.CLASSES, 3)
