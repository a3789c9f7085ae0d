"""The published sets by name, and their table in docs/sets.md."""

import pathlib
import tempfile
import urllib.request
from collections.abc import Callable
from typing import Any

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import (
    blood_det,
    camelyon17_wilds,
    fed_isic2019,
    fundus_dofe,
    medmnist_sets,
    nih_chestxray14,
    padchest,
    prostate_saml,
    rsna_pneumonia,
    wbc_cls,
    wbc_seg,
)
from fedgen_jax.data.public.download import fetch
from fedgen_jax.data.public.layout import PublicSet, lay
from fedgen_jax.registry import look_up

_OWN = tuple(module.SET for module in (
    wbc_cls, wbc_seg, blood_det, fed_isic2019, camelyon17_wilds, fundus_dofe, prostate_saml,
    rsna_pneumonia, nih_chestxray14, padchest,
))
SETS = {one.name: one for one in (*_OWN, *medmnist_sets.SETS)}

HEADER = (
    'set', 'task', 'images', 'centers', 'licence', 'size of the download', 'access',
    'run here',
)


def named(name: str) -> PublicSet:
    """The set of that name.  Raises ValueError, which lists those that there are."""
    return look_up('set', name, SETS)


def prepare(
    name: str, root: pathlib.Path, source: pathlib.Path | None = None,
    opened: Callable[[str], Any] = urllib.request.urlopen,
) -> tuple[str, ...]:
    """Makes the center folder `root` of a set; notes.

    source: the folder of what was downloaded, or its file; None: the set is downloaded.
    opened: opens an address.

    Raises DataError where the set cannot be downloaded, or is not as published.
    """
    one = named(name)
    if source is not None:
        return lay(one, source, root)
    if not one.downloads:
        raise DataError(
            f'{one.name}: {one.access} ({one.url}): put {one.source} into a folder, and pass it as '
            '--source'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f'.{root.name}-') as folder:
        for file in one.downloads:
            fetch(file, pathlib.Path(folder), opened)
        return lay(one, pathlib.Path(folder), root)


def table() -> str:
    """The sets as a table of Markdown; of MedMNIST the sets of 28 pixels stand for all sizes."""
    shown = [*_OWN, *(SETS[base] for base in medmnist_sets.OF)]
    lines = [HEADER, ['---'] * len(HEADER), *map(_cells, shown)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def _cells(one):
    centers = str(len(one.centers)) if len(one.centers) > 1 else '1, to be cut'
    return (
        f'`{one.name}`', one.task, one.images, centers, one.licence, one.size, one.access,
        'yes' if one.run_here else 'no',
    )
