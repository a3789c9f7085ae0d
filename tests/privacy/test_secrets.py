"""A center's secret stays its own, and every stream has a key that no other has."""

import os
import stat
import sys

import pytest

from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.secrets import (
    FILE,
    SIZE,
    create_secret,
    read_secret,
    simulated_secret,
    stream_key,
)

KNOWN = '3cd2318cbe9d054d61d0dd7ea1e43e651eed62931cb941097c48194174012d3e'  # by HMAC alone


def test_a_secret_is_random_and_readable_by_its_owner_alone(tmp_path):
    old = os.umask(0)  # the widest: the mode is the code's own doing
    try:
        one, two = (create_secret(tmp_path / name / 'keys') for name in 'ab')
    finally:
        os.umask(old)
    assert len(one) == SIZE and one != two
    assert read_secret(tmp_path / 'a' / 'keys') == one
    assert stat.S_IMODE((tmp_path / 'a' / 'keys' / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / 'a' / 'keys').stat().st_mode) == 0o700


def test_a_secret_is_never_replaced(tmp_path):
    secret = create_secret(tmp_path)
    with pytest.raises(ValueError, match='never replaced'):
        create_secret(tmp_path)
    assert read_secret(tmp_path) == secret


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda f: f.unlink(), 'is lost'),
        (lambda f: f.write_bytes(b'x' * 31), '31 bytes'),
        (lambda f: f.write_bytes(b''), '0 bytes'),
        (lambda f: f.chmod(0o640), 'mode 640'),
        (lambda f: f.chmod(0o604), 'mode 604'),
    ],
)
def test_a_lost_damaged_or_open_secret_is_refused_in_one_line(tmp_path, spoil, message):
    create_secret(tmp_path)
    spoil(tmp_path / FILE)
    with pytest.raises(ValueError, match=message) as error:
        read_secret(tmp_path)
    assert '\n' not in str(error.value) and str(tmp_path / FILE) in str(error.value)


@pytest.mark.parametrize('place', ['.', 'keys', '../run/keys'])
def test_no_secret_in_the_run_s_folder(tmp_path, place):
    (run := tmp_path / 'run').mkdir()
    for use in (create_secret, read_secret):
        with pytest.raises(ValueError, match='which the server reads'):
            use(run / place, run)
    assert not list(run.iterdir())
    create_secret(tmp_path / 'run-keys', run)  # beside it, though its name begins alike


def test_keys_of_other_streams_centers_and_parts_differ():
    secret, other = b'a' * SIZE, b'b' * SIZE
    infos = [(), ('a',), ('b',), ('a', 'b'), ('ab',), (b'ab',), ('a', 'b', ''), (1,), ('1',), (-1,)]
    keys = [stream_key(secret, *i) for i in infos] + [stream_key(other, *i) for i in infos]
    assert len(set(keys)) == len(keys) and {len(k) for k in keys} == {SIZE}
    assert stream_key(secret, 'a', 1) == stream_key(secret, 'a', 1)
    # A known value: the streams of finished runs must stay what they were.
    assert stream_key(secret, 'noise', 3).hex() == KNOWN


def test_a_key_of_what_has_no_writing_or_no_secret_is_an_error():
    with pytest.raises(TypeError, match='info is text'):
        stream_key(b'a' * SIZE, 1.5)
    with pytest.raises(TypeError, match='info is text'):
        stream_key(b'a' * SIZE, True)
    with pytest.raises(ValueError, match='4 bytes'):
        stream_key(b'four', 'a')


def test_a_seed_gives_the_same_secret_again_and_each_center_another():
    assert simulated_secret(0, 'east') == simulated_secret(0, 'east')
    four = {simulated_secret(s, c) for s in (0, 1) for c in ('east', 'west')}
    assert len(four) == 4


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cryptography.hazmat', None)
    with pytest.raises(ValueError, match=r"secure.on: .*pip install 'fedgen_jax\[privacy\]'"):
        extra('cryptography.hazmat', 'secure.on')
