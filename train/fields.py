"""Dataclass fields that are checked against their own annotations."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, get_args, get_origin


def check_types(config: Any) -> None:
    """Raise ValueError where a field of a dataclass holds what its annotation does not allow."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _fits(value, hint):
            raise ValueError(f"{name} must be {_described(hint)}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is types.UnionType:
        return any(_fits(value, choice) for choice in inner)
    if origin is tuple:
        hints = inner[:1] * len(value) if inner[-1:] == (...,) and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(hints) and all(map(_fits, value, hints))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(inner)
    if origin is types.UnionType:
        return " or ".join(map(_described, inner))
    if origin is tuple:
        return f"({', '.join(map(_described, inner))})"
    if hint is ...:
        return "..."
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
