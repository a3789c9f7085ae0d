"""Canonical input: each center's colors and magnification are brought to the reference's.

A center's change is made in closed form from additive moments of its unlabelled images, towards
those of the seen centers' training images together, or of drawn smears.  It is the same for all
images of a center and serves every algorithm alike.  It is the identity at the reference, but
where `input.area` says what share of an image a nucleus shall have: then that is the magnification
of all centers, the reference's too.
"""

from fedgen_jax.canonical.base import Canonical, Change, carried_back, unchanged
from fedgen_jax.canonical.brightfield import brightfield
from fedgen_jax.canonical.centers import (
    Input,
    change_from,
    make_input,
    mean_moments,
    moments_of,
    on_canonical,
    own_change,
)
from fedgen_jax.canonical.gray import fundus, gray

# By modality: `input.area` -> Canonical.
PRESETS = {'none': unchanged, 'brightfield': brightfield, 'gray': gray, 'fundus': fundus}

__all__ = [
    'PRESETS', 'Canonical', 'Change', 'Input', 'carried_back', 'change_from', 'make_input',
    'mean_moments', 'moments_of', 'on_canonical', 'own_change',
]
