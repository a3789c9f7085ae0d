"""Acquisition shifts: constructors of `Shift`, whose arguments are the ranges to draw from."""

from fedgen_jax.ops.resample import gaussian_matrix, resample_matrix
from fedgen_jax.shifts.base import Params, Shift, Target, chain, sometimes
from fedgen_jax.shifts.color import (
    brightness,
    color_matrix,
    contrast,
    gamma,
    hed_stain,
    monochrome,
)
from fedgen_jax.shifts.field import (
    amplitude,
    amplitude_mix,
    bias_field,
    collimation,
    low_frequency,
)
from fedgen_jax.shifts.geometry import flip, magnification, quarter_turns, rotation
from fedgen_jax.shifts.noise import gaussian, poisson, rician, sensor, speckle
from fedgen_jax.shifts.optics import blur, lens, resolution
from fedgen_jax.shifts.presets import PRESETS, apply_batch, plain, virtual_centers

__all__ = [
    'PRESETS', 'Params', 'Shift', 'Target', 'amplitude', 'amplitude_mix', 'apply_batch',
    'bias_field', 'blur', 'brightness', 'chain', 'collimation', 'color_matrix', 'contrast', 'flip',
    'gamma', 'gaussian', 'gaussian_matrix', 'hed_stain', 'lens', 'low_frequency', 'magnification',
    'monochrome', 'plain', 'poisson', 'quarter_turns', 'resample_matrix', 'resolution', 'rician',
    'rotation', 'sensor', 'sometimes', 'speckle', 'virtual_centers',
]
