"""Covers of MP4 files, added when a file is complete: FFmpeg would write an empty video track beside each."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

_TYPES = {"mjpeg": 13, "png": 14, "bmp": 27}
"""Numbers of image formats in MP4 by the codecs of FFmpeg."""
_PLACE = (b"udta", b"meta", b"ilst")
"""Boxes in the index of the file that lead to the tags."""
_TAGS_OF_MP4 = b"mdir"
"""Kind of tags that hold covers; where others are used, `ilst` has another meaning."""


def is_mp4_cover(codec: str | None) -> bool:
    """Return whether MP4 holds an image of this codec."""
    return codec in _TYPES


def add_covers(path: Path, covers: Sequence[tuple[str, bytes]]) -> bool:
    """Add images, each with its codec, to a complete MP4; return False if the file has no place for them.

    The index of the file must be its last box. A new one is written behind it before the old one is made void, so that
    the file can be read at any moment. Raises OSError, after which the file is as it was.
    """
    images = b"".join(_box(b"data", struct.pack(">II", _TYPES[codec], 0) + image) for codec, image in covers)
    with path.open("r+b", buffering=0) as file:
        start, size, kind = _find_last_box(file.fileno(), path.stat().st_size)
        index = os.pread(file.fileno(), size, start)[8:]
        extended = _insert(index, _PLACE, _box(b"covr", images)) if kind == b"moov" and _TAGS_OF_MP4 in index else None
        if extended is None:
            return False
        file.seek(start + size)
        rest = memoryview(_box(b"moov", extended))
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(start + size)
            raise
        file.seek(start + 4)
        file.write(b"free")
    return True


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _insert(boxes: bytes, place: Sequence[bytes], addition: bytes) -> bytes | None:
    """Return boxes with another one at the end of the box at `place`; None if there is no such place."""
    if not place:
        return boxes + addition
    start = 4 if place[0] == b"ilst" else 0  # the box around it begins with version and flags
    while start + 8 <= len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, start)
        if kind == place[0]:
            inner = _insert(boxes[start + 8 : start + size], place[1:], addition)
            return None if inner is None else boxes[:start] + _box(kind, inner) + boxes[start + size :]
        if size < 8:
            return None
        start += size
    return None


def _find_last_box(descriptor: int, end: int) -> tuple[int, int, bytes]:
    """Return position, size and kind of the last box of a file; nothing if the boxes do not end where the file does."""
    start, size, kind = 0, 0, b""
    while start + size + 8 <= end:
        start += size
        size, kind = struct.unpack(">I4s", os.pread(descriptor, 8, start))
        if size == 1:  # the size is behind the kind
            size = int.from_bytes(os.pread(descriptor, 8, start + 8), "big")
        if size < 8:
            break
    return (start, size, kind) if start + size == end else (end, 0, b"")
