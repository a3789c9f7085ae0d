"""The site builds without a warning and fetches nothing; its notebook runs."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp('site')
    made = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder],
        cwd=ROOT, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'}, capture_output=True, text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_every_page_stands_in_the_menu(site):
    front = (site / 'index.html').read_text()
    menu = set(re.findall(r'href="([^"#:]+)" class="md-nav__link', front))
    pages = {f'{p.parent.relative_to(site)}/' for p in site.glob('*/**/index.html')}
    assert pages and pages == menu - {'.', './'}


def test_no_page_fetches_from_elsewhere(site):
    fetched = re.compile(r'<(?:script|img|iframe)[^>]*src="http|<link[^>]*stylesheet[^>]*"http')
    for page in site.glob('**/*.html'):
        assert not fetched.search(page.read_text()), page


def test_docstrings_keep_their_layout(site):
    page = (site / 'api' / 'algorithms' / 'index.html').read_text()
    assert 'init_private:' in re.sub('<[^>]+>', '', page)
    assert 'sum_only:      False' in re.sub('<[^>]+>', '', page)


@pytest.mark.extended
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('FEDGEN_CACHE', str(tmp_path / 'cache'))
    cells = json.loads((ROOT / 'examples' / 'quickstart.ipynb').read_text())['cells']
    code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    assert code and not any(cell.get('outputs') for cell in cells)
    names = {'__name__': 'notebook'}
    for cell in code:
        exec(compile(cell, 'quickstart', 'exec'), names)  # noqa: S102
