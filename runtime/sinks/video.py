"""H.264 in MP4, MOV or Matroska through PyAV, with the source's time stamps and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
from av.bitstream import BitStreamFilterContext
from av.error import ExternalError, FFmpegError
from av.packet import Packet

from runtime.colour import tag_bt709, video_frame_from_bgr
from runtime.errors import OutputError, UsageError
from runtime.files import PendingFile, unwritable
from runtime.frame import Frame, require_memory
from runtime.sinks.audio import AudioCopy
from runtime.sources.base import SourceInfo

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})

# Without mbtree: with it x264 does not always make the same bits twice, seen on small pictures.
_ENCODER = {"crf": "18", "preset": "superfast", "x264-params": "mbtree=0"}
_FRAGMENT_SECONDS = 1
"""A killed run loses what it wrote since the last fragment."""
_LONGEST_GOP = 250
"""Frames in a fragment at most: some containers state rates that no camera has."""
_CHUNK_GOPS = 5
"""An encoder that starts anew every so often makes the same bits whether or not a run was stopped between."""
_HELD_FRAMES = 64
"""By x264, about: those it looks ahead at, refers to and works on at once."""
_REORDERED = 3
"""Frames at most that H.264 keeps back."""
_JOB_KEY = "comment"
"""Of the container's metadata: what run a file is of."""


