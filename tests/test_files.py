"""Files of a run: safe names, whole writes, one process at a time."""

import errno
import subprocess
import sys

import pytest

from fedgen_jax import files
from fedgen_jax.files import alone_in, expand, file_name, write_text
from fedgen_jax.interrupt import MayPass

NAMES = [
    '..', '.', '../../evil', '/etc', 'St/Luke', 'st%2Fluke', 'St%2FLuke', 'pooled', 'POOLED',
    'Clinic A, Bonn', 'clinic a, bonn', '007', 'x' * 300, 'x' * 301, 'X' * 300, 'a.', 'a', 'A',
    'Köln', 'köln', 'Ko\u0308ln', '東京', 'a\nb', 'con\0', '~', '=', 'a=b', ' a', '-rf', 'a:b', '*',
]


def test_no_two_names_are_one_file_even_where_case_is_ignored(tmp_path):
    made = [file_name(name) for name in NAMES]
    assert len({x.casefold() for x in made}) == len(NAMES)
    for i, name in enumerate(made):
        write_text(tmp_path / f'{name}.json', str(i))
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f'{x}.json' for x in made)
    assert [f.read_text() for f in (tmp_path / f'{x}.json' for x in made)] == [
        str(i) for i in range(len(NAMES))
    ]


def test_a_name_that_hashes_like_another_is_none():
    # The hash of one name, written out as another one.
    assert file_name(file_name('St/Luke').lower()) != file_name('St/Luke')
    assert [file_name(x) for x in ('east', 'jtsc-jiangxi', 'site_1', '007', 'v1.2')] == [
        'east', 'jtsc-jiangxi', 'site_1', '007', 'v1.2'
    ]


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert expand('~/x') == tmp_path / 'x' and expand('~') == tmp_path
    assert str(expand('a/~/b')) == 'a/~/b'
    with pytest.raises(ValueError, match='~nobody-of-this-name/x: no home'):
        expand('~nobody-of-this-name/x')


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / 'x.json'
    write_text(file, 'old')
    with pytest.raises(UnicodeEncodeError):
        write_text(file, 'new \ud800')
    assert file.read_text() == 'old'


def test_one_at_a_time(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(MayPass, match=f'{tmp_path}: another process') as error, alone_in(
            tmp_path
        ):
            pass
        assert '\n' not in str(error.value)
    with alone_in(tmp_path):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        'import fcntl, sys, time\n'
        f'file = open({str(tmp_path / files.LOCK)!r}, "a")\n'
        'fcntl.flock(file, fcntl.LOCK_EX)\nprint("held", flush=True)\ntime.sleep(600)\n'
    )
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(MayPass), alone_in(tmp_path):
            pass
        process.kill()
        process.wait()
    with alone_in(tmp_path):
        pass


def test_without_locks_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(files.fcntl, 'flock', flock)
    with pytest.warns(UserWarning, match='cannot be locked .*No locks'), alone_in(tmp_path):
        pass
    monkeypatch.setattr(files, 'fcntl', None)
    with pytest.warns(UserWarning, match='no flock'), alone_in(tmp_path):
        pass
