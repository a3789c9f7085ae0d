"""The page of audits stands alone and tells which of them are evidence."""

import re

import numpy as np

from fedgen_jax.audit.base import Curve, Finding, Picture
from fedgen_jax.report.audits import write_audits

NASTY = '<script>alert(1)</script>'


def test_it_stands_alone_and_names_failed_controls(tmp_path):
    rates = np.array([0.01, 0.1, 1.0])
    findings = {
        'a': Finding('First', NASTY, 'found', 'held', True, ('x',), [['7.5']], {},
                     pictures=[Picture(np.zeros((4, 4, 3), np.uint8), 'black')]),
        'b': Finding('Second', 'asked', 'found', 'fell', False, curves=[Curve('c', rates, rates)]),
        'c': Finding('Third', 'asked', missing='no descriptor'),
    }
    write_audits(tmp_path / 'audit.html', 'Title', 'Lede', findings)
    page = (tmp_path / 'audit.html').read_text()
    assert NASTY not in page and '&lt;script&gt;' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    for text in ('came out as it must', 'failed: no evidence', 'Control, which failed', 'not done',
                 'no descriptor', '7.5', 'black', '<svg'):
        assert text in page
