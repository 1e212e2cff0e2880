"""H.264, HEVC or AV1 in MP4, MOV or Matroska through PyAV, with the time stamps and the sound of the source."""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.error import ExternalError, FFmpegError
from av.packet import Packet

from runtime.errors import OutputError, UsageError, is_out_of_memory
from runtime.files import PendingFile, output_error, set_aside_name
from runtime.frame import Frame, require_memory
from runtime.gstreamer import GStreamerError
from runtime.sinks.conversion import to_video_frame
from runtime.sinks.copies import Copies
from runtime.sinks.encoder import ENCODER_FRAMES, FRAGMENT_S, ChunkEncoder, DecodingTimes, FrameTimes
from runtime.sinks.encoder_context import ordinary_scheduling
from runtime.sinks.encoder_settings import CODEC_NAMES, DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.format_warnings import format_warnings
from runtime.sinks.unfinished import count_whole_frames, job_file, read_job, read_whole_packets, write_job
from runtime.sources.base import SourceInfo

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})

_MAX_SIDE_PX = 16_384
"""Largest width and height that x264 and the AV1 encoder take, in pixels; HEVC has the same limit here."""
_TO_ENCODER_FORM = {
    "h264": "h264_mp4toannexb",
    "hevc": "hevc_mp4toannexb,filter_units=remove_types=32-34",  # parameter sets are in the header alone
    "av1": "null",
}
"""FFmpeg's filters from the form of packets in files to that which encoders produce, and muxers take."""


