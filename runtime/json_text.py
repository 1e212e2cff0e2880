"""JSON from files that someone else may have written: limits of size and depth, and values of the declared types."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

MAX_BYTES = 64 << 20
MAX_DEPTH = 64


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if the text is not UTF-8, not JSON, larger than `MAX_BYTES`, or nested deeper than `MAX_DEPTH`.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"JSON of more than {MAX_BYTES >> 20} MiB")
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
        is_too_deep = True
    else:
        is_too_deep = _is_deeper(value, MAX_DEPTH)
    if is_too_deep:
        raise ValueError(f"JSON is nested deeper than {MAX_DEPTH} levels")
    return value


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; raises OSError, and ValueError as `parse_json` does."""
    with path.open("rb") as file:
        return parse_json(file.read(MAX_BYTES + 1))


def require_field_types(instance: Any) -> None:
    """Raise ValueError if a field of a dataclass has a value of another type than it declares.

    An int is a valid float, NaN is not, and a bool is no number.
    """
    types = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not _has_type(value, types[field.name]):
            raise ValueError(f"{field.name} has a value of the wrong kind: {_shorten(value)}")


def _has_type(value: Any, wanted: Any) -> bool:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return any(value == choice for choice in arguments)
    if origin is UnionType:
        return any(_has_type(value, choice) for choice in arguments)
    if origin is tuple:
        types = arguments[:1] * len(value) if arguments[1:] == (...,) and isinstance(value, tuple) else arguments
        return isinstance(value, tuple) and len(value) == len(types) and all(map(_has_type, value, types))
    if origin is dict:
        key_type, item_type = arguments
        return isinstance(value, dict) and all(
            _has_type(key, key_type) and _has_type(item, item_type) for key, item in value.items()
        )
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def _is_deeper(value: Any, limit: int) -> bool:
    level = _containers([value])
    for _ in range(limit):
        level = [child for item in level for child in _containers(item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
