"""Video files through PyAV: exact time stamps, rotation applied, sound left for the sink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from runtime.colour import bgr_from_video_frame
from runtime.errors import InputError, is_out_of_memory
from runtime.frame import Frame, Pixels, Size, require_memory
from runtime.interrupt import interruptible
from runtime.sources.base import SourceInfo

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_USUAL_RATE = Fraction(25)
STDIN = Path("-")
_MOST_CORRUPT = 1000
"""Packets in a row that may fail to decode before the file is given up."""
_HELD_FRAMES = 16
"""By a decoder, at most: the standards of H.264 and HEVC allow no more."""
_LAST_FRAME_S = 0.5
"""Of what a file's header says, this much may be missing: the duration of a last frame is often not stored."""


# PyAV before 19 refuses files whose titles are not UTF-8, unless it is told otherwise.
_LENIENT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@dataclass(frozen=True)
class RawFrames:
    """uint8[H, W, 3] BGR one after the other, with nothing around them."""

    size: Size
    fps: Fraction


def open_container(path: Path, raw: RawFrames | None = None) -> InputContainer:
    """Open a media file for reading, or standard input for `-`; raises what PyAV raises."""
    place = "pipe:0" if path == STDIN else str(path)
    described: dict[str, Any] = {}
    if raw:
        options = {"pixel_format": "bgr24", "video_size": "{}x{}".format(*raw.size), "framerate": str(raw.fps)}
        described = {"format": "rawvideo", "options": options}
    container: InputContainer = av.open(place, **described, **_LENIENT)
    return container


class VideoSource:
    """Frames of the first real video stream of a file, in order of presentation.

    A frame's `pts` and `time_base` are the container's. Raises InputError if no frame of it
    can be decoded; damage further on is skipped and counted in `warnings`.
    """

    dropped = reconnects = 0

    def __init__(self, path: Path, raw: RawFrames | None = None) -> None:
        self.damage: InputError | None = None
        self._path = path
        self._to_skip = 0
        self._corrupt = 0
        self._out_of_order = 0
        self._first: Frame | None = interruptible(lambda: self._open(raw))
        is_pipe = path == STDIN or path.is_fifo()
        self.info = SourceInfo(
            name=str(path),
            time_base=self._first.time_base,
            frame_rate=self._rate,
            size=self._first.size,
            frame_count=self._expected_frames(),
            audio=path if self._container.streams.audio and not is_pipe else None,
            files=() if is_pipe else (path,),
        )

    def _open(self, raw: RawFrames | None) -> Frame:
        """Open the file as far as its first frame."""
        try:
            self._container = open_container(self._path, raw)
        except (FFmpegError, ValueError) as error:
            raise _undecodable(self._path, getattr(error, "strerror", None)) from error
        try:
            self._stream = _video_stream(self._container, self._path)
            self._stream.thread_type = "AUTO"
            self._rate = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                self._require_memory()
        except BaseException:
            self._container.close()
            raise
        if first is None:
            self._container.close()
            raise _undecodable(self._path)
        return first

    @property
    def warnings(self) -> list[str]:
        found = []
        if self._corrupt:
            found.append(f"{self._corrupt} damaged packets could not be decoded and were skipped")
        if self._out_of_order:
            found.append(f"{self._out_of_order} frames had time stamps that did not increase; moved by a tick")
        return found

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield replace(first, captured_at=perf_counter())
        yield from self._frames

    @property
    def start(self) -> Fraction:
        """The time of the first frame in seconds, before it is taken."""
        assert self._first is not None
        return self._first.pts * self._first.time_base

    def skip(self, count: int) -> None:
        """Leave out the first frames: they are decoded, but not converted. Before the first is taken."""
        self._to_skip, self._first = count - 1, None

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> Iterator[Frame]:
        last_pts: int | None = None
        for frame in self._decoded():
            time_base = frame.time_base or 1 / self._rate
            pts = frame.pts
            if pts is None:  # a raw stream: one frame after the other at its nominal rate
                pts = 0 if last_pts is None else last_pts + max(1, round(1 / (self._rate * time_base)))
            elif last_pts is not None and pts <= last_pts:
                self._out_of_order += 1
                pts = last_pts + 1
            last_pts = pts
            if self._to_skip > 0:
                self._to_skip -= 1
                continue
            pixels = _turned(bgr_from_video_frame(frame), frame.rotation)
            yield Frame(pixels=pixels, pts=pts, time_base=time_base, captured_at=perf_counter())

    def _decoded(self) -> Iterator[av.VideoFrame]:
        in_a_row = whole = 0
        end_s = 0.0
        packets = self._container.demux()
        while in_a_row < _MOST_CORRUPT:
            try:
                packet = next(packets, None)
                if packet is None:
                    self.damage = self._cut_off(whole, end_s)
                    return
                if packet.pts is not None and packet.time_base:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not self._stream:
                    continue
                whole += packet.size > 0 and not packet.is_corrupt
                frames = packet.decode()
            except FFmpegError as error:
                if is_out_of_memory(error):
                    raise
                self._require_memory()
                self._corrupt += 1
                in_a_row += 1
                continue
            in_a_row = 0
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                yield frame

    def _require_memory(self) -> None:
        require_memory(_HELD_FRAMES, width=self._stream.width, height=self._stream.height)

    def _cut_off(self, whole: int, end_s: float) -> InputError | None:
        """Whether the file ends before what its header promises: as packets in MP4, as a duration in Matroska."""
        lasts_s = 0.0
        if "matroska" in self._container.format.name:
            lasts_s = ((self._container.duration or 0) + (self._container.start_time or 0)) / av.time_base
        if whole >= len(self._stream.index_entries) and end_s >= lasts_s - _LAST_FRAME_S:
            return None
        return InputError(f"file is cut off after {end_s:.1f} s", self._path, hint="the output holds what there is")

    def _expected_frames(self) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        duration = self._container.duration
        return round(duration / av.time_base * self._rate) if duration else None


def _video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The first video stream that is not a cover picture; raises InputError if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise InputError(f"no video in the file ({kinds})", path, hint="give a file with a video stream")


def _turned(pixels: Pixels, rotation: int) -> Pixels:
    """Apply the display matrix: `rotation` is counter-clockwise, in degrees."""
    turn = _TURNS.get(rotation % 360)
    return pixels if turn is None else np.asarray(cv2.rotate(pixels, turn), np.uint8)


def _undecodable(path: Path, reason: str | None = None) -> InputError:
    what = f"not a video that can be decoded ({reason or 'no frame in it'})"
    return InputError(what, path, hint="check that the file is whole, or give another")
