"""Encoders of FFmpeg, configured: size, pixel format, quality and the device that some of them need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel

from runtime.errors import OutputError, UsageError
from runtime.frame import Size
from runtime.gstreamer import FORMATS
from runtime.sinks.encoders import EncoderChoice, pixel_formats

os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 prints its settings otherwise
_HARDWARE_FORMATS = ["nv12", "p010le"]
"""Pixel formats of encoders that take frames in the memory of a device, which FFmpeg copies there."""
_DEEP_FORMATS: tuple[str, ...] = ("yuv420p10le", "p010le")
"""Pixel formats without a request for frames of 10 bits: planes, and the same with U and V interleaved."""
_FORMATS: tuple[str, ...] = ("yuv420p", "nv12", "yuv444p")
"""Pixel formats without a request: planes as decoded, the same interleaved, and 4:4:4 for odd sizes; AV1 has 4:2:0 of
odd sizes too."""


def hardware(choice: EncoderChoice) -> dict[str, Any]:
    """Return the argument `hwaccel` for an encoder that needs a device, which PyAV before 18 does not have."""
    return {"hwaccel": HWAccel(choice.device)} if choice.device else {}


def create_context(choice: EncoderChoice) -> av.VideoCodecContext:
    """Return a new encoder without any settings; raises PyAV's own errors."""
    context = av.CodecContext.create(choice.name, "w", **hardware(choice))
    assert isinstance(context, av.VideoCodecContext)
    return context


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Keep the scheduling policy of all threads as it is while encoders are opened in the body.

    SVT-AV1 makes the thread that opens it a real-time one if the process runs as root. Its own threads, and threads and
    processes that are started afterwards, inherit that: on a machine with few cores, nothing else runs beside them.
    """
    policy = os.sched_getscheduler(0)
    try:
        yield
    finally:
        changed = os.sched_getscheduler(0)
        if changed != policy:
            for thread in (int(path.name) for path in Path("/proc/self/task").iterdir()):
                with suppress(ProcessLookupError):  # a thread that has ended
                    if os.sched_getscheduler(thread) == changed:
                        os.sched_setscheduler(thread, policy, os.sched_param(0))


def configure(choice: EncoderChoice, encoder: av.VideoCodecContext, size: Size, pixel_format: str) -> None:
    """Set size in pixels, pixel format, quality and preset of an encoder that is not open."""
    encoder.options = dict(choice.options)
    encoder.width, encoder.height = size
    encoder.pix_fmt = pixel_format
    if choice.bitrate:
        encoder.bit_rate = choice.bitrate
    if not choice.is_software:
        encoder.max_b_frames = 0


def choose_pixel_format(choice: EncoderChoice, width: int, height: int, *, bits: int = 8) -> str:
    """Return the pixel format of a video: the requested one, or 4:2:0, or 4:4:4 for frames of odd size.

    4:2:0 has 10 bits if the frames have more than 8 `bits` and the encoder can store them, else 8.

    Raises UsageError if the encoder does not take the requested format, OutputError if it takes no odd size.
    """
    known = list(FORMATS) if choice.element else pixel_formats(choice.name) or _HARDWARE_FORMATS
    asked = choice.pixel_format
    if asked and asked not in known:
        raise UsageError(f"{choice.name} takes no pixel format {asked}", hint=f"use one of {', '.join(known)}")
    # Few devices make H.264 of 10 bits; what an element of GStreamer makes is not known.
    can_be_deep = bits > 8 and not choice.element and (choice.is_software or choice.codec != "h264")
    formats = _DEEP_FORMATS + _FORMATS if can_be_deep else _FORMATS
    for form in (asked,) if asked else formats:
        if form in known and (choice.name == "libsvtav1" or _holds(form, width, height)):
            return form
    raise OutputError(
        f"{choice.name} holds no frames of odd size ({width}x{height}{f' as {asked}' if asked else ''})",
        hint="use libx264, libx265 or libsvtav1 without a pixel format",
    )


def _holds(pixel_format: str, width: int, height: int) -> bool:
    """Return whether width and height are whole numbers of chroma samples."""
    form = av.VideoFormat(pixel_format)
    return width % (64 // form.chroma_width(64)) == 0 and height % (64 // form.chroma_height(64)) == 0
