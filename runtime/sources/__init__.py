"""Where frames come from: `open_source` picks the reader by what it is given."""

from __future__ import annotations

import glob
from pathlib import Path

from runtime.errors import InputError
from runtime.sources.base import Source, SourceInfo
from runtime.sources.camera import CameraSource
from runtime.sources.images import ImageSource, is_picture
from runtime.sources.video import VideoSource


def open_source(text: str) -> Source:
    """Open a camera by index, or a video, a picture, a folder of pictures, or a pattern of them.

    A path that exists is taken as it is, even if it looks like a pattern or a number. Raises
    InputError (or SourceLostError, for a camera) with what is wrong and what to do.
    """
    path = Path(text)
    if path.is_dir():
        return _pictures([file for file in path.iterdir() if is_picture(file)], path)
    if path.exists():
        if path.is_file() and path.stat().st_size == 0:
            raise InputError("file is empty", path, hint="give a file with pictures in it")
        return ImageSource([path], name=text) if is_picture(path) else VideoSource(path)
    if text.isdecimal():
        return CameraSource(int(text))
    if glob.has_magic(text):
        found = (Path(file) for file in glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute ones
        return _pictures([file for file in found if is_picture(file)], path)
    raise InputError("no such file", path, hint="check the path")


def _pictures(paths: list[Path], where: Path) -> ImageSource:
    if not paths:
        raise InputError("no pictures found", where, hint="give a video, a picture, or a folder or pattern of pictures")
    return ImageSource(paths, name=str(where))


__all__ = ["Source", "SourceInfo", "open_source"]
