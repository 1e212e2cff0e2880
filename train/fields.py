"""Check of dataclass fields against their annotations."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, get_args, get_origin


def check_types(config: Any) -> None:
    """Raise ValueError if a field of a dataclass has a value that its annotation does not allow."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _matches(value, hint):
            raise ValueError(f"{name} must be {_describe(hint)}, got {value!r}")


def _matches(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is types.UnionType:
        return any(_matches(value, choice) for choice in arguments)
    if origin is tuple:
        is_tuple = isinstance(value, tuple)
        hints = arguments[:1] * len(value) if arguments[-1:] == (...,) and is_tuple else arguments
        return is_tuple and len(value) == len(hints) and all(map(_matches, value, hints))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(arguments)
    if origin is types.UnionType:
        return " or ".join(map(_describe, arguments))
    if origin is tuple:
        return f"({', '.join(map(_describe, arguments))})"
    if hint is ...:
        return "..."
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
