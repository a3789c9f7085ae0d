"""Marked parts of a page are written from stored runs, and the committed pages are up to date."""

import pathlib
import re

import numpy as np
import pytest

from configs.common import METHODS
from fedgen_jax.report.pages import rewritten
from fedgen_jax.report.summaries import to_lines

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / 'RESULTS.md', *sorted((ROOT / 'docs' / 'results').glob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_committed_pages_are_what_the_committed_results_give(page):
    for file, text in rewritten(page, list(METHODS)).items():
        if file.suffix == '.svg':
            kept = file.read_text()
            assert len(kept.encode()) < 200_000
            words = re.compile('<text[^>]*>([^<]*)<')
            assert words.findall(text) == words.findall(kept)
            places = [re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', x) for x in (text, kept)]
            made, was = np.array(places, float)
            np.testing.assert_allclose(made, was, atol=2)  # of some 900 points
        else:
            assert text == file.read_text(), 'run launch.summarize RESULTS.md docs/results/*.md'


def test_a_part_is_replaced_and_the_rest_stays(summaries, tmp_path):
    (tmp_path / 'runs.jsonl').write_text(to_lines(summaries))
    page = tmp_path / 'page.md'
    page.write_text(
        'above\n<!-- tables runs.jsonl -->\nold\n<!-- end -->\nbetween\n'
        '<!-- forest runs.jsonl plot.svg -->\n<!-- end -->\nbelow\n'
    )
    written = rewritten(page)
    text = written[page]
    assert list(written) == [page, tmp_path / 'plot.svg'] and '\nold\n' not in text
    assert '85.0' in text and '](plot.svg)' in text
    assert [text.count(x) for x in ('above', 'between', 'below', '<!-- end -->')] == [1, 1, 1, 2]
    page.write_text(text)
    assert rewritten(page)[page] == text


@pytest.mark.parametrize(('part', 'message'), [
    ('', 'page.md: no part between'),
    ('<!-- tables x.jsonl -->\n', 'page.md: no part between'),
    ('<!-- overview a/x.jsonl b/x.jsonl -->\n<!-- end -->', 'each once'),
    ('<!-- tables x.jsonl -->\n<!-- tables y.jsonl -->\n<!-- end -->', 'no <!-- end --> before'),
    ('<!-- ranks x.jsonl -->\n<!-- end -->\n<!-- tables x.jsonl -->\n', '1 parts, and 2 marks'),
    ('<!-- ranks x.jsonl -->\n<!-- end -->\n<!--tables x.jsonl-->\n<!-- end -->', '1 parts, and 2'),
    ('<!-- table x.jsonl -->\n<!-- end -->', 'page.md: <!-- table .* one of overview, tables'),
])
def test_a_mistake_in_a_page_is_one_line(make, tmp_path, part, message):
    (tmp_path / 'x.jsonl').write_text(to_lines([make('m', 'x', 0, 0.5, 0.4)]))
    (tmp_path / 'page.md').write_text(part)
    with pytest.raises(ValueError, match=message):
        rewritten(tmp_path / 'page.md')
