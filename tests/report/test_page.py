"""The page stands alone, shows everything that it is given, and escapes names."""

import html
import re

import numpy as np
import pytest

from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.page import Section, Strip, Table, methods_of, write_report
from fedgen_jax.tasks.base import View

NASTY = '<script>alert("x")</script> & $a_b$'
CENTERS = ('north', NASTY)


def summary(algorithm, score):
    def block(centers):
        scores = {'balanced_accuracy': score, 'accuracy': score + 0.01}
        own = {c: {**scores, 'n': 7} for c in centers}
        return {'mean': scores, 'worst': scores, 'centers': own}

    blocks = {'seen': block(CENTERS), 'unseen': block(['far'])}
    return {
        'task': 'classification', 'algorithm': algorithm, 'seed': 0, 'rounds': 2,
        'device': 'cpu', 'score_on': 'test', 'lower_is_better': [], **blocks,
        'center_model': {k: block(v['centers']) for k, v in blocks.items()},
        'controls': {'shuffled': blocks if algorithm == 'fedgen' else None},
        'cost': {
            'bytes_up': 2000, 'bytes_down': 1000, 'round_seconds': None, 'compile_seconds': 1.0,
            'parameters': {'base': 12345, 'generator': 67, 'descriptor': 8},
        },
    }  # fmt: skip


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    summaries = {'FedGen': summary('fedgen', 0.876), 'FedAvg': summary('fedavg', 0.543)}
    rng = np.random.default_rng(0)
    kinds = [('north', 'seen'), (NASTY, 'seen'), ('far', 'unseen'), ('north', 'updated')]
    image = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp('report') / 'report.html'
    write_report(
        path, title=NASTY, lede='Lede.', summaries=summaries,
        lines={
            m: [{'round': r, 'loss': 1.0, 'seen': s['seen']} for r in (1, 2)]
            for m, s in summaries.items()
        },
        clouds=[Cloud(n, k, rng.normal(size=5), rng.normal(size=(6, 5))) for n, k in kinds],
        strips=[
            Strip(n, k, [[View(image[0], 'right')], [View(image[1], 'b'), View(None, NASTY, True)]])
            for n, k in kinds
        ],
        sections=[Section('Section', 'Text.', Table('', ['', 'a'], [['row', '0.111']]))],
        tiles=[('0.999', 'of it')],
    )  # fmt: skip
    return path.read_text()


def test_nothing_is_fetched(page):
    addresses = set(re.findall(r'\w+://[^\s"\'<>)]*', page))
    assert addresses <= {'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'}
    sources = re.findall(r'(?:\bsrc|\bhref)\s*=\s*"([^"]*)"', page)
    assert sources and all(s.startswith(('data:', '#')) for s in sources)
    assert '@import' not in page and not re.search(r'url\((?!#)', page)


def test_everything_is_shown(page):
    figures = re.findall(r'<svg.*?</svg>', page, flags=re.S)
    bars, curves, descriptor_map = figures
    for method in ('FedGen, refined', 'FedGen, center model', 'FedAvg'):
        assert method in bars and f'<td>{method}</td>' in page
    assert 'FedGen, refined' in curves and 'center model' not in curves
    for name in ('north', 'far', html.escape(NASTY, quote=False)):
        assert name in bars and name in descriptor_map
    assert 'north (updated)' in descriptor_map and 'far (unseen)' in descriptor_map
    for number in ('0.876', '0.543', '12,345', '0.111', '0.999'):
        assert number in page
    assert page.count('data:image/png;base64,') == 8


def test_best_score_of_a_column_is_bold(page):
    assert '<td class="best">0.876</td>' in page
    assert '<td class="best">0.543</td>' not in page


def test_names_are_escaped(page):
    assert '<script' not in page
    assert NASTY not in page and '&lt;script&gt;' in page


def test_page_without_extras(tmp_path):
    one = {**summary('local', 0.5), 'unseen': None, 'center_model': None}
    write_report(tmp_path / 'r.html', 'Title', '', {'Local only': one}, {'Local only': []})
    page = (tmp_path / 'r.html').read_text()
    assert page.count('<svg') == 1 and 'unseen' not in page
    assert list(methods_of({'Local only': one})) == ['Local only']
