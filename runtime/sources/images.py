"""Pictures: one file, a folder, or a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from runtime.errors import InputError, lacks_memory
from runtime.frame import Frame, Pixels
from runtime.sources.base import SourceInfo

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
FRAME_RATE = Fraction(25)
"""Pictures a second, when they are written to a video."""

_JPEG, _END_OF_IMAGE = b"\xff\xd8\xff", b"\xff\xd9"
# Not those without a length: stuffed bytes, restarts, fill.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """A sort key by which `frame2` comes before `frame10`."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


class ImageSource:
    """Pictures in natural order of their names, as 8-bit BGR, EXIF orientation applied.

    Alpha is dropped, 16 bits are reduced to 8, palettes and gray become colour. The first
    picture that cannot be decoded raises InputError if it is the only one; in a series it is
    skipped and named in `warnings`.
    """

    dropped = reconnects = 0
    damage = None

    def __init__(self, paths: list[Path], *, name: str) -> None:
        self._paths = sorted(paths, key=natural_order)
        self.warnings: list[str] = []
        self.info = SourceInfo(
            name=name,
            time_base=1 / FRAME_RATE,
            frame_rate=FRAME_RATE,
            frame_count=len(self._paths),
            files=tuple(self._paths),
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            try:
                pixels = read_picture(path)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                self.warnings.append(f"skipped: {error}")
                continue
            yield Frame(
                pixels=pixels,
                pts=index,
                time_base=self.info.time_base,
                captured_at=perf_counter(),
                name=path.stem,
            )

    def close(self) -> None:
        """Nothing is held open."""


def read_picture(path: Path) -> Pixels:
    """A picture file -> uint8[H, W, 3] BGR; raises InputError if it cannot be read or decoded."""
    try:
        packed = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", path, hint="check the path and its permissions"
        ) from error
    if not _has_its_end(packed.tobytes()):
        raise InputError("picture is cut off", path, hint="copy it again, or remove it")
    try:
        pixels = cv2.imdecode(packed, cv2.IMREAD_COLOR) if packed.size else None
    except cv2.error as error:
        if lacks_memory(error):
            raise
        pixels = None
    if pixels is None:
        raise InputError("not a picture that can be decoded", path, hint="check that the file is whole, or remove it")
    return np.asarray(pixels, np.uint8)


def _has_its_end(packed: bytes) -> bool:
    """Whether a JPEG has its end-of-image marker; True for other kinds. OpenCV 4 makes up what is missing.

    Segments are stepped over: thumbnails in them have an end of their own. What follows the end may be anything.
    """
    if not packed.startswith(_JPEG):
        return True
    place = len(_JPEG) - 1
    while found := _MARKER.search(packed, place):
        if found[0] == _END_OF_IMAGE:
            return True
        place = found.end() + int.from_bytes(packed[found.end() : found.end() + 2], "big")
    return False
