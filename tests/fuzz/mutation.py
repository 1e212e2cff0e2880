"""Seeded mutations of files: of any bytes, and of JSON by its structure."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

EDGE_BYTES = 4096
"""Length of the first and the last part of a file, which hold its headers and get half of all mutations."""
_EXTREMES = (b"\0", b"\xff", b"\x80", b"\x7f", b"9", b"[", b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0")


def mutate_bytes(content: bytes, rng: random.Random, *, most: int = 4) -> bytes:
    """Return a file with one to `most` mutations; it may be empty, and it differs from `content` in most cases."""
    result = bytearray(content)
    for _ in range(rng.randint(1, most)):
        rng.choice(_BYTE_MUTATIONS)(result, rng)
    return bytes(result)


def _position(content: bytearray, rng: random.Random) -> int:
    if rng.random() < 0.5:
        return rng.randrange(len(content) + 1)
    offset = rng.randrange(min(EDGE_BYTES, len(content)) + 1)
    return rng.choice((offset, len(content) - offset))


def _range(content: bytearray, rng: random.Random, longest: int = 256) -> slice:
    start = _position(content, rng)
    length = rng.choice((1, 2, 4, 8, rng.randint(1, longest)))
    return slice(start, min(len(content), start + length))


def _flip(content: bytearray, rng: random.Random) -> None:
    for position in range(*_range(content, rng, 16).indices(len(content))):
        content[position] ^= 1 << rng.randrange(8)


def _set_extreme(content: bytearray, rng: random.Random) -> None:
    start, value = _position(content, rng), rng.choice(_EXTREMES)
    content[start : start + len(value)] = value


def _add_small(content: bytearray, rng: random.Random) -> None:
    start = _position(content, rng)
    if start < len(content):
        content[start] = (content[start] + rng.choice((-1, 1, 16, 64))) % 256


def _delete(content: bytearray, rng: random.Random) -> None:
    del content[_range(content, rng)]


def _duplicate(content: bytearray, rng: random.Random) -> None:
    part = _range(content, rng)
    content[part.start : part.start] = content[part] * rng.choice((1, 1, 3, 40))


def _splice(content: bytearray, rng: random.Random) -> None:
    source, target = _range(content, rng), _position(content, rng)
    part = content[source]
    content[target : target + len(part)] = part


def _swap(content: bytearray, rng: random.Random) -> None:
    first, second = _range(content, rng, 64), _range(content, rng, 64)
    content[first], content[second] = content[second], content[first]


def _zero(content: bytearray, rng: random.Random) -> None:
    part = _range(content, rng, 2048)
    content[part] = bytes(len(content[part]))


def _randomise(content: bytearray, rng: random.Random) -> None:
    part = _range(content, rng, 64)
    content[part] = rng.randbytes(len(content[part]))


def _truncate(content: bytearray, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del content[_position(content, rng) :]


_BYTE_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _set_extreme, _set_extreme, _add_small, _delete, _duplicate, _splice, _swap, _zero, _randomise,
    _truncate,
)  # fmt: skip

_RAW = {
    "@deep-list@": "[" * 100_000 + "]" * 100_000,
    "@deep-object@": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "@open@": "[" * 3_000,
    "@huge-integer@": "9" * 6_000,
    "@huge-float@": "1e999",
    "@surrogate@": '"\\ud800"',
}
"""JSON texts that json.dumps cannot write, by the string that stands for them."""
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, float("nan"), float("inf"), float("-inf"), 1e308, 2**31, 2**63, -(2**63),
    10**30, "", " ", "x", "\0", "\n", "\u202e", "a" * 100_000, "../../x", "/x", "1", "nan", "%s%n", "[red]", "${HOME}",
    [], {}, [[]], [1], [1, 2], [2, 1], [0, 0], [1, 2, 3], ["1", "2"], [None, None], [1.5, 2.5], {"a": 1}, [{}], *_RAW,
)  # fmt: skip


def mutate_json(value: Any, rng: random.Random) -> bytes:
    """Return the text of a JSON value with one to three mutations; one in five is then mutated as bytes, too."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _mutate_value(value, rng)
    text = json.dumps(value, indent=rng.choice((None, 1)))
    for stand_in, raw in _RAW.items():
        text = text.replace(json.dumps(stand_in), raw)
    content = text.encode(errors="surrogatepass")
    return mutate_bytes(content, rng, most=2) if rng.random() < 0.2 else content


def _odd_value(rng: random.Random) -> Any:
    """Return a value of its own: later mutations change lists and objects."""
    return copy.deepcopy(rng.choice(_ODD_VALUES))


def _mutate_value(value: Any, rng: random.Random) -> Any:
    """Change one place of a value: itself, or a place in one of its members."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return _replace_scalar(value, rng)
    members = list(value.keys()) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(members)
    kind = rng.random()
    if kind < 0.55:
        value[key] = _mutate_value(value[key], rng)
    elif kind < 0.75:
        value[key] = _odd_value(rng)
    elif kind < 0.87:
        del value[key]
    elif isinstance(value, list):
        value.insert(key, _odd_value(rng))
    else:
        name = rng.choice((str(key).upper(), f"{key} ", "unknown", "", "self", "__class__", "a" * 300, "\0"))
        value[name] = value.pop(key) if rng.random() < 0.5 else _odd_value(rng)
    return value


def _replace_scalar(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str) and value and rng.random() < 0.5:
        return mutate_bytes(value.encode(errors="replace"), rng, most=1).decode(errors="replace")
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 1000, str(value), [value], float(value)))
    return _odd_value(rng)


def mutate_fields(message: Any, rng: random.Random) -> None:
    """Change one field of a protobuf message, or of a message in it, to another value of its type."""
    fields = message.ListFields()
    while fields:
        field, value = rng.choice(fields)
        is_repeated = not isinstance(value, str | bytes | int | float) and hasattr(value, "append")
        if field.type == field.TYPE_MESSAGE:
            if is_repeated and rng.random() < 0.1:
                del value[rng.randrange(len(value))]
                return
            message = rng.choice(value) if is_repeated and value else value
            fields = [] if is_repeated and not value else message.ListFields()
            continue
        if is_repeated and rng.random() < 0.2:
            del value[rng.randrange(len(value))]
        elif is_repeated:
            value[rng.randrange(len(value))] = _odd_field(value[0], rng)
        else:
            setattr(message, field.name, _odd_field(value, rng))
        return


def _odd_field(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bytes):
        return mutate_bytes(value, rng, most=1)
    if isinstance(value, str):
        return rng.choice(("", "x0", "y", "white", "Sub", "Add", "Pad", "h", "a" * 300, value + "1"))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    return rng.choice((0, 1, 2, 3, 7, 16, 64, value + 1, max(0, value - 1), 2**31 - 1))
