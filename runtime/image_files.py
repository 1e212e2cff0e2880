"""Image files: recognise them by name, sort them, and decode them to 8-bit BGR."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError, is_out_of_memory
from runtime.frame import Pixels

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_JPEG, _END_OF_IMAGE = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
# JPEG markers that a length follows: all but stuffed bytes, restart markers and fill bytes.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")


def is_image(path: Path) -> bool:
    """Return whether a file name has the suffix of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that puts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def read_image(path: Path) -> Pixels:
    """Decode an image file to uint8[H, W, 3] BGR, EXIF orientation applied.

    Alpha is dropped, 16 bits are reduced to 8, palettes and gray become colour. Raises InputError if the file cannot
    be read or decoded, or is cut off.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", path, hint="check the path and its permissions"
        ) from error
    if is_cut_off(encoded.tobytes()):
        raise InputError("image is cut off", path, hint="copy it again, or remove it")
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error as error:
        if is_out_of_memory(error):
            raise
        pixels = None
    if pixels is None:
        raise InputError("not an image that can be decoded", path, hint="check that the file is whole, or remove it")
    return np.asarray(pixels, np.uint8)


def is_cut_off(encoded: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end marker; False for other formats.

    The check is needed because OpenCV invents the missing rest of a JPEG. JPEG segments are skipped, because
    thumbnails inside them have their own end markers. Bytes after the end marker are allowed.
    """
    if encoded.startswith(_PNG):
        return _PNG_END not in encoded
    if not encoded.startswith(_JPEG):
        return False
    position = len(_JPEG) - 1
    while marker := _MARKER.search(encoded, position):
        if marker[0] == _END_OF_IMAGE:
            return False
        position = marker.end() + int.from_bytes(encoded[marker.end() : marker.end() + 2], "big")
    return True
