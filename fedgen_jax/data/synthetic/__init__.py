"""Synthetic centers: drawn blood smears."""

from fedgen_jax.data.synthetic.centers import (
    CLASSES,
    CLASSES_OF,
    MAX_BOXES,
    VERSION,
    Acquisition,
    centers,
    client_acquisition,
    client_prevalence,
    draw,
    draw_client,
    photograph,
    sample_acquisition,
)

__all__ = [
    'CLASSES', 'CLASSES_OF', 'MAX_BOXES', 'VERSION', 'Acquisition', 'centers',
    'client_acquisition', 'client_prevalence', 'draw', 'draw_client', 'photograph',
    'sample_acquisition',
]
