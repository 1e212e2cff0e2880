"""Frames instead of interlaced fields, by FFmpeg's filter bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
from av.error import BlockingIOError, EOFError  # noqa: A004 - PyAV's own
from av.filter import Graph

Deinterlace = Literal["auto", "off"]
"""`auto` deinterlaces frames that are flagged as interlaced; `off` keeps their fields."""
_MIN_SIDE_PX = 4
"""Smallest width and height of the frames that the filter takes."""


class Interlacing:
    """Treatment of interlaced frames of a source; `say` gets one line about it, also if the source is opened again."""

    def __init__(self, mode: Deinterlace = "auto", say: Callable[[str], None] = lambda _: None) -> None:
        self._mode, self._say = mode, say
        self._has_said = False

    def apply(self, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield as many frames as there are, each with its own time stamp.

        The filter begins at the first frame that is flagged as interlaced; after it, frames without the flag pass
        unchanged. It looks at the next frame too, so that each frame comes when the next one has been read.
        """
        fields: _FieldFilter | None = None
        for frame in frames:
            is_interlaced = frame.interlaced_frame and min(frame.width, frame.height) >= _MIN_SIDE_PX
            if is_interlaced:
                self._report()
            if self._mode == "off" or (fields is None and not is_interlaced):
                yield frame
                continue
            if fields is None or not fields.accepts(frame):
                yield from fields.finish() if fields else ()
                fields = _FieldFilter(frame)
            yield from fields.filter(frame)
        yield from fields.finish() if fields else ()

    def _report(self) -> None:
        if not self._has_said:
            self._has_said = True
            done = "keeps its fields" if self._mode == "off" else "is deinterlaced (--deinterlace off keeps the fields)"
            self._say(f"source  is interlaced and {done}")


class _FieldFilter:
    """A filter for frames of the size and pixel format of `first`."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._form = _form(first)
        self._times: deque[tuple[int | None, Fraction | None]] = deque()
        """Time stamps of the frames in the filter, which returns others."""
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base or Fraction(1, 1000)
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def accepts(self, frame: av.VideoFrame) -> bool:
        """Return whether a frame has the size and pixel format of the first."""
        return _form(frame) == self._form

    def filter(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Take a frame, and yield those that are ready."""
        self._times.append((frame.pts, frame.time_base))
        self._graph.vpush(frame)
        yield from self._pull()

    def finish(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are left."""
        self._graph.vpush(None)
        yield from self._pull()

    def _pull(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            frame.pts, frame.time_base = self._times.popleft()
            yield frame


def _form(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
