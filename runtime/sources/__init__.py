"""Where frames come from: `open_source` picks the reader by what it is given."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import InputError
from runtime.frame import Size
from runtime.image_files import is_image
from runtime.sources.base import Source, SourceInfo
from runtime.sources.camera import CameraFeed, csi_feed
from runtime.sources.images import ImageSource
from runtime.sources.live import Feed, LiveSource, Watch
from runtime.sources.network import NetworkFeed, Transport
from runtime.sources.video import STDIN, RawFrames, VideoSource
from runtime.urls import is_url, redact, with_secrets


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Of cameras and streams."""

    camera_size: Size | None = None
    camera_fps: float | None = None
    transport: Transport = "tcp"
    watch: Watch = field(default_factory=Watch)


def open_source(text: str, live: LiveOptions | None = None, *, raw: RawFrames | None = None) -> Source:
    """Open a file, a folder or a pattern of pictures, a stream by its address, or a camera.

    `-` is a video on standard input, such as Y4M, or `raw` frames. A camera is an index, a device such as
    `/dev/video0`, or `csi://0`. An address may hold `${NAME}` from the environment, or stand in a
    file: `@FILE`. A path that exists is taken as it is, even if it looks like a pattern or a
    number. Raises InputError (or SourceLostError, for what is live) with what is wrong and what
    to do.
    """
    live = live or LiveOptions()
    text = with_secrets(text)
    if feed := _feed(text, live):
        return LiveSource(redact(text) if is_url(text) else f"camera {text}", feed, live.watch)
    path = Path(text)
    if path == STDIN:
        return VideoSource(path, raw)
    if path.is_dir():
        return _pictures([file for file in path.iterdir() if is_image(file)], path)
    if path.exists():
        if path.is_file() and path.stat().st_size == 0:
            raise InputError("file is empty", path, hint="give a file with pictures in it")
        return ImageSource([path], name=text) if is_image(path) else VideoSource(path)
    if glob.has_magic(text):
        found = (Path(file) for file in glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute ones
        return _pictures([file for file in found if is_image(file)], path)
    raise InputError("no such file", path, hint="check the path")


def _feed(text: str, live: LiveOptions) -> Callable[[], Feed] | None:
    """What opens a connection to a live source; None for files."""
    size, fps = live.camera_size, live.camera_fps
    if is_url(text):
        return lambda: NetworkFeed(text, transport=live.transport, timeout_s=live.watch.open_s)
    if found := re.fullmatch(r"csi://(\d+)", text):
        return lambda: csi_feed(int(found[1]), size=size, fps=fps)
    if text.isdecimal() and not Path(text).exists():
        return lambda: CameraFeed(int(text), size=size, fps=fps)
    if Path(text).is_char_device():
        return lambda: CameraFeed(text, size=size, fps=fps)
    return None


def _pictures(paths: list[Path], where: Path) -> ImageSource:
    if not paths:
        raise InputError("no pictures found", where, hint="give a video, a picture, or a folder or pattern of pictures")
    return ImageSource(paths, name=str(where))


__all__ = ["LiveOptions", "RawFrames", "Source", "SourceInfo", "Watch", "open_source"]
