"""An encoder of GStreamer in a child process, with the methods of PyAV's encoders that the toolkit uses."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.packet import Packet

from runtime.colour import ColourTags
from runtime.frame import Pixels, Size
from runtime.gdp import Buffer
from runtime.gstreamer import FORMATS, GStreamerChild, GStreamerError
from runtime.sinks.encoder_settings import Codec
from runtime.sinks.encoders import EncoderChoice
from runtime.sources.base import SourceInfo

_FORMS: dict[Codec, tuple[str, str]] = {
    "h264": ("h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au", "h264"),
    "hevc": ("h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au", "hevc"),
    "av1": ("av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu", "obu"),
}
"""Elements after an encoder, which bring its packets into the form of FFmpeg's encoders, and FFmpeg's name of that."""
_GREY = 128
# GStreamer's numbers of what ITU-T H.273 numbers otherwise.
_MATRICES = {1: 3, 4: 2, 5: 4, 6: 4, 7: 5, 9: 6}
_TRANSFERS = {1: 5, 6: 16, 7: 6, 13: 7, 14: 13, 15: 11, 16: 14, 18: 15}
_PRIMARIES = {1: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 7}


class GStreamerEncoder:
    """Encodes frames of one size and pixel format; raises GStreamerError, which is an OSError."""

    def __init__(
        self, choice: EncoderChoice, source: SourceInfo, size: Size, pixel_format: str, gop_frames: int
    ) -> None:
        assert choice.element
        is_deep = av.VideoFormat(pixel_format).components[0].bits > 8
        elements = f"{choice.element.launch_text(gop_frames, is_deep=is_deep)} ! {_FORMS[choice.codec][0]}"
        self._child = GStreamerChild(elements, _describe_frames(source, size, pixel_format))
        self._times: dict[int, tuple[int, Fraction]] = {}
        """Time stamps of the frames in the encoder, by nanoseconds."""
        self._shift: Fraction | None = None
        """Seconds that the element adds to each time."""

    def encode(self, frame: av.VideoFrame | None) -> list[Packet[Any]]:
        """Encode a frame, or end the stream for None, and return the packets that are ready."""
        if frame is None:
            try:
                return list(map(self._to_packet, self._child.finish()))
            finally:
                self._child.close()
        assert frame.pts is not None
        assert frame.time_base
        seconds = frame.pts * frame.time_base
        self._times[_nanoseconds(seconds)] = frame.pts, frame.time_base
        content = b"".join(plane.tobytes() for plane in _padded_planes(frame))
        return list(map(self._to_packet, self._child.send(content, seconds=seconds)))

    def close(self) -> None:
        """End the child process at once."""
        self._child.close()

    def _to_packet(self, buffer: Buffer) -> Packet[Any]:
        if buffer.seconds is None or not self._times:
            raise GStreamerError("the encoder states no times")
        if self._shift is None:  # the first packet is that of the first frame
            self._shift = buffer.seconds - Fraction(min(self._times), 10**9)
        wanted = _nanoseconds(buffer.seconds - self._shift)
        time = min(self._times, key=lambda known: abs(known - wanted))
        packet = Packet(buffer.content)
        packet.pts, packet.time_base = self._times.pop(time)
        packet.dts, packet.is_keyframe = packet.pts, buffer.is_key_frame
        return packet


def read_template(
    choice: EncoderChoice, source: SourceInfo, size: Size, pixel_format: str, gop_frames: int
) -> av.container.InputContainer:
    """Encode a grey frame and return it as a file in memory, whose stream has the encoder's header."""
    encoder = GStreamerEncoder(choice, source, size, pixel_format, gop_frames)
    try:
        packets = [packet for frame in (grey_frame(size, pixel_format), None) for packet in encoder.encode(frame)]
    finally:
        encoder.close()
    if not packets:
        raise GStreamerError("the encoder makes nothing of a frame")
    template = av.open(io.BytesIO(b"".join(map(bytes, packets))), format=_FORMS[choice.codec][1])
    assert isinstance(template, av.container.InputContainer)
    return template


def grey_frame(size: Size, pixel_format: str) -> av.VideoFrame:
    """Return a frame of one colour, for a trial."""
    grey = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), _GREY, np.uint8), format="bgr24")
    frame = grey.reformat(format=pixel_format)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


def _describe_frames(source: SourceInfo, size: Size, pixel_format: str) -> str:
    """Return the caps of raw frames."""
    fields = [
        f"format=(string){FORMATS[pixel_format]}",
        f"width=(int){size[0]}",
        f"height=(int){size[1]}",
        f"framerate=(fraction){source.frame_rate.limit_denominator(1001)}",
        f"pixel-aspect-ratio=(fraction){source.format.sample_aspect_ratio}",
        "interlace-mode=(string)progressive",
        *_describe_colour(source.format.colour),
    ]
    return ", ".join(["video/x-raw", *(_with_denominator(field) for field in fields)])


def _with_denominator(field: str) -> str:
    return f"{field}/1" if "(fraction)" in field and "/" not in field else field


def _describe_colour(colour: ColourTags) -> Iterator[str]:
    matrix, transfer = _MATRICES.get(colour.matrix), _TRANSFERS.get(colour.transfer)
    primaries = _PRIMARIES.get(colour.primaries)
    if matrix and transfer and primaries:
        yield f"colorimetry=(string){1 if colour.is_full_range else 2}:{matrix}:{transfer}:{primaries}"


def _padded_planes(frame: av.VideoFrame) -> Iterable[Pixels]:
    """Return the planes of a frame with rows that begin at multiples of four bytes, as GStreamer has them."""
    bytes_a_sample = -(-max(component.bits for component in frame.format.components) // 8)
    for index, plane in enumerate(frame.planes):
        samples = plane.width * (2 if index and len(frame.planes) == 2 else 1)  # U and V interleaved
        width = samples * bytes_a_sample
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, :width]
        yield np.pad(rows, ((0, 0), (0, -width % 4))) if width % 4 else rows


def _nanoseconds(seconds: Fraction) -> int:
    return round(seconds * 10**9)