class VideoSink:
    """Writes frames to a video file; the first frame decides its size.

    Until `close` the file is fragmented, so that it plays even if the process is killed; then it becomes an ordinary
    file with an index. Frames of odd width or height are stored as 4:4:4, the only H.264 and HEVC format that keeps
    them. Frames of another size than the first are scaled. `settings` choose the encoder.

    `job` identifies the run that writes the frames, in a file beside the unfinished one; `resume` continues an
    unfinished file of the same job.
    """

    def __init__(
        self, path: Path, source: SourceInfo, *, job: str = "", settings: EncoderSettings = DEFAULT_SETTINGS
    ) -> None:
        self._path = path
        self._job = job
        self._delay_ticks = 0
        """Ticks that are added to every time, so that the first is not negative: players hide such frames."""
        self._encoder = ChunkEncoder(source, settings)
        self._times = FrameTimes(has_milliseconds=path.suffix.lower() == ".mkv")
        self._decoding_times = DecodingTimes(source.frame_rate)
        self._source = source
        self._warnings: list[str] = []
        self._scaled = 0
        self._container: av.container.OutputContainer | None = None
        self._copies: Copies | None = None
        self._file = PendingFile(path)
        self._before = set_aside_name(path)
        """The unfinished file of an earlier run, while its chunks are copied."""
        self._kept: Path | None = None
        """The file that is left after `close`."""
        self._is_closed = self._has_started = self._has_failed = False

    @property
    def warnings(self) -> list[str]:
        """Sentences about the size, sound that was left out, and frames that were scaled or moved."""
        scaled = [f"{self._scaled} frames changed size and were scaled to the first"] if self._scaled else []
        moved = [f"{self._times.moved} frames were moved to a later millisecond"] if self._times.moved else []
        return self._warnings + (self._copies.warnings if self._copies else []) + scaled + moved

    def resume(self, start: Fraction) -> int:
        """Take over an unfinished file of the same job and return the number of source frames that it holds.

        Call it before the first `write`. `start` is the presentation time of the source's first frame in seconds.
        Raises UsageError if the file is of another job, OutputError if it cannot be copied.
        """
        candidates = [(count_whole_frames(path), path) for path in (self._before, self._file.partial)]
        frames, path = max(candidates, key=lambda candidate: candidate[0])
        if not frames:
            return 0
        if read_job(self._file.partial) != self._job:
            raise UsageError(
                "the unfinished output is of another job",
                path,
                hint="give the same source, engine and options, or leave out --resume and add -y to start again",
            )
        if path != self._before:  # renamed, because a copy would take space
            self._file.set_aside(self._before)
        if not self._encoder.choice.repeats_bits:
            self._warnings.append(
                f"{self._encoder.choice.name} does not repeat its bits: what follows the copied frames may differ from "
                "an unbroken run"
            )
        try:
            return self._copy_chunks(frames, start)
        except (FFmpegError, OSError) as error:
            self._has_failed = True
            raise output_error(self._path, error) from error

    def _copy_chunks(self, frames: int, start: Fraction) -> int:
        """Copy the complete chunks of the earlier file into the new one and return their number of frames."""
        with av.open(str(self._before.absolute())) as unfinished:
            stream = unfinished.streams.video[0]
            self._open_container(stream.width, stream.height)
            to_annex_b = BitStreamFilterContext(_TO_ENCODER_FORM[self._encoder.choice.codec], stream)
            time_base = stream.time_base
            assert time_base
            packets = read_whole_packets(unfinished)
            copied = 0
            shift: int | None = None
            while copied + self._encoder.chunk_frames <= frames:
                chunk = list(islice(packets, self._encoder.chunk_frames))
                times = list(map(_pts, chunk))
                if not self._encoder.choice.is_software and times != sorted(times):
                    break  # an encoder with B-frames: the last frames may refer to the next chunk
                if shift is None:  # Matroska moves its first packet to time zero
                    shift = round(start / time_base) - min(_pts(packet) for packet in chunk)
                for packet in chunk:
                    packet.pts = _pts(packet) + shift
                for pts in sorted(_pts(packet) for packet in chunk):
                    self._decoding_times.add(self._times.place(pts, time_base) * time_base)
                for packet in chunk:
                    packet.dts = packet.pts  # the filter wants a number; `_mux` sets the true one
                    self._mux(to_annex_b.filter(packet))
                copied += len(chunk)
        return copied

    def write(self, frame: Frame) -> None:
        """Encode and write a frame; raises OutputError, or MemoryError if memory does not suffice."""
        try:
            if self._container is None:
                self._delay_ticks = max(0, -frame.pts)
                self._open_container(*frame.size)
            self._encode(frame)
        except (FFmpegError, OSError) as error:
            self._has_failed = True
            raise self._output_error(error) from error

    def close(self, *, complete: bool) -> str | None:
        """Finish the file, publish it if `complete`, and return its path; None without frames."""
        if not self._is_closed:
            self._is_closed = True
            self._close(complete=complete)
        return str(self._kept) if self._kept else None

    def _close(self, *, complete: bool) -> None:
        try:
            self._finish(complete=complete)
        except (FFmpegError, OSError) as error:
            self._kept = self._close_unfinished()
            if complete:
                raise self._output_error(error) from error
        else:
            self._kept = self._publish() if complete else self._close_unfinished()

    def _output_error(self, error: FFmpegError | OSError) -> OutputError:
        """Return the OutputError for a failure; raises another error if a lack of memory caused it."""
        if is_out_of_memory(error):
            raise error
        if isinstance(error, GStreamerError):
            what = f"{self._encoder.choice.name} does not encode frames of this kind ({error})"
            return OutputError(what, self._path, hint="give another encoder")
        if isinstance(error, ExternalError | ValueError):  # encoders report every failure in these ways
            width, height = self._stream.width, self._stream.height
            require_memory(ENCODER_FRAMES, width=width, height=height)
            return OutputError(
                f"frames of {width}x{height} cannot be encoded by {self._encoder.choice.name}",
                self._path,
                hint="give a folder as --out",
            )
        return output_error(self._path, error)

    def _publish(self) -> Path | None:
        try:
            kept = self._file.close(complete=True)
        except OutputError:
            self._kept = self._file.partial if self._file.partial.exists() else None
            raise
        self._remove_traces()
        return kept

    def _remove_traces(self) -> None:
        """Remove the files beside the output that only an unfinished one needs."""
        try:
            job_file(self._file.partial).unlink(missing_ok=True)
            self._before.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self._path, error) from error

    def _close_unfinished(self) -> Path | None:
        """Keep the unfinished file if it holds at least one frame."""
        is_empty = self._has_started and not count_whole_frames(self._file.partial, limit=1)
        kept = self._file.close(complete=False, keep=not is_empty)
        if kept is None and not self._before.exists():
            with suppress(OSError):  # without frames it does no harm
                job_file(self._file.partial).unlink(missing_ok=True)
        return kept

    def _open_container(self, width: int, height: int) -> None:
        if max(width, height) > _MAX_SIDE_PX:
            raise OutputError(
                f"frames of {width}x{height} are too large for {self._codec_name}, which holds {_MAX_SIDE_PX} pixels "
                "a side",
                self._path,
                hint="give a folder as --out",
            )
        self._has_started = True
        if read_job(self._file.partial) != self._job:  # this run replaces what another job left
            self._remove_traces()
        copies = Copies(self._source, delay=self._delay_ticks * self._source.time_base)
        options = copies.extend_options(_container_options(self._path, self._source), self._path.suffix.lower())
        container = av.open(str(self._file.partial.absolute()), "w", options=options)
        try:
            self._stream = self._encoder.add_stream(container, width, height)
        except BaseException:
            copies.close()
            container.close()
            raise
        choice, pixel_format = self._encoder.choice, self._encoder.pixel_format
        self._warnings += format_warnings(self._source.format, choice, pixel_format, (width, height))
        try:
            copies.describe(container, self._stream)
            with ordinary_scheduling():
                container.start_encoding()
        except BaseException:  # FFmpeg crashes if anything is written after a header that failed
            copies.close()
            container.close()
            raise
        self._container, self._copies = container, copies
        if self._job:
            write_job(self._file.partial, self._job)

    @property
    def _codec_name(self) -> str:
        return CODEC_NAMES[self._encoder.choice.codec]

    def _encode(self, frame: Frame) -> None:
        assert self._container is not None
        size = self._stream.width, self._stream.height
        self._scaled += frame.size != size
        yuv = to_video_frame(frame.pixels, size, self._encoder.pixel_format, self._source.format.colour)
        yuv.pts = self._times.place(frame.pts + self._delay_ticks, frame.time_base)
        yuv.time_base = frame.time_base
        self._decoding_times.add(yuv.pts * frame.time_base)
        self._mux(self._encoder.encode(yuv))

    def _mux(self, packets: list[Packet[Any]]) -> None:
        """Write packets in decoding order, and the sound up to each of them."""
        assert self._container is not None
        for packet in packets:
            assert packet.time_base
            seconds = self._decoding_times.next()
            packet.stream, packet.dts = self._stream, math.floor(seconds / packet.time_base)
            if self._copies:
                self._copies.copy_until(float(seconds))
            self._container.mux(packet)

    def _finish(self, *, complete: bool) -> None:
        if self._container is None:
            return
        try:
            if not self._has_failed:  # frames after a missing one would be written otherwise
                self._mux(self._encoder.end_chunk())
            if complete and self._copies:
                self._copies.copy_until(None)
        finally:
            self._encoder.close()
            if self._copies:
                self._copies.close()
            self._container.close()
        if complete and self._copies:
            self._copies.finish(self._file.partial)


def _pts(packet: Packet[Any]) -> int:
    assert packet.pts is not None
    return packet.pts


def _container_options(path: Path, source: SourceInfo) -> dict[str, str]:
    # A packet waits for the sound that belongs before it: 10 s by default, in vain once the sound has ended, and a kill
    # would lose it. `_mux` writes sound in time, so that a short wait suffices.
    options = {"max_interleave_delta": str(FRAGMENT_S * av.time_base), "flush_packets": "1"}
    if path.suffix.lower() == ".mkv":
        return options  # Matroska plays up to its last cluster in any case
    return options | {
        # Fragments until the end. The index of each fragment is written after its first frames, so that it states
        # their time stamps in ticks of the source.
        "movflags": "hybrid_fragmented+delay_moov",
        "movie_timescale": str(min(source.time_base.denominator, 2**31 - 1)),
    }
