"""Sources of frames: `open_source` chooses the reader by the name of the source."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import InputError, UsageError, require_in_range
from runtime.frame import Size
from runtime.gstreamer import PREFIX
from runtime.image_files import is_image
from runtime.redaction import redact_address
from runtime.sources.base import Source, SourceInfo
from runtime.sources.camera import CameraFeed, open_csi_feed
from runtime.sources.containers import STDIN, RawFrames
from runtime.sources.decoders import require_decoder
from runtime.sources.deinterlace import Deinterlace, Interlacing
from runtime.sources.folders import open_folder, open_pattern
from runtime.sources.images import ImageSource
from runtime.sources.live import Feed, LiveSource, Watch
from runtime.sources.network import NetworkFeed, Transport
from runtime.sources.video import VideoSource
from runtime.urls import SCHEMES, is_mistyped_address, is_url, resolve_secrets


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options of cameras and network streams; files ignore them."""

    camera_size: Size | None = None
    """Width and height in pixels to request from a camera; None for the camera's default."""
    camera_fps: float | None = None
    """Frames per second to request from a camera; None for the camera's default."""
    transport: Transport = "tcp"
    """Transport of RTSP streams: `tcp` or `udp`."""
    planes: bool = False
    """Whether a camera delivers its frames as 4:2:0 where it can; BGR is then made only if it is asked for."""
    watch: Watch = field(default_factory=Watch)
    """Time limits after which a source is opened again, and the number of attempts."""

    def __post_init__(self) -> None:
        require_in_range("frame rate of the camera", self.camera_fps, 0.01, 10_000)


def open_source(
    text: str | Path,
    live: LiveOptions | None = None,
    *,
    raw: RawFrames | None = None,
    deinterlace: Deinterlace = "auto",
    outputs: Sequence[Path] = (),
    decoder: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> Source:
    """Open a video file, an image file, a folder or pattern of images, a network stream or a camera, by its name.

    A folder is read with the folders in it, but without hidden files. Images below a folder of `outputs` are left out:
    an earlier run has written them.

    `-` is standard input: a video such as Y4M, or raw frames of the size and rate in `raw`. A camera is an index, a
    device such as `/dev/video0`, or `csi://0`. The address of a stream may hold `${NAME}` from the environment;
    `@FILE` reads the address from a file. A path that exists is used as a path, even if it looks like a pattern or a
    number; one that begins with `@` needs its folder, `./@a.mp4`. Interlaced video is deinterlaced unless `deinterlace`
    is `off`; `say` gets one line about it. `decoder` is `auto`, `software`, `cuda`, `vaapi` or `gstreamer:ELEMENT`;
    images and cameras ignore it. Raises InputError for files, SourceLostError for cameras and streams, and UsageError
    for an address that cannot be resolved.
    """
    live = live or LiveOptions()
    require_decoder(decoder)
    text = resolve_secrets(os.fspath(text))
    interlacing = Interlacing(deinterlace, say)
    exists = not is_url(text) and _exists(Path(text))
    if open_feed := _feed_opener(text, live, interlacing, decoder):
        return LiveSource(redact_address(text) if is_url(text) else f"camera {text}", open_feed, live.watch)
    path = Path(text)
    if path == STDIN:
        return VideoSource(path, raw, interlacing=interlacing, decoder=decoder)
    if exists and path.is_dir():
        return open_folder(path, outputs)
    if exists:
        if path.is_file() and path.stat().st_size == 0:
            raise InputError("file is empty", path, hint="give a video or an image")
        if is_image(path):
            return ImageSource([path], name=text)
        return VideoSource(path, interlacing=interlacing, decoder=decoder)
    if glob.has_magic(text):
        return open_pattern(text, outputs)
    if is_mistyped_address(text):
        raise InputError("neither a file nor a known address", text, hint=f"use {', '.join(SCHEMES)} and ://")
    raise InputError("no such file", path, hint="check the path")


def _feed_opener(text: str, live: LiveOptions, interlacing: Interlacing, decoder: str) -> Callable[[], Feed] | None:
    """Return a function that opens a connection to a live source; None for files."""
    size, fps = live.camera_size, live.camera_fps
    if is_url(text):
        if decoder.startswith(PREFIX):
            raise UsageError(f"decoder {decoder} is for files", text, hint="use auto, cuda or vaapi for streams")
        return lambda: NetworkFeed(
            text,
            transport=live.transport,
            timeout_s=live.watch.open_s,
            interlacing=interlacing,
            decoder=decoder,
        )
    if csi := re.fullmatch(r"csi://(\d+)", text):
        return lambda: open_csi_feed(int(csi[1]), size=size, fps=fps, planes=live.planes)
    if re.fullmatch(r"[0-9]{1,4}", text) and not Path(text).exists():
        return lambda: CameraFeed(int(text), size=size, fps=fps, planes=live.planes)
    if Path(text).is_char_device():
        return lambda: CameraFeed(text, size=size, fps=fps, planes=live.planes)
    return None


def _exists(path: Path) -> bool:
    """Return whether a path exists; raises InputError if the system refuses to say it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read ({reason})", path, hint="check the path and its permissions") from error
    return True


__all__ = ["Deinterlace", "LiveOptions", "RawFrames", "Source", "SourceInfo", "Watch", "open_source"]
