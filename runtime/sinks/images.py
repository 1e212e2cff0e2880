"""Pictures: one file a frame."""

from __future__ import annotations

from pathlib import Path

import cv2

from runtime.errors import OutputError
from runtime.frame import Frame
from runtime.sinks.files import PendingFile, unwritable


class ImageSink:
    """Writes each frame as PNG into a folder, or the only one to a picture file.

    In a folder, pictures keep their names and frames of a video are numbered. Each file
    appears when it is whole, so `close` has nothing to finish.
    """

    def __init__(self, path: Path, *, single: bool) -> None:
        self.warnings: list[str] = []
        self._path = path
        self._single = single
        self._written = 0
        if not single:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error

    def write(self, frame: Frame) -> None:
        self._written += 1
        path = self._path if self._single else self._path / f"{frame.name or f'frame_{self._written:06d}'}.png"
        try:
            encoded, packed = cv2.imencode(path.suffix, frame.pixels)
        except cv2.error as error:
            raise OutputError("cannot be written as this kind of picture", path, hint="use .png or .jpg") from error
        if not encoded:
            raise OutputError("cannot be written as this kind of picture", path, hint="use .png or .jpg")
        pending = PendingFile(path)
        whole = False
        try:
            pending.partial.write_bytes(packed.tobytes())
            whole = True
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            pending.close(complete=whole)

    def close(self, *, complete: bool) -> str | None:
        return str(self._path) if self._written else None
