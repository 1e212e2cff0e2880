"""H.264 in chunks that do not depend on each other, so that a resumed run writes the same file as an unbroken one."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet

from runtime.sources.base import SourceInfo

# mbtree is off because x264 does not always produce the same bits twice with it, as seen on small frames.
_OPTIONS = {"crf": "18", "preset": "superfast", "x264-params": "mbtree=0"}
FRAGMENT_S = 1
"""Duration of a fragment in seconds: a killed run loses what it wrote since the last complete fragment."""
_MAX_GOP_FRAMES = 250
"""Largest number of frames in a fragment: some containers state frame rates that no camera has."""
_CHUNK_GOPS = 5
"""Number of fragments after which a new encoder starts."""
ENCODER_FRAMES = 64
"""Approximate number of frames that x264 holds: look-ahead, references and threads."""
_REORDERED_FRAMES = 2
"""Number of frames by which x264 delays decoding: its B-frames refer to one B-frame between them (B-pyramid)."""


class ChunkEncoder:
    """Encodes frames with x264 and starts a new encoder after each chunk.

    Call `configure` for the stream of the container before the first frame: it decides the size and the pixel format.
    """

    def __init__(self, source: SourceInfo) -> None:
        self._source = source
        self._gop_frames = max(1, min(_MAX_GOP_FRAMES, round(FRAGMENT_S * source.frame_rate)))
        self.chunk_frames = _CHUNK_GOPS * self._gop_frames
        """Number of frames in a chunk."""
        self._size = (0, 0)
        self._encoder: av.VideoCodecContext | None = None
        self._in_chunk = 0
        """Number of frames in the current chunk."""

    def configure(self, encoder: av.VideoCodecContext, width: int, height: int) -> None:
        """Set the format of an encoder for frames of this size in pixels; odd sizes need 4:4:4."""
        self._size = (width, height)
        encoder.options = dict(_OPTIONS)
        encoder.width, encoder.height = width, height
        encoder.pix_fmt = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
        encoder.framerate, encoder.time_base = self._source.frame_rate, self._source.time_base
        encoder.sample_aspect_ratio = self._source.format.sample_aspect_ratio
        encoder.gop_size = self._gop_frames
        self._source.format.colour.tag(encoder)

    def encode(self, frame: av.VideoFrame) -> list[Packet[Any]]:
        """Encode a frame and return the packets that are ready, in decoding order."""
        if self._encoder is None:
            self._encoder = av.CodecContext.create("libx264", "w")
            self._encoder.flags |= av.codec.context.Flags.global_header
            self.configure(self._encoder, *self._size)
        packets = self._encoder.encode(frame)
        self._in_chunk += 1
        return packets + self.end_chunk() if self._in_chunk == self.chunk_frames else packets

    def end_chunk(self) -> list[Packet[Any]]:
        """End the current chunk and return its last packets."""
        if self._encoder is None:
            return []
        packets = self._encoder.encode(None)
        self._encoder, self._in_chunk = None, 0
        return packets


class FrameTimes:
    """Presentation times of frames, each in a millisecond of its own where the container stores only milliseconds.

    Frames of a camera may arrive within one, and players then show only one of them.
    """

    def __init__(self, *, has_milliseconds: bool) -> None:
        self._has_milliseconds = has_milliseconds
        self._last_ms: int | None = None
        self.moved = 0
        """Number of frames that were moved to a later millisecond."""

    def place(self, pts: int, time_base: Fraction) -> int:
        """Return the time stamp of the next frame in ticks of `time_base`."""
        if not self._has_milliseconds:
            return pts
        ms = math.floor(1000 * pts * time_base + Fraction(1, 2))  # FFmpeg rounds halves up, `round` to even numbers
        if self._last_ms is not None and ms <= self._last_ms:
            ms = self._last_ms + 1
            pts = round(Fraction(ms, 1000) / time_base)
            self.moved += 1
        self._last_ms = ms
        return pts


class DecodingTimes:
    """Decoding times of packets: each is the presentation time of the frame two before in the order of presentation.

    Such times increase and are never after the presentation, at any frame rate and across chunks. All containers ask
    for that, and Matroska does not store decoding times. `frame_rate` places the first two.
    """

    def __init__(self, frame_rate: Fraction) -> None:
        self._frame_rate = frame_rate
        self._times: deque[Fraction] = deque()

    def add(self, seconds: Fraction) -> None:
        """Add the presentation time of the next frame."""
        if not self._times:
            early = range(_REORDERED_FRAMES, 0, -1)
            self._times.extend(seconds - frames / self._frame_rate for frames in early)
        self._times.append(seconds)

    def next(self) -> Fraction:
        """Return the decoding time of the next packet in seconds."""
        return self._times.popleft()
