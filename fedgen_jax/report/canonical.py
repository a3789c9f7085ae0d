"""What a report shows of the canonical input: images as they are, and as models see them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.data.examples import Center, adapted_on, of_split, take
from fedgen_jax.evaluate import canonical
from fedgen_jax.report.page import COLUMNS, Section, Strip
from fedgen_jax.run import Trained
from fedgen_jax.tasks.base import View

MOST = 3  # centers of a kind whose images are shown

# What is brought to the reference, by `input.canonical`.
WHAT = {
    'brightfield': 'background and stain density',
    'gray': 'brightness and contrast',
    'fundus': 'brightness and contrast of each color',
}
STAYS = {'gray': ' What is black stays black.', 'fundus': ' What is black stays black.'}


def has_canonical(config: Mapping[str, Any]) -> bool:
    """Whether a run's images come to its models on canonical input."""
    return config['input']['canonical'] != 'none'


def canonical_section(config: ConfigDict, done: Trained, split: str) -> Section:
    """The first images of a split of a few centers, before and after their change."""

    def strip(center: Center, kind: str, name: str | None) -> Strip:
        images = of_split(center, split)
        some = take(images, slice(COLUMNS))
        if not len(some.weight):
            return Strip(center.name, kind, [])
        moved = canonical(done, adapted_on(center), some, name)
        columns = [
            [View(np.asarray(a), 'as it is'), View(np.asarray(b), 'canonical')]
            for a, b in zip(some.image, moved.image)
        ]
        return Strip(center.name, kind, columns)

    strips = [strip(c, 'seen', c.name) for c in done.seen[:MOST]]
    strips += [strip(c, 'unseen', None) for c in done.unseen[:MOST]]
    return Section('Canonical input', text_of(config), strips=[s for s in strips if s.columns])


def text_of(config: ConfigDict) -> str:
    """What is changed, towards what, and by what it is known."""
    what = WHAT.get(config.input.canonical, f'reference of {config.input.canonical}')
    if config.input.canonical == 'brightfield' and tuple(config.input.zoom) != (1.0, 1.0):
        what = 'background, stain density and magnification'
    whose = {'seen': 'the seen centers together', 'drawn': 'drawn smears'}[config.input.reference]
    return (
        f"Before any model sees them, a center's images are brought to the {what} of {whose}. The "
        'change is computed from unlabelled images, and is one for all images of a center.'
        + STAYS.get(config.input.canonical, '')
    )
