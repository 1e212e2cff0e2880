"""An element of GStreamer as the decoder of a video, in a child process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

from runtime.errors import InputError, UsageError
from runtime.gdp import Buffer
from runtime.gstreamer import FORMATS, PREFIX, GStreamerChild, GStreamerError
from runtime.sources.decoders import Decoder, FFmpegDecoder

_CODECS = {
    "h264": ("video/x-h264", "avc", "byte-stream", "h264parse ! "),
    "hevc": ("video/x-h265", "hvc1", "byte-stream", "h265parse ! "),
    "av1": ("video/x-av1", "obu-stream", "obu-stream", "av1parse ! "),
    "vp9": ("video/x-vp9", "", "", ""),
    "vp8": ("video/x-vp8", "", "", ""),
}
"""GStreamer's names by codec: the stream, its form with a header and without, and the elements before the decoder."""
_FFMPEG_FORMATS = {name: form for form, name in FORMATS.items()}
_FORMATS = f"video/x-raw,format=(string){{{','.join(FORMATS.values())}}}"
_LATER_S = 3600
"""Seconds that are added to the times that GStreamer gets: some files begin below zero."""
_PROBED_PACKETS = 64
"""Number of packets after which a file whose first frame FFmpeg cannot decode is decoded without what that states."""


@dataclass(frozen=True)
class _Time:
    """Presentation time of a packet."""

    nanoseconds: int
    """Time as GStreamer gets it."""
    pts: int
    is_discarded: bool
    """Whether the file says that the frame is not shown."""


def open_decoder(stream: av.VideoStream, name: str, path: Path) -> Decoder:
    """Return the decoder of a stream of a container that `open_decoded` has opened for the same name."""
    return GStreamerDecoder(stream, name, path) if name.startswith(PREFIX) else FFmpegDecoder(stream)


