"""What data a run was made on, as its `federation.json` tells: classes, centers, and their images.

    {'classes': [...], 'seen': [NAME, ...], 'unseen': [...],
     'data': {NAME: {'images': number, 'train': number, 'content': hash,
                     'labels': {CLASS: number of training images}}, ...}}

`data` and `labels` are missing in runs that are older than they; `labels` is null where the classes
are of no label.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedgen_jax.data.examples import SPLITS, Center

CHUNK = 256  # images hashed at a time, which may still lie on disk


def federation_of(
    classes: Sequence[str], seen: Sequence[Center], unseen: Sequence[Center], from_files: bool
) -> dict[str, Any]:
    """The content of `federation.json`.

    from_files: whether the images are read from files, whose content may change behind a name.
        Drawn ones follow from the configuration, but for the device's rounding.
    """
    data = {
        c.name: {
            'images': len(c.split),
            'train': int((c.split == SPLITS.index('train')).sum()),
            'content': content_of(c) if from_files else None,
            'labels': labels_of(c, classes),
        }
        for c in (*seen, *unseen)
    }
    names = {'seen': [c.name for c in seen], 'unseen': [c.name for c in unseen]}
    return {'classes': list(classes), **names, 'data': data}


def labels_of(center: Center, classes: Sequence[str]) -> dict[str, int] | None:
    """How many training images a center has of each class; None without labels."""
    label_N = center.examples.target.get('label')
    if label_N is None:
        return None
    label_N = np.asarray(label_N)[center.split == SPLITS.index('train')]
    return {name: int((label_N == k).sum()) for k, name in enumerate(classes)}


def content_of(center: Center) -> str:
    """A hash of a center's images, targets and splits, and of what belongs together."""
    digest = hashlib.blake2b(digest_size=8)
    arrays = {'image': center.examples.image, **center.examples.target}
    for name in sorted(arrays):
        x_Nx = arrays[name]
        digest.update(f'{name} {x_Nx.dtype} {x_Nx.shape}'.encode())
        for i in range(0, len(x_Nx), CHUNK):
            digest.update(np.ascontiguousarray(x_Nx[i : i + CHUNK]).data)
    digest.update(center.split.tobytes())
    digest.update('\0'.join(center.unit).encode())
    return digest.hexdigest()


def other_names(was: dict, now: dict) -> str:
    """In what classes or centers two federations differ, in words; '' if in none."""
    if list(was['classes']) != list(now['classes']):
        return f'classes {", ".join(now["classes"])}, and the run has {", ".join(was["classes"])}'
    for kind in ('seen', 'unseen'):
        if list(was[kind]) != list(now[kind]):
            new = [repr(x) for x in now[kind] if x not in was[kind]]
            gone = [repr(x) for x in was[kind] if x not in now[kind]]
            parts = [f'{_few(new)} not in the run'] * bool(new)
            parts += [f'{_few(gone)} of the run missing'] * bool(gone)
            return f'other {kind} centers: {"; ".join(parts) or "in another order"}'
    return ''


def other_data(was: dict, now: dict) -> str:
    """At which center two federations of the same names have other data; '' at none."""
    for name, before in was.get('data', {}).items():
        after = now['data'][name]
        counts = [f'{x["images"]} images, {x["train"]} to train' for x in (after, before)]
        if counts[0] != counts[1]:
            return f'{counts[0]}, of center {name!r}, and the run had {counts[1]}'
        if after['content'] != before['content']:
            return f'other images, targets or splits of center {name!r} than the run had'
    return ''


def _few(names):
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
