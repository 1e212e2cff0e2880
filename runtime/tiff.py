"""Fields of a TIFF structure: TIFF files are one, and EXIF is another inside JPEG, PNG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

SHORT, LONG, SUB_DIRECTORY = 3, 4, 13
"""Kinds of whole numbers."""
ORIENTATION, EXIF, GPS, XMP, ICC_PROFILE = 274, 34665, 34853, 700, 34675
_SUB_DIRECTORIES = (EXIF, GPS)
_KIND_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
"""Bytes of one value, by the number of its kind."""
_SWAPPED_SIZES = (0, 1, 1, 2, 4, 4, 1, 1, 2, 4, 4, 4, 8, 4)
"""Bytes that are reversed together between the byte orders: a rational number is two of four bytes."""
_ENTRY_BYTES = 12
HEADER = b"II*\0\x08\0\0\0"
"""Header of a little-endian structure whose first directory follows."""


@dataclass(frozen=True)
class Entry:
    """A field of a directory."""

    tag: int
    kind: int
    count: int
    slot: int
    """Position of the four bytes that hold the value, or the position of a longer one."""


@dataclass(frozen=True)
class Field:
    """A field that stands alone: its value is in little-endian order."""

    kind: int
    count: int
    value: bytes | Directory


Directory: TypeAlias = dict[int, Field]
"""Fields by their tags."""


def byte_order(data: bytes) -> str:
    """Return the byte order of a structure as `struct` writes it, `<` or `>`; raises ValueError if there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    return order


def first_directory(data: bytes) -> int:
    """Return the position of the first directory; raises ValueError."""
    return _number(data, 4, "I")


def iterate_entries(data: bytes, position: int) -> Iterator[Entry]:
    """Yield the entries of the directory at a position; raises ValueError if it is cut off."""
    for index in range(_number(data, position, "H")):
        start = position + 2 + index * _ENTRY_BYTES
        yield Entry(_number(data, start, "H"), _number(data, start + 2, "H"), _number(data, start + 4, "I"), start + 8)


def read_value(data: bytes, entry: Entry) -> int:
    """Return the first number of a field of kind SHORT or LONG; raises ValueError for other kinds."""
    if entry.kind not in (SHORT, LONG, SUB_DIRECTORY):
        raise ValueError(f"field {entry.tag} is not a whole number")
    return _number(data, entry.slot, "H" if entry.kind == SHORT else "I")


def end_of_directory(data: bytes, position: int) -> int:
    """Return the position of the number behind a directory, which refers to the next one; raises ValueError."""
    return position + 2 + _number(data, position, "H") * _ENTRY_BYTES


def read_directory(data: bytes, position: int) -> Directory:
    """Return the fields of the directory at a position, with those of EXIF and GPS; raises ValueError if it is cut off.

    Fields of unknown kinds, and fields whose values are cut off, are left out.
    """
    fields: Directory = {}
    for entry in iterate_entries(data, position):
        with suppress(ValueError):
            if entry.tag in _SUB_DIRECTORIES and position == first_directory(data):
                fields[entry.tag] = Field(LONG, 1, read_directory(data, read_value(data, entry)))
            elif entry.kind < len(_KIND_SIZES) and _KIND_SIZES[entry.kind]:
                fields[entry.tag] = Field(entry.kind, entry.count, _read_bytes(data, entry))
    return fields


def write_directory(fields: Directory, position: int) -> bytes:
    """Return a directory as the bytes that belong at a position of a little-endian structure."""
    values_at = position + 2 + _ENTRY_BYTES * len(fields) + 4
    entries, values = struct.pack("<H", len(fields)), b""
    for tag, field in sorted(fields.items(), key=lambda item: item[0]):
        value = field.value
        if isinstance(value, dict):
            place = values_at + len(values)
            values += write_directory(value, place)
            value = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, field.kind, field.count)
        if len(value) > 4:
            entries += struct.pack("<I", values_at + len(values))
            values += value + bytes(len(value) % 2)
        else:
            entries += value.ljust(4, b"\0")
    return entries + bytes(4) + values


def _read_bytes(data: bytes, entry: Entry) -> bytes:
    """Return the value of a field in little-endian order; raises ValueError if it is cut off."""
    length = _KIND_SIZES[entry.kind] * entry.count
    start = entry.slot if length <= 4 else _number(data, entry.slot, "I")
    value = data[start : start + length]
    if len(value) < length:
        raise ValueError("cut off")
    return _swap(value, _SWAPPED_SIZES[entry.kind]) if byte_order(data) == ">" else value


def _number(data: bytes, position: int, kind: str) -> int:
    try:
        (number,) = struct.unpack_from(byte_order(data) + kind, data, position)
    except struct.error as error:
        raise ValueError("cut off") from error
    return int(number)


def _swap(value: bytes, size: int) -> bytes:
    """Reverse each group of `size` bytes."""
    return b"".join(value[start : start + size][::-1] for start in range(0, len(value), size))
