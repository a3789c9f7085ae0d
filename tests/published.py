"""Helpers of the tests of published sets: files in their layouts, and what becomes of them."""

import csv

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import catalog, layout
from fedgen_jax.data.source import load

RNG = np.random.default_rng(0)


def picture(file, size=(12, 12), value=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    pixels = RNG.integers(0, 256, shape, np.uint8) if value is None else np.full(
        shape, value, np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def write_csv(file, header, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, 'w', newline='') as opened:
        csv.writer(opened).writerows([header, *rows])


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def laid(name, source, tmp_path):
    root = tmp_path / 'made' / name
    notes = layout.lay(catalog.named(name), source, root)
    assert not root.with_name(f'{name}.partial').exists()
    return root, notes


def read(root, tmp_path, size=12, **kwargs):
    source = load(root, size, 0, tmp_path / 'cache', **kwargs)
    return {center.name: center for center in source.centers}, source


def refused(name, source, tmp_path, *words):
    """The set is refused in one line with these words, and nothing is left behind."""
    root = tmp_path / 'refused' / name
    with pytest.raises(DataError) as error:
        layout.lay(catalog.named(name), source, root)
    message = str(error.value)
    assert len(message.splitlines()) == 1 and all(word in message for word in words), message
    assert not list(root.parent.iterdir())
