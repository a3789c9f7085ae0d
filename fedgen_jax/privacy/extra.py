"""The packages of the extra `privacy`, imported where they are used."""

import importlib
from types import ModuleType


def extra(module: str, field: str) -> ModuleType:
    """A module of the extra `privacy`, which `field` of a configuration needs.

    Raises ValueError where its package is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition('.')[0].replace('_', '-')
        raise ValueError(
            f"{field}: needs the package {name}: pip install 'fedgen_jax[privacy]'"
        ) from error
