"""The page stands alone, shows everything that it is given, and escapes names."""

import html
import re

import numpy as np
import pytest

from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.page import Section, Strip, Table, methods_of, write_report
from fedgen_jax.report.words import of_class, own_choice
from fedgen_jax.tasks.base import View
from launch.cli import show

NASTY = '<script>alert("x")</script> & $a_b$'
CENTERS = ('north', NASTY)


def block(score, centers):
    scores = {'balanced_accuracy': score, 'accuracy': score + 0.01}
    own = {c: {**scores, 'n': 7} for c in centers}
    return {'mean': scores, 'worst': scores, 'centers': own}


def blocks(score):
    return {'seen': block(score, CENTERS), 'unseen': block(score, ['far'])}


def summary(score, center_model=None, **changes):
    own = blocks(score)
    return {
        'task': 'classification', 'algorithm': 'any', 'seed': 0, 'rounds': 2, 'device': 'cpu',
        'score_on': 'test', 'lower_is_better': [], 'units': {}, 'headline': '',
        'resolution': None, 'server_model': True, **own,
        'center_model': own if center_model is None else blocks(center_model),
        'controls': {'shuffled': None, 'sampled': None},
        'cost': {
            'bytes_up': 2000, 'bytes_down': 1_234_567, 'round_seconds': None,
            'compile_seconds': 1.0, 'parameters': {'base': 12345},
        },
        **changes,
    }


def line(round_, s):
    return {'round': round_, 'loss': 1.0, 'seen': s['seen']}


def report(tmp_path, summaries, **more):
    path = tmp_path / 'report.html'
    more = {'lines': dict.fromkeys(summaries, []), **more}
    write_report(path, 'Title', '', summaries, **more)
    return path.read_text()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    shuffled = {'shuffled': blocks(0.321), 'sampled': None}
    summaries = {'Ours': summary(0.876, 0.765, controls=shuffled), 'Theirs': summary(0.543)}
    summaries['Ours']['cost']['parameters'] = {'base': 12345, 'extra part': 67}
    summaries['Theirs']['finetuned'] = {'seen': block(0.654, CENTERS)}
    rng = np.random.default_rng(0)
    kinds = [
        ('north', 'seen'), (NASTY, 'left'), ('far', 'unseen'), ('north', 'updated'),
        ('new', 'joined'),
    ]
    image = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp('report') / 'report.html'
    write_report(
        path, title=NASTY, lede='Lede.', summaries=summaries,
        lines={m: [line(r, s) for r in (1, 2)] for m, s in summaries.items()},
        clouds=[
            Cloud(n, k, rng.normal(size=5), rng.normal(size=(0 if k == 'joined' else 6, 5)))
            for n, k in kinds
        ],
        strips=[
            Strip(n, k, [[View(image[0], 'right')], [View(image[1], 'b'), View(None, NASTY, True)]])
            for n, k in kinds
        ],
        sections=[Section('Section', 'Text.', Table('', ['', 'a'], [['row', '0.111']]))],
        tiles=[('0.999', 'of it')],
    )
    return path.read_text()


def test_nothing_is_fetched(page):
    addresses = set(re.findall(r'\w+://[^\s"\'<>)]*', page))
    assert addresses <= {'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'}
    sources = re.findall(r'(?:\bsrc|\bhref)\s*=\s*"([^"]*)"', page)
    assert sources and all(s.startswith(('data:', '#')) for s in sources)
    assert '@import' not in page and not re.search(r'url\((?!#)', page)


def test_everything_is_shown(page):
    bars, curves, descriptor_map = re.findall(r'<svg.*?</svg>', page, flags=re.S)
    for method in ('Ours, refined', 'Ours, center model', 'Theirs'):
        assert method in bars and f'<td>{method}</td>' in page
    assert 'Ours, refined' in curves and 'center model' not in curves
    for name in ('north', 'far', html.escape(NASTY, quote=False)):
        assert name in bars and name in descriptor_map
    for text in ('north (updated)', 'far (unseen)', 'new (joined)', ' (left)'):
        assert text in descriptor_map
    for number in ('0.876', '0.765', '0.543', '0.321', '0.654', '12,345', '0.111', '0.999'):
        assert number in page
    assert page.count('data:image/png;base64,') == 10


