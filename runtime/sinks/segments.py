"""A recording in several files of equal length, so that a long recording is never in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtime.files import partial_name
from runtime.frame import Frame
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.video import VideoSink
from runtime.sources.base import SourceInfo


class SegmentSink:
    """Writes `NAME_00001.mp4`, `NAME_00002.mp4`, ...; each file starts at time zero.

    A file is complete when the next one begins: with the first frame that is `seconds` or more after its own first
    frame. Numbers continue after existing files, finished or not, so nothing is replaced. Sound is left out.
    """

    def __init__(
        self, path: Path, source: SourceInfo, *, seconds: float, settings: EncoderSettings = DEFAULT_SETTINGS
    ) -> None:
        self._path, self._seconds, self._settings = path, seconds, settings
        self._warnings = ["sound is left out of segments"] if source.audio else []
        if source.extras:
            self._warnings.append("subtitles, chapters and tags are left out of segments")
        self._source = replace(source, audio=None, extras=None)
        self._number = 0
        self._sink: VideoSink | None = None
        self._start_pts = 0
        self._places: list[str] = []

    @property
    def warnings(self) -> list[str]:
        """Warnings of all files so far, each once."""
        return self._warnings + (self._sink.warnings if self._sink else [])

    def write(self, frame: Frame) -> None:
        """Write a frame to the current file, or to a new one."""
        if self._sink is not None and (frame.pts - self._start_pts) * frame.time_base >= self._seconds:
            self._end_segment(complete=True)
        if self._sink is None:
            self._sink = VideoSink(self._next_path(), self._source, settings=self._settings)
            self._start_pts = frame.pts
        self._sink.write(replace(frame, pts=frame.pts - self._start_pts))

    def close(self, *, complete: bool) -> str | None:
        """Close the current file and return the first and the last place; earlier files are complete in any case."""
        self._end_segment(complete=complete)
        if len(self._places) > 1:
            return f"{self._places[0]} to {Path(self._places[-1]).name}"
        return self._places[0] if self._places else None

    def _end_segment(self, *, complete: bool) -> None:
        if self._sink is None:
            return
        sink, self._sink = self._sink, None
        place = sink.close(complete=complete)
        self._warnings += [warning for warning in sink.warnings if warning not in self._warnings]
        if place:
            self._places.append(place)

    def _next_path(self) -> Path:
        while True:
            self._number += 1
            path = self._path.with_name(f"{self._path.stem}_{self._number:05d}{self._path.suffix}")
            if not path.exists() and not partial_name(path).exists():
                return path
