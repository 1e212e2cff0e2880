"""Dataclasses of settings: made of JSON values, and checked against their annotations."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar, get_args, get_origin

Config = TypeVar("Config")
_MAX_INT = 2**63 - 1
_MAX_FLOAT = 3.4e38
"""Largest numbers that torch stores, as int64 and as float32."""


def build_config(kind: type[Config], values: Any, *, prefix: str = "") -> Config:
    """Return a dataclass of settings with the values of a JSON object, and those of its parts with their objects.

    `prefix`: name of the object in errors, such as `data.`. Raises ValueError for anything but an object, for settings
    that do not exist or are missing, and for values that are not allowed.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the settings'} must be an object, got {type(values).__name__}")  # noqa: TRY004 - a bad value
    hints = typing.get_type_hints(kind)
    unknown = [f"{prefix}{name}" for name in values if name not in hints]
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}, a typo or of a later version")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            arguments[name] = build_config(typing.cast("type[Any]", hints[name]), value, prefix=f"{prefix}{name}.")
        elif isinstance(value, dict):
            arguments[name] = {key: _tuple_from_list(item) for key, item in value.items()}
        else:
            arguments[name] = _tuple_from_list(value)
    try:
        return kind(**arguments)
    except TypeError as error:  # a setting without a default is missing
        raise ValueError(str(error).partition("() ")[2] or str(error)) from error


def _tuple_from_list(value: Any) -> Any:
    """Return the tuple that JSON keeps as a list, with those inside of it, and any other value unchanged."""
    return tuple(map(_tuple_from_list, value)) if isinstance(value, list) else value


def check_types(config: Any) -> None:
    """Raise ValueError if a field of a dataclass has a value that its annotation does not allow."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _matches(value, hint):
            is_number = isinstance(value, (int, float))
            expected = "in range" if is_number and not abs(value) <= _MAX_INT else _describe(hint)
            raise ValueError(f"{name} must be {expected}, got {_shorten(value)}")


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
        # Neither NaN nor infinite, in float32 either.
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MAX_FLOAT
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_INT
    return isinstance(value, origin or hint)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def parse_value(text: str) -> Any:
    """Return the Python literal of a text, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
