"""Media files as PyAV opens them: their video stream, its frame rate, and the errors of files that are none."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Stream

from runtime.errors import InputError
from runtime.frame import Size

STDIN = Path("-")
_DEFAULT_RATE = Fraction(25)
_MAX_STATED_RATE = 10_000
"""Largest frame rate that is believed if the file states it; raw DV states ticks of its clock."""
_MAX_GUESSED_RATE = 240
"""Largest frame rate that is believed if the file states none: FFmpeg guesses ticks of the clock for uneven rates."""
# PyAV before 19 refuses files whose titles are not UTF-8, unless this option is set.
_LENIENT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@dataclass(frozen=True)
class RawFrames:
    """Format of raw frames on standard input: uint8[H, W, 3] BGR, one after the other, without headers."""

    size: Size
    """Width and height in pixels."""
    fps: Fraction
    """Frames per second."""


def open_container(path: Path, raw: RawFrames | None = None, *, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a media file for reading, or standard input for `-`; raises PyAV's own errors.

    `hwaccel` decodes on a device.
    """
    # FFmpeg takes what is before a colon in a bare name for a protocol.
    place = "pipe:0" if path == STDIN else str(path.absolute())
    raw_format: dict[str, Any] = {}
    if raw:
        options = {"pixel_format": "bgr24", "video_size": "{}x{}".format(*raw.size), "framerate": str(raw.fps)}
        raw_format = {"format": "rawvideo", "options": options}
    container: InputContainer = av.open(place, hwaccel=hwaccel, **raw_format, **_LENIENT)
    return container


def find_video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """Return the first video stream that is not a cover image; raises InputError if none can be decoded."""
    videos = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    for stream in videos:
        if has_codec(stream):
            return stream
    if videos:
        raise InputError("the codec of the video is not known", path, hint="convert it with the program that wrote it")
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise InputError(f"no video in the file ({kinds})", path, hint="give a file with a video stream")


def has_codec(stream: Stream) -> bool:
    """Return whether FFmpeg knows the codec of a stream; if not, the attributes of the codec raise AttributeError."""
    return stream.codec_context is not None


def find_rate(stream: av.VideoStream) -> Fraction:
    """Return the frames per second that a file states on average, else FFmpeg's guess, or 25 if it can be neither."""
    average, guess = stream.average_rate, stream.guessed_rate
    if average and average <= _MAX_STATED_RATE:
        return average
    return guess if guess and guess <= _MAX_GUESSED_RATE else _DEFAULT_RATE


def late_index_error(path: Path) -> InputError:
    """Return the error for an MP4 in a pipe whose index comes after its frames."""
    return InputError(
        "index of the video is at its end, and a pipe cannot go back to the frames",
        path,
        hint="give the file by its name, or move the index first: ffmpeg -i IN -c copy -movflags +faststart OUT",
    )


def undecodable_error(path: Path, reason: str | None = None) -> InputError:
    """Return the error for a file without a frame that can be decoded."""
    what = f"not a video that can be decoded ({reason or 'no frame in it'})"
    return InputError(what, path, hint="check that the file is whole, or give another")
