"""`schema.Summary`, its page and what is kept of earlier runs agree."""

import json
import pathlib
import re
import typing

import pytest

from fedgen_jax import renamed, schema

ROOT = pathlib.Path(__file__).parents[2]
TYPES = {name: x for name, x in vars(schema).items() if typing.is_typeddict(x)}


def test_an_earlier_summary_conforms_once_it_is_read(conforms):
    made = json.loads((pathlib.Path(__file__).parent / 'old' / 'summary.json').read_text())
    assert not conforms(made, schema.Summary)
    assert conforms(renamed.summary(made), schema.Summary)


@pytest.mark.parametrize('change', [
    {'seed': '0'}, {'more': 1}, {'score_on': 'train'}, {'unseen': {}}, {'cost': None},
])
def test_what_differs_from_the_schema_does_not_conform(make, conforms, change):
    assert conforms(make('m', 'x', 0, 0.1, 0.1), schema.Summary)
    assert not conforms({**make('m', 'x', 0, 0.1, 0.1), **change}, schema.Summary)


def test_the_page_explains_every_field_and_no_other():
    text = (ROOT / 'docs' / 'summary_json.md').read_text()
    sections = dict(re.findall(r'^## (\w+)\n(.*?)(?=^## |\Z)', text, re.M | re.S))
    assert TYPES.keys() == sections.keys() - {'Many'}
    for name, type_ in TYPES.items():
        explained = re.findall(r'^\| `(\w+)` \| .+ \|$', sections[name], re.M)
        assert explained == list(typing.get_type_hints(type_)), name
