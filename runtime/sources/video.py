"""Video files through PyAV: exact time stamps, upright frames; the sink copies the sound."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from threading import Lock
from time import perf_counter

import av
from av.error import FFmpegError

from runtime.colour import bgr_from_video_frame
from runtime.errors import InputError, is_out_of_memory
from runtime.frame import Frame, Image, require_memory
from runtime.interrupt import run_interruptibly
from runtime.orientation import Orientation
from runtime.sources.base import SourceInfo, damage_warnings
from runtime.sources.containers import (
    STDIN,
    RawFrames,
    find_rate,
    find_video_stream,
    late_index_error,
    undecodable_error,
)
from runtime.sources.decoders import open_decoded
from runtime.sources.deinterlace import Interlacing
from runtime.sources.gstreamer_decoder import open_decoder
from runtime.sources.packets import MAX_DAMAGED_PACKETS, read_packets
from runtime.sources.planes import PlanesReader, has_planes
from runtime.sources.timeline import Timeline
from runtime.stream_format import PLAIN, StreamFormat
from runtime.tags import has_more_than_frames_and_sound

_DECODER_FRAMES = 16
"""Largest number of frames that a decoder holds: the limit of the H.264 and HEVC standards."""
_DURATION_TOLERANCE_S = 0.5
"""Seconds that a file may be shorter than its header states: the duration of the last frame is often not stored."""


@dataclass(frozen=True)
class _Decoded:
    """A decoded frame with its presentation time in ticks of `time_base` seconds."""

    image: av.VideoFrame
    pts: int
    time_base: Fraction
    orientation: Orientation
    """Rotation and mirroring that make it upright."""


class VideoSource:
    """Reads the first video stream of a file that is not a cover image.

    `pts` and `time_base` of a frame are those of the container, as long as its clock runs on from zero or later; see
    `Timeline`. A time stamp that does not increase is moved one tick after its predecessor. Damaged packets are skipped
    and counted in `warnings`. Raises InputError if no frame can be decoded. `interlacing` says what becomes of
    interlaced frames; without it, they are deinterlaced. `decoder` is a name that `require_decoder` accepts.
    """

    dropped = reconnects = 0

    def __init__(
        self,
        path: Path,
        raw: RawFrames | None = None,
        *,
        interlacing: Interlacing | None = None,
        decoder: str = "software",
    ) -> None:
        self._decoder_name = decoder
        self.damage: InputError | None = None
        self._path = path
        self._to_skip = 0
        self._damaged_packets = 0
        self._out_of_order = 0
        self._interlacing = interlacing or Interlacing()
        self._format: StreamFormat | None = None
        self._planes: PlanesReader | None = None
        """Makes planes of the decoded frames; None for BGR."""
        self._has_packets = False
        self._is_pipe = path == STDIN or path.is_fifo()
        self._reading = Lock()
        self._is_closed = False
        self._first: _Decoded | None = run_interruptibly(lambda: self._open(raw))
        first = self._first.image
        self.info = SourceInfo(
            name=str(path),
            time_base=self._first.time_base,
            frame_rate=self._rate,
            format=self._format or PLAIN,
            size=(first.height, first.width) if self._first.orientation.rotation % 180 else (first.width, first.height),
            has_planes=has_planes(first),
            frame_count=self._expected_frames(),
            audio=path if self._container.streams.audio and not self._is_pipe else None,
            extras=path if has_more_than_frames_and_sound(self._container) and not self._is_pipe else None,
            files=() if self._is_pipe else (path,),
        )

    def deliver_planes(self) -> None:
        """Deliver frames as planes with the colours of the first one; call it before the first frame is read."""
        assert self._first is not None
        self._planes = PlanesReader(self._first.image)
        self.info = replace(self.info, format=self._planes.describe(self.info.format))

    def _open(self, raw: RawFrames | None) -> _Decoded:
        """Open the file and decode its first frame."""
        try:
            self._container = open_decoded(self._path, raw, self._decoder_name)
        except MemoryError:
            require_memory(_DECODER_FRAMES, width=1920, height=1080)
            raise undecodable_error(self._path, "a table in its header does not fit into memory") from None
        except (FFmpegError, ValueError) as error:
            raise undecodable_error(self._path, getattr(error, "strerror", None)) from error
        with ExitStack() as not_opened:
            not_opened.callback(self._container.close)
            self._stream = find_video_stream(self._container, self._path)
            self._stream.thread_type = "AUTO"
            self._decoder = open_decoder(self._stream, self._decoder_name, self._path)
            not_opened.callback(self._decoder.close)
            self._timeline = Timeline(self._container)
            self._rate = find_rate(self._stream)
            self._frames = self._read_frames()
            first = next(self._frames, None)
            if first is None:
                self._require_memory()
                is_index_late = bool(self._is_pipe and self._stream.index_entries and not self._has_packets)
                raise late_index_error(self._path) if is_index_late else undecodable_error(self._path)
            not_opened.pop_all()
        return first

    @property
    def warnings(self) -> list[str]:
        """Sentences about reduced samples, damaged packets and moved time stamps so far."""
        sentences = self.info.format.warnings
        if self._timeline.jumps:
            sentences.append(
                f"the clock jumped {self._timeline.jumps} times; what follows a jump was moved to its place"
            )
        sentences += damage_warnings(self._damaged_packets)
        if self._out_of_order:
            sentences.append(f"{self._out_of_order} frames had time stamps that did not increase; moved by a tick")
        return sentences

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, none of a closed file; at the end, `damage` says whether the file was cut off."""
        while (decoded := self._read_next()) is not None:
            yield self._convert(decoded)

    def _read_next(self) -> _Decoded | None:
        with self._reading:
            first, self._first = self._first, None
            decoded = None if self._is_closed else first or next(self._frames, None)
            if not self._is_closed:
                return decoded
            self._release()  # `close` was called while this thread was reading
            return None

    def _convert(self, decoded: _Decoded) -> Frame:
        """Return a decoded frame, upright, as BGR or as planes."""
        frame = decoded.image
        pixels: Image
        if self._planes:
            pixels = self._planes.read(frame, orientation=decoded.orientation)
        else:
            pixels = decoded.orientation.apply(bgr_from_video_frame(frame))
        return Frame(pixels=pixels, pts=decoded.pts, time_base=decoded.time_base, captured_at=perf_counter())

    @property
    def start(self) -> Fraction:
        """Presentation time of the first frame in seconds; only before that frame is read."""
        assert self._first is not None
        return self._first.pts * self._first.time_base

    def skip(self, count: int) -> None:
        """Skip the first frames, which are decoded but not converted; call it before the first frame is read."""
        self._to_skip, self._first = count - 1, None

    def close(self) -> None:
        """Close the file; may be called from any thread, and closes after the frame that another thread is reading."""
        self._is_closed = True
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _release(self) -> None:
        self._frames.close()  # FFmpeg crashes if it goes on reading a closed container
        self._decoder.close()
        self._container.close()

    def _read_frames(self) -> Generator[_Decoded, None, None]:
        """Yield decoded frames with increasing time stamps."""
        last_pts: int | None = None
        for frame in self._interlacing.apply(self._place(self._decode())):
            time_base = frame.time_base or 1 / self._rate
            pts = frame.pts
            if pts is None:  # as in raw streams, which have no time stamps: frames follow at the nominal rate
                pts = 0 if last_pts is None else last_pts + max(1, round(1 / (self._rate * time_base)))
            elif last_pts is not None and pts <= last_pts:
                self._out_of_order += 1
                pts = last_pts + 1
            last_pts = pts
            if self._to_skip > 0:
                self._to_skip -= 1
                continue
            if self._format is None:
                self._format = StreamFormat.read(self._stream, self._decoder.model_of(frame))
            yield _Decoded(frame, pts, time_base, Orientation.read(self._decoder.model_of(frame)))

    def _place(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield frames with their presentation times; of AVI, which has none, FFmpeg's are wrong if it has B-frames."""
        is_avi = self._container.format.name == "avi"
        for frame in frames:
            if is_avi:
                frame.pts = frame.dts  # increases evenly; the last frames have none
            yield frame

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield the frames of the video stream, skip damaged packets, and set `damage` at the end of the file."""
        damaged_in_a_row = whole_packets = 0
        end_s, is_flushed = 0.0, False
        packets = read_packets(self._container)
        while damaged_in_a_row < MAX_DAMAGED_PACKETS:
            try:
                packet = next(packets, None)
                if packet is None:
                    self.damage = self._find_cut_off(whole_packets, end_s)
                    if not is_flushed:  # reading ended with an error
                        yield from self._flush()
                    return
                self._timeline.place(packet)
                self._has_packets = True
                if packet.pts is not None and packet.time_base:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not self._stream:
                    continue
                is_flushed = packet.size == 0
                whole_packets += packet.size > 0 and not packet.is_corrupt
                frames = self._decoder.decode(packet)
            except FFmpegError as error:
                if is_out_of_memory(error) and not isinstance(error, BlockingIOError):
                    raise
                self._require_memory()
                self._damaged_packets += 1
                damaged_in_a_row += 1
                continue
            damaged_in_a_row = 0
            yield from frames

    def _flush(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are still in the decoder."""
        with suppress(FFmpegError):
            yield from self._decoder.flush()

    def _require_memory(self) -> None:
        require_memory(_DECODER_FRAMES, width=self._stream.width, height=self._stream.height)

    def _find_cut_off(self, whole_packets: int, end_s: float) -> InputError | None:
        """Return an InputError if the file ends before its header says; None if it is complete.

        MP4 lists its packets in the header (the stream's index), Matroska states a duration, counted from time zero.
        """
        stated_s = 0.0
        if "matroska" in self._container.format.name:
            stated_s = (self._container.duration or 0) / av.time_base
        if whole_packets >= len(self._stream.index_entries) and end_s >= stated_s - _DURATION_TOLERANCE_S:
            return None
        return InputError(
            f"file is cut off after {end_s:.1f} s", self._path, hint="the output holds the frames up to there"
        )

    def _expected_frames(self) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        duration = self._container.duration
        return round(duration / av.time_base * self._rate) if duration else None
