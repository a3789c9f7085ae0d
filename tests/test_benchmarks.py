"""The scripts of `benchmarks/` run: what they measure is of no concern here."""


import launched
import pytest

from benchmarks import modalities
from fedgen_jax.data.check import look
from fedgen_jax.data.source import load
from fedgen_jax.modality import choose_modality


@pytest.mark.parametrize(
    'command',
    [
        'secure --clients=3,5 --numbers=50',
        *(pytest.param(command, marks=pytest.mark.extended) for command in (
            'scale --case=cohort:12 --rounds=1',
            'maps --case=C10:map --rounds=1',
            'operations --workload=W2 --rows=3',
            'canaries --sigmas=2 --canaries=40 --steps=4 --seeds=1',
        )),
    ],
)
def test_a_benchmark_runs(command):
    name, *flags = command.split()
    done = launched.call(f'benchmarks.{name}', *flags)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.extended
def test_drawn_folders_are_what_a_user_s_would_be(tmp_path, monkeypatch):
    monkeypatch.setattr(modalities, 'EACH', 12)
    modalities.write_modalities(tmp_path)
    for name, target, kind in (
        ('mri', 'mask', 'xray'), ('ct', 'label', 'xray'), ('ultrasound', 'mask', 'xray'),
        ('dermoscopy', 'label', 'dermoscopy'),
    ):
        source = load(tmp_path / name, 32, 0, tmp_path / 'store', target=target)
        found = look(source, flips=False)
        assert len(found.rows) == 4 and all(row.images == 12 for row in found.rows)
        assert all(min(row.classes[1:]) > 0 for row in found.rows)
        # Gray images are taken for radiographs, until a person says what they are.
        assert choose_modality('auto', source, tmp_path / name)[0] == kind
