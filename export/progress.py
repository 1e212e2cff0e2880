"""Progress of an export on standard error: one line with the time of each step, as soon as the step ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

REMINDER_S = 30.0
"""Time between two lines about a step that is not finished, where the output is a file."""
_REDRAW_S = 0.2
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Prints the steps of an export; a terminal also shows the step that is being computed."""

    def __init__(self) -> None:
        self._step = ""
        self._cached: set[str] = set()
        self._began_s = self._shown_s = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run the block as the step `name`, and print how long it took unless it raises an exception."""
        self._step, self._began_s = name, time.monotonic()
        self._shown_s = self._began_s
        self._draw(f"{name} ...")
        try:
            yield
        except BaseException:
            self._draw("")
            raise
        self._print(f"{name}: {time.monotonic() - self._began_s:.1f} s")

    def count(self, done: int, total: int) -> None:
        """Say how much of the step that is being computed is done; most calls print nothing."""
        now_s = time.monotonic()
        line = f"{self._step}: {done} of {total}, {now_s - self._began_s:.0f} s"
        if sys.stderr.isatty() and now_s - self._shown_s >= _REDRAW_S:
            self._draw(line)
            self._shown_s = now_s
        elif not sys.stderr.isatty() and now_s - self._shown_s >= REMINDER_S:
            self._print(line)
            self._shown_s = now_s

    def report_cached(self, name: str) -> None:
        """Print, once for each step, that a result is that of an earlier export or of this step for another engine."""
        if name not in self._cached:
            self._cached.add(name)
            self._print(f"{name}: cached")

    def _print(self, line: str) -> None:
        self._draw("")
        print(line, file=sys.stderr, flush=True)

    def _draw(self, line: str) -> None:
        """Replace the last line of a terminal; a file gets nothing."""
        if sys.stderr.isatty():
            print(f"{_ERASE_LINE}{line}", end="", file=sys.stderr, flush=True)
