"""Image files as a source: one file, a folder, or a pattern."""

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
"""Frames per second of a video that is made of images."""


class ImageSource:
    """Reads image files in the natural order of their names, decoded as `read_image` does.

    An image that cannot be decoded is skipped and named in `warnings`; if it is the only one, the iteration raises
    InputError.
    """

    dropped = reconnects = 0
    damage = None

    def __init__(self, paths: list[Path], *, name: str, root: Path | None = None) -> None:
        self._paths = sorted(paths, key=natural_order)
        self.warnings: list[str] = []
        self.info = SourceInfo(
            name=name,
            time_base=1 / FRAME_RATE,
            frame_rate=FRAME_RATE,
            frame_count=len(self._paths),
            files=tuple(self._paths),
            root=root,
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images; `pts` is the position in the list, also after a skipped image."""
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
                file=path,
            )

    def close(self) -> None:
        """Do nothing: no file stays open."""
