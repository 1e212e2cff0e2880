"""The decoder of a video: FFmpeg on the CPU, FFmpeg on a device, or an element of GStreamer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from runtime.errors import UsageError
from runtime.ffmpeg_log import FFmpegMessages, explain_failure
from runtime.gstreamer import LAUNCH, PREFIX, has_element, require_gstreamer
from runtime.sources.containers import RawFrames, open_container

DEVICES = ("cuda", "vaapi")
"""Devices that FFmpeg decodes on."""
SOFTWARE = ("auto", "software")
"""Names of FFmpeg's decoders on the CPU; `auto` is free to choose a device in a later version."""
_KNOWN_ELEMENTS = ("nvv4l2decoder", "vah264dec", "vah265dec", "v4l2h264dec", "avdec_h264", "avdec_h265", "dav1ddec")


class Decoder(Protocol):
    """Turns the packets of a video stream into frames in presentation order."""

    def decode(self, packet: Packet[Any]) -> Iterable[av.VideoFrame]:
        """Return the frames that a packet completes; the empty packet at the end returns what is left.

        Raises PyAV's own errors for a damaged packet.
        """
        ...

    def flush(self) -> Iterable[av.VideoFrame]:
        """Return what is left where reading has ended without the empty packet."""
        ...

    def model_of(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame that states the rotation, the metadata and the stored form of a frame."""
        ...

    def close(self) -> None:
        """Release what the decoder holds; a second call does nothing."""
        ...


class FFmpegDecoder:
    """FFmpeg's decoder of a stream, on the CPU or on the device that its container was opened with."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._stream = stream

    def decode(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        """Return the frames that a packet completes."""
        frames = packet.decode()
        assert all(isinstance(frame, av.VideoFrame) for frame in frames)
        return frames

    def flush(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are still in the decoder."""
        yield from self._stream.decode()

    def model_of(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame itself."""
        return frame

    def close(self) -> None:
        """Do nothing: the container closes its decoders."""


def require_decoder(name: str) -> None:
    """Raise UsageError unless this machine has a decoder of this name: `auto`, `software`, `cuda`, ..."""
    if name in SOFTWARE:
        return
    if name.startswith(PREFIX):
        element = name.removeprefix(PREFIX)
        require_gstreamer()
        if not (re.fullmatch(r"[A-Za-z][\w-]*", element) and has_element(element)):
            raise UsageError(f"GStreamer has no element {element!r}", hint=_name_decoders())
        return
    if name not in DEVICES:
        hint = f"use {', '.join((*SOFTWARE, *DEVICES))}, or {PREFIX}ELEMENT"
        raise UsageError(f"decoder {name} is not known", hint=hint)
    if reason := _find_refusal(name):
        raise UsageError(f"decoder {name} does not work here ({reason})", hint=_name_decoders())


def open_device(decoder: str) -> HWAccel | None:
    """Return how PyAV decodes on a device, without falling back to the CPU; None for other decoders."""
    return HWAccel(decoder, allow_software_fallback=False) if decoder in DEVICES else None


def open_decoded(path: Path, raw: RawFrames | None, decoder: str) -> InputContainer:
    """Open a media file for a decoder; raises PyAV's own errors, and UsageError for a codec that a device lacks."""
    try:
        return open_container(path, raw, hwaccel=open_device(decoder))
    except RuntimeError as error:
        what = f"decoder {decoder} has none of the codecs of this file"
        raise UsageError(what, path, hint="use the software decoder") from error


def find_decoders() -> Iterator[str]:
    """Yield the decoders of this machine; elements of GStreamer only if they are known here."""
    yield "software"
    yield from (device for device in DEVICES if not _find_refusal(device))
    if shutil.which(LAUNCH):
        yield from (f"{PREFIX}{element}" for element in _KNOWN_ELEMENTS if has_element(element))


def _name_decoders() -> str:
    return f"this machine has {', '.join(find_decoders())}"


def _find_refusal(device: str) -> str:
    """Return why FFmpeg cannot open a device; empty if it can."""
    with FFmpegMessages() as messages:
        try:
            HWAccel(device).create(av.Codec("h264", "r"))
        except NotImplementedError:
            return "the FFmpeg of PyAV was built without it"
        except (FFmpegError, OSError, ValueError) as error:
            return explain_failure(error, messages)
    return ""
