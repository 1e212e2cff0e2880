"""A recording in files of equal length, so that a long one is never in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtime.frame import Frame
from runtime.sinks.video import VideoSink
from runtime.sources.base import SourceInfo


class SegmentSink:
    """Writes `NAME_00001.mp4`, `NAME_00002.mp4`, ...; each begins at time zero and is whole when the next begins.

    A segment ends with the first frame after `seconds`. Numbers go on after those that are there.
    Sound is left out.
    """

    def __init__(self, path: Path, source: SourceInfo, *, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._warnings = ["sound is left out of segments"] if source.audio else []
        self._source = replace(source, audio=None)
        self._number = 0
        self._sink: VideoSink | None = None
        self._start = 0
        self._kept: list[str] = []

    @property
    def warnings(self) -> list[str]:
        return self._warnings + (self._sink.warnings if self._sink else [])

    def write(self, frame: Frame) -> None:
        if self._sink is not None and (frame.pts - self._start) * frame.time_base >= self._seconds:
            self._end(complete=True)
        if self._sink is None:
            self._sink, self._start = VideoSink(self._next_path(), self._source), frame.pts
        self._sink.write(replace(frame, pts=frame.pts - self._start))

    def close(self, *, complete: bool) -> str | None:
        self._end(complete=complete)
        return f"{self._kept[0]} to {Path(self._kept[-1]).name}" if len(self._kept) > 1 else "".join(self._kept) or None

    def _end(self, *, complete: bool) -> None:
        if self._sink is None:
            return
        sink, self._sink = self._sink, None
        kept = sink.close(complete=complete)
        self._warnings += [warning for warning in sink.warnings if warning not in self._warnings]
        if kept:
            self._kept.append(kept)

    def _next_path(self) -> Path:
        while True:
            self._number += 1
            path = self._path.with_name(f"{self._path.stem}_{self._number:05d}{self._path.suffix}")
            if not path.exists():
                return path
