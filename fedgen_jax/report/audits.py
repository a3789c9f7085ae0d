"""The page of a run's audits: one HTML file that opens in any browser, with no network."""

import pathlib
from collections.abc import Mapping

from fedgen_jax.audit.base import Finding
from fedgen_jax.report import figures
from fedgen_jax.report.page import COLUMNS, Strip, Table, shown, template
from fedgen_jax.tasks.base import View


def write_audits(
    path: str | pathlib.Path, title: str, lede: str, findings: Mapping[str, Finding]
) -> None:
    """Writes the page.

    findings: {name: what an audit found}.
    """
    parts = [{
        'finding': f,
        'table': Table('', f.head, f.rows) if f.rows else None,
        'figure': figures.roc(f.curves) if f.curves else '',
        'strip': f.pictures and shown(Strip(
            'Pictures', 'seen', [[View(p.image, p.caption)] for p in f.pictures]
        )),
    } for f in findings.values()]
    overview = Table('', ['audit', 'control'], [[f.title, state(f)] for f in findings.values()])
    page = template('audits.html.j2').render(
        title=title, lede=lede, parts=parts, overview=overview, columns=COLUMNS
    )
    pathlib.Path(path).write_text(page, encoding='utf-8')


def state(f: Finding) -> str:
    """Whether an audit can be believed, in words."""
    if f.holds is None:
        return 'not done'
    return 'came out as it must' if f.holds else 'failed: no evidence'
