"""Video in chunks that do not depend on each other, so that a resumed run writes the same file as an unbroken one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.frame import PictureType

from runtime.sinks.encoder_context import (
    choose_pixel_format,
    configure,
    create_context,
    hardware,
    ordinary_scheduling,
)
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.encoders import choose_encoder
from runtime.sinks.gstreamer_encoder import GStreamerEncoder, read_template
from runtime.sinks.hdr_options import add_hdr_options
from runtime.sources.base import SourceInfo

FRAGMENT_S = 1
"""Duration of a fragment in seconds: a killed run loses what it wrote since the last complete fragment."""
LIVE_FRAGMENT_S = 2
"""Seconds between key frames of a stream that is published: the longest time that a new viewer waits for an image."""
_TUNED = ("libx264", "libx265")
"""Encoders that have x264's tuning for no delay."""
_MAX_GOP_FRAMES = 250
"""Largest number of frames in a fragment: some containers state frame rates that no camera has."""
_CHUNK_GOPS = 5
"""Number of fragments after which a new encoder starts."""
ENCODER_FRAMES = 64
"""Approximate number of frames that an encoder holds: look-ahead, references and threads."""
_REORDERED_FRAMES = 2
"""Number of frames by which x264 and x265 delay decoding: their B-frames refer to one B-frame between them (B-pyramid).

The packets of other encoders are in the order of presentation.
"""


class ChunkEncoder:
    """Encodes frames, and starts a new software encoder after each chunk.

    A hardware encoder is not started again: it does not promise the same bits anyway. It makes no B-frames, so that no
    frame of a chunk refers to the next one. Call `add_stream` before the first frame: it decides the size and the pixel
    format. Raises UsageError for settings that the encoder does not take.

    `is_live` is for streams that are published: one encoder without B-frames and without a delay.
    """

    def __init__(
        self, source: SourceInfo, settings: EncoderSettings = DEFAULT_SETTINGS, *, is_live: bool = False
    ) -> None:
        choice = choose_encoder(settings)
        if is_live and choice.name in _TUNED:
            choice = replace(choice, options={**choice.options, "tune": "zerolatency"})
        self.choice = choice
        self._source = source
        self._restarts = choice.is_software and not is_live
        self._is_live = is_live
        gop_s = LIVE_FRAGMENT_S if is_live else FRAGMENT_S
        self._gop_frames = max(1, min(_MAX_GOP_FRAMES, round(gop_s * source.frame_rate)))
        self.chunk_frames = _CHUNK_GOPS * self._gop_frames
        """Number of frames in a chunk."""
        self._size = (0, 0)
        self.pixel_format = ""
        """FFmpeg's name of the pixel format of the frames to encode, as soon as there is a stream."""
        self._encoder: av.VideoCodecContext | GStreamerEncoder | None = None
        self._template: av.container.InputContainer | None = None
        """File in memory that describes the stream of an encoder of GStreamer."""
        self._in_chunk = 0
        """Number of frames in the current chunk."""

    def add_stream(self, container: av.container.OutputContainer, width: int, height: int) -> av.VideoStream:
        """Add a stream for frames of this size in pixels to a container, which describes it from the encoder."""
        self.prepare(width, height)
        if self.choice.element:
            self._template = read_template(self.choice, self._source, self._size, self.pixel_format, self._gop_frames)
            template = self._template.streams.video[0]
            stream: Any = container.add_stream_from_template(template, opaque=True)
            self._describe(stream.codec_context)
        else:
            stream = container.add_stream(self.choice.name, rate=self._source.frame_rate, **hardware(self.choice))
            self._configure(stream.codec_context)
        stream.time_base = self._source.time_base
        if self.choice.codec == "hevc" and container.format.name in ("mp4", "mov", "ipod"):
            stream.codec_context.codec_tag = "hvc1"  # Apple's players refuse FFmpeg's default
        assert isinstance(stream, av.VideoStream)
        return stream

    def prepare(self, width: int, height: int) -> None:
        """Set the size of the frames in pixels, which decides their pixel format."""
        self._size = (width, height)
        self.pixel_format = choose_pixel_format(self.choice, width, height, bits=self._source.format.bits)

    def encode(self, frame: av.VideoFrame) -> list[Packet[Any]]:
        """Encode a frame and return the packets that are ready, in decoding order."""
        if self._encoder is None:
            self._encoder = self._open_encoder()
        if not self._restarts and self._in_chunk % self.chunk_frames == 0:
            frame.pict_type = PictureType.I
        packets = self._encoder.encode(frame)
        self._in_chunk += 1
        ends_chunk = self._restarts and self._in_chunk == self.chunk_frames
        return packets + self.end_chunk() if ends_chunk else packets

    def end_chunk(self) -> list[Packet[Any]]:
        """End the current chunk and return its last packets."""
        if self._encoder is None:
            return []
        packets = self._encoder.encode(None)
        self._encoder, self._in_chunk = None, 0
        return packets

    def close(self) -> None:
        """End an encoder that has not ended its chunk."""
        if isinstance(self._encoder, GStreamerEncoder):
            self._encoder.close()
        self._encoder = None

    def _open_encoder(self) -> av.VideoCodecContext | GStreamerEncoder:
        if self.choice.element:
            return GStreamerEncoder(self.choice, self._source, self._size, self.pixel_format, self._gop_frames)
        encoder = create_context(self.choice)
        encoder.flags |= av.codec.context.Flags.global_header
        self._configure(encoder)
        with ordinary_scheduling():
            encoder.open()
        return encoder

    def _configure(self, encoder: av.VideoCodecContext) -> None:
        """Set everything that an encoder of FFmpeg needs to know before it is opened."""
        source = self._source
        configure(self.choice, encoder, self._size, self.pixel_format)
        encoder.options = add_hdr_options(self.choice.name, self.choice.options, source.format.hdr)
        encoder.framerate, encoder.time_base = source.frame_rate, source.time_base
        encoder.gop_size = self._gop_frames
        if self._is_live:
            encoder.max_b_frames = 0
        self._describe(encoder)

    def _describe(self, encoder: av.VideoCodecContext) -> None:
        """Set what players need to know of the frames."""
        encoder.sample_aspect_ratio = self._source.format.sample_aspect_ratio
        self._source.format.colour.tag(encoder)


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
