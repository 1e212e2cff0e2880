"""Ctrl-C and SIGTERM: the first ends a run tidily, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import Thread
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")


class Interruption:
    """While entered, remembers the first SIGINT or SIGTERM and calls `on_signal`.

    Until `on_signal` is set there is nothing to end tidily, and the signal raises
    KeyboardInterrupt. A second signal finds the system's own handling, which kills.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number: int | None = None
        self.on_signal: Callable[[], None] | None = None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells expect; 0 after none."""
        return 128 + self.number if self.number else 0

    def __enter__(self) -> Interruption:  # noqa: PYI034 - Self is new in Python 3.11
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Restore the signal handlers that were installed before this one was entered."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self.on_signal is None:
            raise KeyboardInterrupt
        self.on_signal()


def interruptible(work: Callable[[], T]) -> T:
    """Do it in a thread that a signal leaves behind: a library that waits for a stalled pipe never sees signals."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = Thread(target=run, name="interruptible", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