class VideoSink:
    """Writes frames to a video file; the first one decides its size.

    Until `close` the file is fragmented, so that it plays whatever happens to the process;
    then it becomes an ordinary one with its index. Frames of odd width or height are stored
    as 4:4:4, the only H.264 that keeps them; frames of another size than the first are scaled.

    `job` says what makes the frames; a file that an earlier run of the same job left unfinished
    is taken over by `resume`.
    """

    def __init__(self, path: Path, source: SourceInfo, *, job: str = "") -> None:
        self._path = path
        self._job = job
        self._encoder: av.VideoCodecContext | None = None
        self._in_chunk = 0
        self._last_dts: Fraction | None = None
        """Of what was written, in seconds."""
        self._source = source
        self._warnings: list[str] = []
        self._scaled = 0
        self._container: av.container.OutputContainer | None = None
        self._audio: AudioCopy | None = None
        self._file = PendingFile(path)
        self._closed = self._begun = self._failed = False

    @property
    def warnings(self) -> list[str]:
        scaled = [f"{self._scaled} frames changed size and were scaled to the first"] if self._scaled else []
        return self._warnings + (self._audio.warnings if self._audio else []) + scaled

    def resume(self, start: Fraction) -> int:
        """Take over what an unfinished run of the same job left; how many frames of the source that holds.

        `start`: the time of the source's first frame, in seconds. Raises UsageError if it is of another job.
        """
        before = self._path.with_name(f"{self._path.stem}.before{self._path.suffix}")
        held = max(((_held(path), path) for path in (before, self._file.partial)), key=lambda each: each[0].frames)
        if not held[0].frames:
            return 0
        if held[0].job != self._job:
            raise UsageError(
                "the unfinished output is of another job", held[1], hint="give the same options, or remove it"
            )
        if held[1] != before:  # a copy would do, but this takes no space
            self._file.set_aside(before)
        try:
            return self._copy(before, start)
        except (FFmpegError, OSError) as error:
            self._failed = True
            raise unwritable(self._path, error) from error

    def _copy(self, before: Path, start: Fraction) -> int:
        """The whole chunks of an unfinished file into the new one."""
        with av.open(str(before)) as unfinished:
            stream = unfinished.streams.video[0]
            self._start(stream.width, stream.height)
            whole = _held(before).frames // self._chunk_frames * self._chunk_frames
            # Muxers take H.264 as encoders give it, which is not how files hold it.
            as_encoded = BitStreamFilterContext("h264_mp4toannexb", stream)
            shift = None
            for packet in islice(_packets(unfinished), whole):
                assert packet.pts is not None
                assert packet.time_base
                if packet.dts is None:  # Matroska's first
                    packet.dts = packet.pts - _REORDERED
                if shift is None:  # Matroska begins at zero, with whatever comes first
                    shift = round(start / packet.time_base) - packet.pts
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                if self._audio:
                    self._audio.copy_until(float(packet.pts * packet.time_base))
                self._mux(as_encoded.filter(packet))
        return whole

    def write(self, frame: Frame) -> None:
        try:
            if self._container is None:
                self._open(frame)
            self._encode(frame)
        except (FFmpegError, OSError) as error:
            self._failed = True
            raise self._told(error) from error

    def close(self, *, complete: bool) -> str | None:
        if self._closed:
            return None
        self._closed = True
        try:
            self._finish(with_rest_of_sound=complete)
        except (FFmpegError, OSError) as error:
            kept = self._close_unfinished()
            if complete:
                raise self._told(error) from error
        else:
            kept = self._publish() if complete else self._close_unfinished()
        return str(kept) if kept else None

    def _told(self, error: FFmpegError | OSError) -> OutputError:
        """What a failure means; raises MemoryError where it is a want of that."""
        if isinstance(error, ExternalError):  # what x264 says, whatever it is
            require_memory(_HELD_FRAMES, width=self._stream.width, height=self._stream.height)
        return unwritable(self._path, error)

    def _publish(self) -> Path | None:
        kept = self._file.close(complete=True)
        try:
            self._path.with_name(f"{self._path.stem}.before{self._path.suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self._path, error) from error
        return kept

    def _close_unfinished(self) -> Path | None:
        """Keep what was written, unless that is not a single frame."""
        empty = self._begun and not _held(self._file.partial, at_most=1).frames
        return self._file.close(complete=False, keep=not empty)

    def _open(self, first: Frame) -> None:
        self._start(*first.size)

    def _start(self, width: int, height: int) -> None:
        even = width % 2 == 0 and height % 2 == 0
        if not even:
            self._warnings.append(f"{width}x{height} is odd: stored as H.264 4:4:4, which some hardware players refuse")
        self._begun = True
        container = av.open(str(self._file.partial), "w", options=_container_options(self._path, self._source))
        self._stream = container.add_stream("libx264", rate=self._source.frame_rate, options=dict(_ENCODER))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p" if even else "yuv444p"
        self._stream.time_base = self._source.time_base
        self._set_up(self._stream.codec_context)  # which only describes the stream; chunks are encoded apart
        if self._job:
            container.metadata[_JOB_KEY] = self._job
        audio = AudioCopy(self._source.audio, container) if self._source.audio else None
        try:
            container.start_encoding()
        except BaseException:  # FFmpeg crashes where more is written after a header that could not be
            if audio:
                audio.close()
            container.close()
            raise
        self._container, self._audio = container, audio

    def _encode(self, frame: Frame) -> None:
        assert self._container is not None
        pixels = frame.pixels
        size = (self._stream.width, self._stream.height)
        if frame.size != size:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            self._scaled += 1
        picture = video_frame_from_bgr(pixels, pixel_format=str(self._stream.pix_fmt))
        picture.pts, picture.time_base = frame.pts, frame.time_base
        if self._audio:
            self._audio.copy_until(frame.pts_seconds)
        if self._encoder is None:
            self._encoder = av.CodecContext.create("libx264", "w")
            self._encoder.options = dict(_ENCODER)
            self._encoder.width, self._encoder.height = self._stream.width, self._stream.height
            self._encoder.pix_fmt, self._encoder.framerate = self._stream.pix_fmt, self._source.frame_rate
            self._encoder.flags |= av.codec.context.Flags.global_header
            self._set_up(self._encoder)
        self._mux(self._encoder.encode(picture))
        self._in_chunk += 1
        if self._in_chunk == self._chunk_frames:
            self._end_chunk()

    def _set_up(self, encoder: av.VideoCodecContext) -> None:
        encoder.time_base = self._source.time_base
        encoder.gop_size = self._gop_frames
        tag_bt709(encoder)

    @property
    def _gop_frames(self) -> int:
        return max(1, min(_LONGEST_GOP, round(_FRAGMENT_SECONDS * self._source.frame_rate)))

    @property
    def _chunk_frames(self) -> int:
        return _CHUNK_GOPS * self._gop_frames

    def _end_chunk(self) -> None:
        if self._encoder is not None:
            self._mux(self._encoder.encode(None))
            self._encoder, self._in_chunk = None, 0

    def _mux(self, packets: list[Packet[Any]]) -> None:
        assert self._container is not None
        for packet in packets:
            packet.stream = self._stream
            assert packet.dts is not None
            assert packet.time_base
            if self._last_dts is not None and packet.dts * packet.time_base <= self._last_dts:
                packet.dts = math.floor(self._last_dts / packet.time_base) + 1  # a chunk at an uneven rate
            self._last_dts = packet.dts * packet.time_base
            self._container.mux(packet)

    def _finish(self, *, with_rest_of_sound: bool) -> None:
        if self._container is None:
            return
        try:
            if not self._failed:  # more would follow a hole
                self._end_chunk()
            if self._audio and with_rest_of_sound:
                self._audio.copy_until(None)
        finally:
            if self._audio:
                self._audio.close()
            self._container.close()


@dataclass(frozen=True)
class _Held:
    """Of an unfinished file: how many frames it holds, and of which job."""

    frames: int = 0
    job: str = ""


def _held(path: Path, *, at_most: int | None = None) -> _Held:
    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in islice(_packets(container), at_most))
            return _Held(frames, container.metadata.get(_JOB_KEY, container.metadata.get(_JOB_KEY.upper(), "")))
    except (FFmpegError, ValueError, OSError, IndexError):
        return _Held()  # nothing in it, or nothing there


def _packets(container: av.container.InputContainer) -> Iterator[Packet[Any]]:
    """What is whole of the pictures, in the order of decoding."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        if packet.pts is None or packet.is_corrupt:  # the one that ends the stream, or is cut off
            return
        yield packet


def _container_options(path: Path, source: SourceInfo) -> dict[str, str]:
    if path.suffix.lower() == ".mkv":
        return {}  # plays up to its last cluster as it is
    return {
        # Fragments until the end; the index of each waits for its first frames, so that it can
        # say at which time stamp they start, in ticks of the source.
        "movflags": "hybrid_fragmented+delay_moov",
        "movie_timescale": str(min(source.time_base.denominator, 2**31 - 1)),
    }
