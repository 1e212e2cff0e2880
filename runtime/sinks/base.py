"""Contract of a sink, and two small sinks: one that keeps nothing and one that writes to several others."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol

from runtime.frame import Frame


class Sink(Protocol):
    """Writes restored frames. Any class with these members is a sink; it inherits from nothing.

    Opening: the constructor raises UsageError if the output makes no sense, and OutputError if it is clear that it
    cannot be written, for example in a folder that cannot be made; otherwise the first `write` raises OutputError. The
    constructor does not replace an existing output. The first frame decides the size of a video.

    Threads: one thread calls `write` and `close`. `warnings` may be read from any thread at any time.

    Closing: the pipeline calls `close` once, also after an error of the source, the engine or this sink. Code that
    opens a sink without giving it to a pipeline has to close it.
    """

    @property
    def warnings(self) -> list[str]:
        """Sentences about what could not be kept of the source so far: sound, sizes, frames."""
        ...

    def write(self, frame: Frame) -> None:
        """Write one frame: pixels uint8[H, W, 3] BGR, full range 0..255, with strictly increasing time stamps.

        A frame may have another size than the first; a sink that holds one size scales it and adds a warning. The sink
        does not change the pixels. Raises OutputError if the frame cannot be written.
        """
        ...

    def close(self, *, complete: bool) -> str | None:
        """Finish the output and return its place for the report (a path or an address), or None if nothing was kept.

        `complete` is True if every frame was written. The output is then published under its final name. Otherwise it
        keeps what was written, playable, under a name that shows that it is unfinished (`clip.partial.mp4`), and
        nothing appears under the final name. An output of separate files (images, segments) keeps the files that
        are complete. An output without frames leaves no file.

        A second call changes nothing and returns the place again. Raises OutputError if a complete output cannot be
        finished; the second call then returns the place of what was written before.
        """
        ...


class NullSink:
    """Discards every frame; for measurements, and for runs that only serve a status page."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def write(self, frame: Frame) -> None:
        """Discard the frame."""

    def close(self, *, complete: bool) -> None:
        """Do nothing."""


class Tee:
    """Writes every frame to several sinks, in the order of the list."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    @property
    def warnings(self) -> list[str]:
        """Warnings of all sinks."""
        return [warning for sink in self._sinks for warning in sink.warnings]

    def write(self, frame: Frame) -> None:
        """Write the frame to each sink; the first error ends the write."""
        for sink in self._sinks:
            sink.write(frame)

    def close(self, *, complete: bool) -> str | None:
        """Close each sink and return their places, joined by commas; raises an error after the last sink."""
        places: list[str | None] = []

        def close(sink: Sink) -> None:
            places.append(sink.close(complete=complete))

        with ExitStack() as stack:  # closes every sink, also after an error
            for sink in reversed(self._sinks):
                stack.callback(close, sink)
        return ", ".join(place for place in places if place) or None
