"""What every sink promises."""

from __future__ import annotations

from typing import Protocol

from runtime.frame import Frame


class Sink(Protocol):
    """Takes frames from one thread; raises OutputError where they cannot be written."""

    @property
    def warnings(self) -> list[str]:
        """What could not be kept of the source, a sentence each."""
        ...

    def write(self, frame: Frame) -> None: ...

    def close(self, *, complete: bool) -> str | None:
        """Finish what was written and say where it is.

        `complete` publishes it under its name; otherwise it stays, playable, under a name that
        shows that it is not the whole. Safe to call twice.
        """
        ...


class NullSink:
    """Takes frames and keeps none, for measuring."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def write(self, frame: Frame) -> None:
        """Nothing to do."""

    def close(self, *, complete: bool) -> None:
        """Nothing to finish."""


class Tee:
    """Gives every frame to several sinks, in order."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    @property
    def warnings(self) -> list[str]:
        return [warning for sink in self._sinks for warning in sink.warnings]

    def write(self, frame: Frame) -> None:
        for sink in self._sinks:
            sink.write(frame)

    def close(self, *, complete: bool) -> str | None:
        kept = [sink.close(complete=complete) for sink in self._sinks]
        return ", ".join(place for place in kept if place) or None