class GStreamerDecoder:
    """Decodes the packets of a stream with an element; raises UsageError for streams that it is not given.

    FFmpeg decodes the first frame too: it states rotation, colours, HDR and interlacing, which GStreamer does not pass
    on.
    """

    def __init__(self, stream: av.VideoStream, name: str, path: Path) -> None:
        self._element, self._path = name.removeprefix(PREFIX), path
        codec = {"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name)
        if codec not in _CODECS:
            raise UsageError(f"decoder {name} is not given {codec}", path, hint="use the software decoder")
        stream.thread_type = "NONE"
        convert = "nvvidconv" if self._element.startswith("nv") else "videoconvert"
        parser = _CODECS[codec][-1]
        self._child = GStreamerChild(
            f"{parser}{self._element} ! {convert} ! {_FORMATS}", _describe_stream(stream, codec)
        )
        self._times: list[_Time] = []
        """Times of the packets whose frames have not come."""
        self._time_base = stream.time_base or Fraction(1, 10**6)
        # FFmpeg's decoders of these standards state it; frames of other codecs do not.
        self._chroma = "left" if codec in ("h264", "hevc") else "unspecified"
        self._form = (0, 0, "")
        self._reader: av.VideoCodecContext | None = None
        self._waiting: list[Packet[Any]] = []
        """Packets before the first frame that FFmpeg decodes."""
        self._model: av.VideoFrame | None = None
        """First frame as FFmpeg decodes it."""
        self._has_probed = False

    def decode(self, packet: Packet[Any]) -> Iterable[av.VideoFrame]:
        """Return the frames that have come back while a packet was sent."""
        is_last = packet.size == 0
        if not self._has_probed:
            self._probe(packet)
            self._waiting.append(packet)
            if not (self._has_probed or is_last):
                return []
            packets, self._waiting = self._waiting, []
        else:
            packets = [packet]
        frames = [frame for packet in packets if packet.size for frame in self._send(packet)]
        return self._chain(frames) if is_last else frames

    def flush(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are still in the child."""
        for packet in self._waiting:
            yield from self._send(packet) if packet.size else ()
        yield from self._chain([])

    def model_of(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the first frame as FFmpeg decodes it."""
        return self._model or frame

    def close(self) -> None:
        """End the child process."""
        self._child.close()

    def _probe(self, packet: Packet[Any]) -> None:
        """Look for the first frame, which FFmpeg decodes; raises UsageError if it is interlaced."""
        frames = packet.decode()
        self._has_probed = bool(frames) or len(self._waiting) >= _PROBED_PACKETS
        if not frames:
            return
        assert isinstance(frames[0], av.VideoFrame)
        self._model = frames[0]
        if self._model.interlaced_frame:
            raise UsageError(
                f"{self._element} does not say which frames are interlaced", self._path, hint="use the software decoder"
            )

    def _send(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        if packet.pts is None or not packet.time_base:
            raise UsageError(
                f"{self._element} needs time stamps, and the file has none", self._path, hint="use the software decoder"
            )
        seconds = packet.pts * packet.time_base + _LATER_S
        decoding_s = None if packet.dts is None else packet.dts * packet.time_base + _LATER_S
        self._times.append(_Time(round(seconds * 10**9), packet.pts, packet.is_discard))
        try:
            buffers = self._child.send(bytes(packet), seconds=seconds, decoding_s=decoding_s)
        except GStreamerError as error:
            raise self._failure(error) from error
        return [frame for buffer in buffers if (frame := self._to_frame(buffer))]

    def _chain(self, frames: list[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield frames and those that are left in the child."""
        yield from frames
        try:
            for buffer in self._child.finish():
                if frame := self._to_frame(buffer):
                    yield frame
        except GStreamerError as error:
            raise self._failure(error) from error
        finally:
            self._child.close()

    def _failure(self, error: GStreamerError) -> InputError:
        return InputError(f"{self._element} does not decode it ({error})", self._path, hint="use the software decoder")

    def _to_frame(self, buffer: Buffer) -> av.VideoFrame | None:
        """Return the frame of a buffer; None if the file says that it is not shown."""
        time = self._take_time(buffer.seconds)
        if time and time.is_discarded:
            return None
        form = int(buffer.field("width")), int(buffer.field("height")), _FFMPEG_FORMATS[buffer.field("format")]
        if self._reader is None or form != self._form:
            self._form, self._reader = form, _open_reader(*form, self._chroma)
        frames = self._reader.decode(Packet(_unpad(buffer.content, *form)))
        frame = frames[0]
        assert isinstance(frame, av.VideoFrame)
        frame.pts, frame.time_base = time.pts if time else None, self._time_base
        if self._model:
            frame.colorspace, frame.color_range = self._model.colorspace, self._model.color_range
            frame.color_primaries, frame.color_trc = self._model.color_primaries, self._model.color_trc
        return frame

    def _take_time(self, seconds: Fraction | None) -> _Time | None:
        """Return the time of the packet of a frame, and forget those of frames that were lost before it."""
        if not self._times:
            return None
        first = min(time.nanoseconds for time in self._times)
        wanted = first if seconds is None else round(seconds * 10**9)
        taken = min(self._times, key=lambda time: abs(time.nanoseconds - wanted))
        self._times.remove(taken)
        self._times = [time for time in self._times if time.nanoseconds >= taken.nanoseconds]
        return taken


def _describe_stream(stream: av.VideoStream, codec: str) -> str:
    """Return the caps of the packets of a stream."""
    kind, with_header, without, _ = _CODECS[codec]
    caps = f"{kind},width=(int){stream.width},height=(int){stream.height}"
    header = stream.codec_context.extradata or b""
    has_header = header[:1] == b"\1" and with_header != without  # else Annex B, which begins with zeros
    form = with_header if has_header else without
    if form:
        caps += f",stream-format=(string){form},alignment=(string){'tu' if codec == 'av1' else 'au'}"
    return f"{caps},codec_data=(buffer){header.hex()}" if has_header else caps


def _open_reader(width: int, height: int, pixel_format: str, chroma: str) -> av.VideoCodecContext:
    """Return a decoder of raw frames, which makes frames of their bytes."""
    reader = av.CodecContext.create("rawvideo", "r")
    assert isinstance(reader, av.VideoCodecContext)
    reader.width, reader.height, reader.pix_fmt = width, height, pixel_format
    reader.options = {"chroma_sample_location": chroma}
    return reader


def _unpad(content: bytes, width: int, height: int, pixel_format: str) -> bytes:
    """Return the planes of a raw frame of GStreamer, whose rows begin at multiples of four bytes, without gaps."""
    form = av.VideoFormat(pixel_format, width, height)
    samples = max(component.bits for component in form.components) > 8
    planes = 2 if pixel_format in ("nv12", "p010le") else 3
    parts, start = [], 0
    for index in range(planes):
        is_chroma = index > 0
        columns = form.chroma_width(width) * (4 - planes) if is_chroma else width  # U and V interleaved
        rows = form.chroma_height(height) if is_chroma else height
        used = columns << samples
        row = -(-used // 4) * 4
        plane = np.frombuffer(content, np.uint8, row * rows, start).reshape(rows, row)
        parts.append(plane[:, :used].tobytes() if used != row else plane.data)
        start += row * (rows if is_chroma else rows + rows % 2 * (form.chroma_height(64) < 64))
    return b"".join(parts)
