"""Pictures: one file, a folder, or a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import perf_counter

from runtime.errors import InputError
from runtime.frame import Frame
from runtime.image_files import natural_order, read_image
from runtime.sources.base import SourceInfo

FRAME_RATE = Fraction(25)
"""Pictures a second, when they are written to a video."""


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
                pixels = read_image(path)
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
