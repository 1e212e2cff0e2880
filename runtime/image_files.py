"""Image files: recognise them by name, sort them, and decode them to 8-bit BGR."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError, is_out_of_memory
from runtime.frame import Pixels
from runtime.image_header import JPEG, PNG, is_jpeg_complete, require_possible_size

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_PNG_END = b"IEND"


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
    be read or decoded, is cut off, or has more than `MAX_IMAGE_PX` pixels.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", path, hint="check the path and its permissions"
        ) from error
    if is_cut_off(content):
        raise InputError("image is cut off", path, hint="copy it again, or remove it")
    require_possible_size(content, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error as error:
        if is_out_of_memory(error):
            raise
        pixels = None
    if pixels is None:
        raise InputError("not an image that can be decoded", path, hint="check that the file is whole, or remove it")
    return np.asarray(pixels, np.uint8)


def is_cut_off(encoded: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end marker; False for other formats.

    The check is needed because OpenCV invents the missing rest of a JPEG.
    """
    if encoded.startswith(PNG):
        return _PNG_END not in encoded
    return encoded.startswith(JPEG) and not is_jpeg_complete(encoded)
