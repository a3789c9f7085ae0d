"""The demo, from training to its page, at a tiny size."""

import json

import pytest

from configs import demo
from fedgen_jax.report.gather import report_run
from fedgen_jax.report.summaries import base_of
from launch.demo import tell
from launch.demo_page import BASE, OURS, PUBLISHED, ladder, ladder_section


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    c = demo.get_config()
    c.data.cache = str(tmp_path_factory.mktemp('store'))
    c.rounds = c.eval_every = c.checkpoint_every = 2
    c.local_steps, c.batch_size = 2, 8
    c.data.centers, c.data.held_out, c.data.examples = 3, 'synthetic-2', 40
    c.data.image_size, c.input.size = 32, 16
    c.model.widths = (8,)
    c.fedgen.support, c.fedgen.modes, c.finetune.steps = 4, ('film',), 2
    c.shifts.flips, c.shifts.turns, c.shifts.acquisition = False, False, 0.0
    return c


def test_demo_prints_what_its_files_hold(tiny, tmp_path, capsys):
    path = tell(tiny, tmp_path, progress=False)
    printed = capsys.readouterr().out
    page = path.read_text()
    assert str(path) in printed

    summaries = {
        a: json.loads((tmp_path / a / 'summary.json').read_text())
        for a in ('fedgen', 'fedavg', 'local_only')
    }
    fedgen = summaries['fedgen']
    blocks = [s[group] for s in summaries.values() for group in ('seen', 'unseen')]
    blocks += [fedgen['base'][group] for group in ('seen', 'unseen')]
    for block in blocks:
        score = f'{block["mean"]["balanced_accuracy"]:.3f}'
        assert score in printed and score in page

    update = json.loads((tmp_path / 'update.json').read_text())
    assert update['center'] == 'synthetic-0'
    assert update['cost']['steps_at_others'] == update['cost']['bytes_at_others'] == 0
    for model, scores in update['made_before'].items():
        assert f'{model:<28} {scores["balanced_accuracy"]:.3f}' in printed
        assert model in page
    for name in ('synthetic-0', 'synthetic-1', 'synthetic-2'):
        assert name in page

    alone = report_run(tmp_path / 'fedgen').read_text()
    assert f'{fedgen["seen"]["mean"]["balanced_accuracy"]:.3f}' in alone
    assert 'FedGen' in alone and 'Local only' not in alone
    assert page.startswith('<!DOCTYPE html>')

    check_ladder({OURS: fedgen, BASE: base_of(fedgen), PUBLISHED: summaries['fedavg']})


def check_ladder(summaries):
    """It names what the runs had: canonical input, and what own models were chosen among."""
    summaries[OURS]['config']['shifts']['zoom'] = 1.25
    assert ladder(summaries, 'balanced_accuracy')[1][0] == '+ canonical input, shifts'
    section = ladder_section(summaries, 'balanced_accuracy')
    assert 'learned alone' in section.text and 'synthetic-0' in section.table.note

    ours = summaries[OURS]
    ours['config']['input']['canonical'] = 'none'
    ours['own']['candidates'] = {'finetuned': ours['own']['candidates']['finetuned']}
    assert ladder(summaries, 'balanced_accuracy')[1][0] == '+ shifts'
    section = ladder_section(summaries, 'balanced_accuracy')
    assert 'learned alone' not in section.text and 'the best' not in section.text
    assert 'Chosen by' not in section.table.note and 'without labels' in section.table.note
    ladder_rows = ladder(summaries, 'balanced_accuracy')
    assert ladder_rows[-1][2] == ours['adapted']['mean']['balanced_accuracy']
    assert ladder_rows[-2][2] == ours['unseen']['mean']['balanced_accuracy']

    ours['config']['shifts'] |= {'acquisition': 0.0, 'zoom': 1.0}
    names = [name for name, _, _ in ladder(summaries, 'balanced_accuracy')]
    assert names[:3] == ['FedAvg, as published', '+ generator', '+ own model of a seen center']
    assert 'without a label' in names[3]
