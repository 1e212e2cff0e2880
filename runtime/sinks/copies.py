"""Everything of a source but its frames, on the way into a video file: sound, further tracks, chapters and tags."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from av.container import OutputContainer
from av.video.stream import VideoStream

from runtime.sinks.audio import AudioCopy
from runtime.sinks.extras import Extras
from runtime.sources.base import SourceInfo


class Copies:
    """Copies what a source has besides frames into an output, `delay` seconds later. Methods raise PyAV's errors."""

    def __init__(self, source: SourceInfo, *, delay: Fraction = Fraction(0)) -> None:
        self._source, self._delay = source, delay
        self._audio: AudioCopy | None = None
        self._extras = Extras(source.extras, delay=delay) if source.extras else None

    @property
    def warnings(self) -> list[str]:
        """Sentences about what was left out so far."""
        return [warning for copy in (self._audio, self._extras) if copy for warning in copy.warnings]

    def extend_options(self, options: dict[str, str], suffix: str) -> dict[str, str]:
        """Return the options that the output has to be opened with; `options` are those for frames alone."""
        flags = self._extras.movflags(suffix) if self._extras else ""
        return options | {"movflags": options.get("movflags", "") + flags} if flags else options

    def describe(self, output: OutputContainer, video: VideoStream) -> None:
        """Add tracks, chapters and tags to an output that has its video, before its header is written."""
        if self._source.audio:
            self._audio = AudioCopy(self._source.audio, output, delay=self._delay)
        if self._extras:
            self._extras.describe(output, video)

    def copy_until(self, seconds: float | None) -> None:
        """Write the packets that start before a time in seconds; None writes all that are left."""
        for copy in (self._audio, self._extras):
            if copy:
                copy.copy_until(seconds)

    def finish(self, path: Path) -> None:
        """Add what only a complete file can hold to an output that is closed; raises OSError."""
        if self._extras:
            self._extras.finish(path)

    def close(self) -> None:
        """Close the files of the source."""
        for copy in (self._audio, self._extras):
            if copy:
                copy.close()
