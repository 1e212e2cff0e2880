"""Pictures: one file a frame."""

from __future__ import annotations

from pathlib import Path

import cv2

from runtime.errors import OutputError
from runtime.files import unwritable, write_whole
from runtime.frame import Frame


class ImageSink:
    """Writes each frame as PNG into a folder, or the only one to a picture file.

    In a folder, pictures keep their names (a second of the same gets a number) and frames of a
    video are numbered. Each file appears when it is whole, so `close` has nothing to finish.
    """

    def __init__(self, path: Path, *, single: bool) -> None:
        self.warnings: list[str] = []
        self._path = path
        self._single = single
        self._names: set[str] = set()
        self._written = 0
        if not single:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error

    def write(self, frame: Frame) -> None:
        path = self._path if self._single else self._path / f"{self._new_name(frame)}.png"
        try:
            encoded, packed = cv2.imencode(path.suffix, frame.pixels)
        except cv2.error as error:
            raise OutputError("cannot be written as this kind of picture", path, hint="use .png or .jpg") from error
        if not encoded:
            raise OutputError("cannot be written as this kind of picture", path, hint="use .png or .jpg")
        write_whole(path, packed.tobytes())
        self._written += 1

    def close(self, *, complete: bool) -> str | None:
        return str(self._path) if self._written else None

    def _new_name(self, frame: Frame) -> str:
        """The name of the picture it came from, made unlike all before: `a.jpg` and `a.png` may both come."""
        wanted = frame.name or f"frame_{len(self._names) + 1:06d}"
        name, again = wanted, 1
        while name in self._names:
            again += 1
            name = f"{wanted}_{again}"
        self._names.add(name)
        return name