def test_what_centers_chose_by_their_labels_is_told_apart_from_what_was_made_for_them(make):
    refined = block(0.5, CENTERS)
    chosen = {
        'generated': refined, 'candidates': {}, 'chosen': {'a': 'finetuned', 'b': 'refined'},
    }
    both = make('plain', 'x', 0, 0.9, 0.4, own=chosen)
    rows = methods_of({'Ours': both})
    assert list(rows) == ['Ours, own choice', 'Ours, refined']
    assert rows['Ours, refined'] == {'seen': refined, 'unseen': both['unseen']}
    assert own_choice(both) == (
        'Own choice: of the seen centers 1 took the refined model after steps on their labels, '
        '1 kept the refined model, by their validation images.'
    )
    lines = [line.split() for line in show(both).splitlines()]
    assert [line[:3] for line in lines[:2]] == [['seen,', 'own', 'choice'], ['seen,', 'refined',
                                                                             'balanced_accuracy']]
    assert lines[0][4] == '0.900' and lines[1][3] == '0.500'


def test_a_rate_of_one_class_names_it(make):
    one = make('plain', 'x', 0, 0.9, 0.4)
    assert of_class(one, 'sensitivity') == ''
    one['seen']['centers']['a']['positive'] = 'covid'
    assert of_class(one, 'sensitivity') == ' of covid' and of_class(one, 'accuracy') == ''


def test_a_row_that_repeats_another_is_left_out(page):
    assert 'Theirs, center model' not in page and 'Theirs, refined' not in page
    assert 'Theirs, shuffled' not in page and 'Ours, shuffled (control)' in page
    assert page.count('<th>mean of seen, fine-tuned</th>') == 2  # a column of each metric's table


def test_parts_and_bytes_are_what_the_summaries_have(page):
    assert '<th>parameters: base</th><th>parameters: extra part</th>' in page
    assert '<td>2</td><td>1,235</td>' in page and 'kB are 1000 bytes' in page
    assert not re.search(r'\b[KM]iB|\bMB', page)


def test_best_score_of_a_column_is_bold(page):
    assert '<td class="best">0.876</td>' in page
    assert '<td class="best">0.543</td>' not in page


def test_names_are_escaped(page):
    assert '<script' not in page
    assert NASTY not in page and '&lt;script&gt;' in page


def test_unseen_centers_without_a_model_of_the_server_borrow_one(page, tmp_path):
    assert 'unlabelled images of their own' in page and 'in turn' not in page
    alone = summary(0.5, server_model=False, center_model=None)
    text = report(tmp_path, {'Alone': {**alone, 'center_model': None}})
    assert 'Alone: the centers share no model' in text and 'in turn' in text
    assert 'unlabelled images of their own' not in text
    text = report(tmp_path, {'Plain': {**summary(0.5), 'at_unseen': ['nothing']}})
    assert 'learned alone' in text and 'unlabelled images of their own' not in text


def test_no_curve_without_validation_images(tmp_path):
    one = summary(0.5)
    none = {'round': 1, 'seen': {'mean': {}, 'worst': {}, 'centers': {}}}
    text = report(tmp_path, {'One': one}, lines={'One': [none]})
    assert text.count('<svg') == 1 and 'no validation images' in text
    text = report(tmp_path, {'One': one}, lines={'One': [none, line(2, one)]})
    assert text.count('<svg') == 2 and 'no validation images' not in text


def test_mistakes_are_spoken_of_where_there_are_some(page, tmp_path):
    assert 'mistakes in red' in page
    strip = Strip('north', 'seen', [[View(np.zeros((8, 8, 3), np.uint8), 'a'), View(None, 'a')]])
    text = report(tmp_path, {'One': summary(0.5)}, strips=[strip])
    assert 'held-back test images' in text and 'mistakes' not in text
    assert 'Not shown: 2 other centers.' in text and 'Not shown' not in page


def test_page_without_extras(tmp_path):
    one = {**summary(0.5), 'unseen': None, 'center_model': None}
    text = report(tmp_path, {'Local only': one})
    assert text.count('<svg') == 1 and 'unseen' not in text and 'class="best"' not in text
    assert list(methods_of({'Local only': one})) == ['Local only']
