"""The child process of `PublishSink`: frames on standard input, H.264 to a server.

It is a process because FFmpeg may wait for a server for ever, and PyAV holds the interpreter's
lock meanwhile: here that stops nobody else, and it can be killed. Standard input gives a line of
JSON (the fields of `Target`), then for each frame its time in ticks as int64 and uint8[H, W, 3]
BGR; standard output answers each frame that was sent with a dot, and what went wrong in words.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from runtime.colour import tag_bt709, video_frame_from_bgr

TICK = Fraction(1, 90_000)
SENT = b"."
_MUXER = {"rtsp": {"rtsp_transport": "tcp"}, "flv": {"flvflags": "no_duration_filesize"}}
_ENCODER = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
_KEY_FRAME_EVERY_S = 2
"""What a new viewer waits for."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where frames of one size go."""

    url: str
    format: str
    width: int
    height: int
    frames_per_second: float

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def publish(target: Target, frames: BinaryIO, answers: BinaryIO) -> None:
    """Send frames until there are no more; widths and heights are made even. Raises what PyAV raises."""
    rate = Fraction(target.frames_per_second).limit_denominator(1001)
    with av.open(target.url, "w", format=target.format, options=_MUXER[target.format]) as container:
        stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODER))
        stream.width, stream.height = target.width - target.width % 2, target.height - target.height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        stream.codec_context.gop_size = max(1, round(_KEY_FRAME_EVERY_S * rate))
        stream.codec_context.max_b_frames = 0
        tag_bt709(stream.codec_context)
        container.start_encoding()  # which connects
        size = 3 * target.width * target.height
        while len(header := frames.read(8)) == 8 and len(packed := frames.read(size)) == size:
            pixels = np.frombuffer(packed, np.uint8).reshape(target.height, target.width, 3)
            picture = video_frame_from_bgr(pixels[: stream.height, : stream.width], pixel_format="yuv420p")
            picture.pts, picture.time_base = int.from_bytes(header, "little", signed=True), TICK
            container.mux(stream.encode(picture))
            answers.write(SENT)
            answers.flush()


def main() -> int:
    target = Target(**json.loads(sys.stdin.buffer.readline()))
    try:
        publish(target, sys.stdin.buffer, sys.stdout.buffer)
    except (FFmpegError, OSError, ValueError) as error:
        print(getattr(error, "strerror", None) or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
