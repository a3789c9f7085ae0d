"""Whether what was written is of a type that `fedgen_jax.schema` names."""

import types
import typing


def conforms_to(value, expected):
    """Whether a value out of JSON is of the type that an annotation names."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if expected is typing.Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(conforms_to(value, x) for x in args)
    if origin is typing.NotRequired:
        return conforms_to(value, args[0])
    if origin is typing.Literal:
        return value in args
    if origin is list:
        return isinstance(value, list) and all(conforms_to(x, args[0]) for x in value)
    if origin is dict:
        return isinstance(value, dict) and all(conforms_to(x, args[1]) for x in value.values())
    if typing.is_typeddict(expected):
        fields = typing.get_type_hints(expected, include_extras=True)
        return (
            isinstance(value, dict)
            and expected.__required_keys__ <= value.keys() <= fields.keys()
            and all(conforms_to(v, fields[k]) for k, v in value.items())
        )
    return type(value) is expected
