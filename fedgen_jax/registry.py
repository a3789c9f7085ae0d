"""From names to values: built-in names, or 'module:name' of the user's own."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def choose(field: str, value: str, options: dict[str, Any] | Sequence[str]) -> Any:
    """options[value] (of a sequence: the value), or one line that names the field."""
    if value not in options:
        raise ValueError(f'{field}={value!r}: one of {", ".join(options)}')
    return options[value] if isinstance(options, dict) else value


def check_counts(group: str, c: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError where a field of the group, or one of its several numbers, is below 1."""
    for name in names:
        if np.min(c[name], initial=1) < 1:
            raise ValueError(f'{group}.{name}={c[name]}: at least 1'.removeprefix('.'))


def look_up(field: str, value: str, options: dict[str, Any]) -> Any:
    """options[value]; or, of a value 'module:name', what a user's own module has by that name."""
    module, colon, name = value.partition(':')
    if not colon:
        return choose(field, value, options)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'{field}={value!r}: {error}') from error
