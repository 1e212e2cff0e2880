"""Child process of `PublishSink`: reads frames from standard input and sends them to a server.

FFmpeg may wait for a server for ever, and PyAV holds the interpreter's lock meanwhile. In its own process this blocks
nothing else, and the process can be killed.

Standard input: one line of JSON with the fields of `Target`; then for each frame its time in ticks as int64 (little
endian) and its planes uint8[3 H / 2, W], the bytes of I420, or uint16 for 10 bits. Standard output: a dot for each
frame that was sent, and the reason of a failure as text.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from runtime.colour import ColourTags
from runtime.sinks.conversion import to_video_frame
from runtime.sinks.encoder import ChunkEncoder
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS, EncoderSettings
from runtime.sources.base import SourceInfo
from runtime.stream_format import StreamFormat
from runtime.yuv420 import Yuv420
from runtime.yuv420p10 import Yuv420p10

TICK = Fraction(1, 90_000)
"""Duration of a tick of the frame times, in seconds."""
SENT = b"."
"""Answer to each frame that was sent."""
_MUXER = {"rtsp": {"rtsp_transport": "tcp"}, "flv": {"flvflags": "no_duration_filesize"}}
_DEFAULT = EncoderSettings(preset="veryfast", crf=23)
"""Encoder without a request: less data than a file has."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Server and format of a stream; all frames have the same even size."""

    url: str
    """Address with user name and password."""
    format: str
    """FFmpeg's name of the container: `rtsp` or `flv`."""
    width: int
    """Width of the frames in pixels."""
    height: int
    """Height of the frames in pixels."""
    frames_per_second: float
    """Nominal frame rate."""
    sample_aspect_ratio: float
    """Width of a pixel on the screen divided by its height."""
    colour: ColourTags
    """Tags of the stream."""
    encoder: EncoderSettings = DEFAULT_SETTINGS
    """Encoder of the stream."""
    bits: int = 8
    """Bits of a sample of the frames; those of 10 come as uint16."""

    def to_line(self) -> bytes:
        """Return the fields as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def publish(target: Target, frames: BinaryIO, answers: BinaryIO) -> None:
    """Send frames until their stream ends; raises PyAV's own errors, and GStreamerError for an element."""
    form = StreamFormat(
        sample_aspect_ratio=Fraction(target.sample_aspect_ratio).limit_denominator(4096),
        colour=target.colour,
        bits=target.bits,
    )
    rate = Fraction(target.frames_per_second).limit_denominator(1001)
    info = SourceInfo(name="frames", time_base=TICK, frame_rate=rate, format=form)
    encoder = ChunkEncoder(info, _DEFAULT if target.encoder == DEFAULT_SETTINGS else target.encoder, is_live=True)
    with (
        closing(encoder),
        av.open(target.url, "w", format=target.format, options=_MUXER[target.format]) as container,
    ):
        stream = encoder.add_stream(container, target.width, target.height)
        container.start_encoding()  # connects to the server
        size = target.width * target.height * 3 // 2 * (2 if target.bits > 8 else 1)
        while len(header := frames.read(8)) == 8 and len(content := frames.read(size)) == size:
            image = _read_planes(content, target)
            frame = to_video_frame(image, image.size, encoder.pixel_format, target.colour)
            frame.pts, frame.time_base = int.from_bytes(header, "little", signed=True), TICK
            for packet in encoder.encode(frame):
                packet.stream = stream
                container.mux(packet)
            answers.write(SENT)
            answers.flush()


def _read_planes(content: bytes, target: Target) -> Yuv420:
    if target.bits == 8:
        return Yuv420(np.frombuffer(content, np.uint8).reshape(-1, target.width), target.colour)
    return Yuv420p10.from_deep(np.frombuffer(content, np.uint16).reshape(-1, target.width), target.colour)


def main() -> int:
    """Publish the frames of standard input; return 0, or 1 after printing the reason of a failure."""
    values = json.loads(sys.stdin.buffer.readline())
    parts = {"colour": ColourTags(**values["colour"]), "encoder": EncoderSettings(**values["encoder"])}
    target = Target(**values | parts)
    try:
        publish(target, sys.stdin.buffer, sys.stdout.buffer)
    except (FFmpegError, OSError, ValueError) as error:
        print(getattr(error, "strerror", None) or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
