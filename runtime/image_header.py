"""Size of an image by its header, so that nothing is decoded that cannot fit into memory or into its file."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from runtime import tiff
from runtime.errors import InputError
from runtime.frame import Size

MAX_IMAGE_PX = 1 << 28
"""Largest number of pixels of an image that is decoded, 16384x16384: 0.8 GB as 8-bit colour."""

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_END_OF_IMAGE = 0xD9
# JPEG markers that a length follows: all but stuffed bytes, restart markers and fill bytes.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032
"""Largest ratio of the data of a PNG to its compressed size."""


def require_possible_size(encoded: bytes, path: Path) -> None:
    """Raise InputError if an image has more pixels than `MAX_IMAGE_PX`, or than its file can hold.

    Other formats than JPEG, PNG, WebP, BMP and TIFF are left to OpenCV, which has a limit of its own.
    """
    try:
        size = image_size(encoded)
    except (ValueError, IndexError):
        return  # the decoder refuses a damaged header
    if size is None:
        return
    width, height = size
    if width * height > MAX_IMAGE_PX:
        raise InputError(
            f"image of {width}x{height} has more than {MAX_IMAGE_PX / 1e6:.0f} million pixels",
            path,
            hint="scale it down, or cut it into parts",
        )
    if encoded.startswith(PNG):
        bits = encoded[24] * _PNG_CHANNELS.get(encoded[25], 1)
        if width * height * bits // 8 > _DEFLATE_RATIO * len(encoded):
            raise InputError(
                f"image is cut off (its header says {width}x{height})", path, hint="copy it again, or remove it"
            )


def image_size(encoded: bytes) -> Size | None:
    """Return width and height as the header of an image says; None for an unknown format.

    Raises ValueError or IndexError for a header that is damaged.
    """
    reader = next((reader for magic, reader in _READERS.items() if encoded.startswith(magic)), None)
    return reader(encoded) if reader else None


def iterate_jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG, each with the position of the length that follows it; the last one ends the image.

    Segments are skipped, because thumbnails inside them have markers of their own.
    """
    position = len(JPEG) - 1
    while found := _MARKER.search(encoded, position):
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker == _END_OF_IMAGE:
            return
        position = at + int.from_bytes(encoded[at : at + 2], "big")


def jpeg_channels(encoded: bytes) -> int:
    """Return the number of channels of a JPEG; 0 if its header is damaged."""
    frames = (at for marker, at in iterate_jpeg_segments(encoded) if marker in _FRAME_HEADERS)
    return next((encoded[at + 7] for at in frames if at + 7 < len(encoded)), 0)


def is_jpeg_complete(encoded: bytes) -> bool:
    """Return whether a JPEG has its end marker; bytes after it are allowed."""
    return any(marker == _END_OF_IMAGE for marker, _ in iterate_jpeg_segments(encoded))


def _png_size(encoded: bytes) -> Size:
    return _read(encoded, 16, 4, "big"), _read(encoded, 20, 4, "big")


def _jpeg_size(encoded: bytes) -> Size | None:
    frames = (at for marker, at in iterate_jpeg_segments(encoded) if marker in _FRAME_HEADERS)
    return next(((_read(encoded, at + 5, 2, "big"), _read(encoded, at + 3, 2, "big")) for at in frames), None)


def _webp_size(encoded: bytes) -> Size | None:
    kind = encoded[8:16].removeprefix(b"WEBP")
    if kind == b"VP8X":
        return _read(encoded, 24, 3) + 1, _read(encoded, 27, 3) + 1
    if kind == b"VP8L":
        bits = _read(encoded, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (_read(encoded, 26, 2) & 0x3FFF, _read(encoded, 28, 2) & 0x3FFF) if kind == b"VP8 " else None


def _bmp_size(encoded: bytes) -> Size:
    if _read(encoded, 14, 4) == 12:  # the header of OS/2
        return _read(encoded, 18, 2), _read(encoded, 20, 2)
    width, height = struct.unpack_from("<ii", encoded.ljust(26, b"\0"), 18)
    return abs(width), abs(height)  # a negative height means rows that run downwards


def _tiff_size(encoded: bytes) -> Size:
    entries = tiff.iterate_entries(encoded, tiff.first_directory(encoded))
    sides = {entry.tag: tiff.read_value(encoded, entry) for entry in entries if entry.tag in (256, 257)}
    return sides.get(256, 0), sides.get(257, 0)


def _big_tiff_size(encoded: bytes) -> Size:
    """Return the size in a TIFF file of the form for more than 4 GiB."""
    order: Literal["little", "big"] = "little" if encoded[:2] == b"II" else "big"
    start = _read(encoded, 8, 8, order)
    sides = {}
    for index in range(min(_read(encoded, start, 8, order), 1 << 16)):
        entry = start + 8 + 20 * index
        kind = _read(encoded, entry + 2, 2, order)
        sides[_read(encoded, entry, 2, order)] = _read(encoded, entry + 12, {3: 2, 4: 4}.get(kind, 8), order)
    return sides.get(256, 0), sides.get(257, 0)


def _read(encoded: bytes, at: int, size: int, order: Literal["little", "big"] = "little") -> int:
    """Return an unsigned number; raises ValueError if the file ends before."""
    if at + size > len(encoded):
        raise ValueError("cut off")
    return int.from_bytes(encoded[at : at + size], order)


_READERS: dict[bytes, Callable[[bytes], Size | None]] = {
    PNG: _png_size,
    JPEG: _jpeg_size,
    b"RIFF": _webp_size,
    b"BM": _bmp_size,
    b"II*\0": _tiff_size,
    b"MM\0*": _tiff_size,
    b"II+\0": _big_tiff_size,
    b"MM\0+": _big_tiff_size,
}
"""Readers of the size by the first bytes of a file."""
