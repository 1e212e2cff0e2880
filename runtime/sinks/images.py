"""Image files as a sink: one file for each frame."""

from __future__ import annotations

from pathlib import Path

import cv2

from runtime.errors import OutputError
from runtime.files import output_error, write_whole
from runtime.frame import Frame, require_memory

_ENCODER_FRAMES = 20
"""Approximate memory that an encoder of WebP needs, in frames; encoders do not report that memory does not suffice."""


class ImageSink:
    """Writes each frame as PNG into a folder, or the only frame to an image file (`single`).

    In a folder, images keep the names of their source files (`NAME_2.png` for the second of the same name), and frames
    of a video are numbered: `frame_000001.png`. Each file appears when it is complete, so there is nothing for `close`
    to finish.
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
                raise output_error(path, error) from error

    def write(self, frame: Frame) -> None:
        """Write the frame as an image; raises OutputError if it cannot be encoded or written."""
        path = self._path if self._single else self._path / f"{self._unused_name(frame)}.png"
        write_whole(path, _encode(path, frame))
        self._written += 1

    def close(self, *, complete: bool) -> str | None:
        """Return the folder or file, or None if no frame was written."""
        return str(self._path) if self._written else None

    def _unused_name(self, frame: Frame) -> str:
        """Return the name of the source image, with a number if it is taken: `a.jpg` and `a.png` may both come."""
        stem = frame.name or f"frame_{len(self._names) + 1:06d}"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


def _encode(path: Path, frame: Frame) -> bytes:
    """Return the content of an image file; raises OutputError, or MemoryError if memory does not suffice."""
    cause: cv2.error | None = None
    try:
        is_encoded, content = cv2.imencode(path.suffix, frame.pixels)
        if is_encoded:
            return content.tobytes()
    except cv2.error as error:
        cause = error
    width, height = frame.size
    require_memory(_ENCODER_FRAMES, width=width, height=height)
    what = f"{width}x{height} pixels cannot be written as {path.suffix}"
    raise OutputError(what, path, hint="give a .png file, or smaller images") from cause
