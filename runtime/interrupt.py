"""Ctrl-C and SIGTERM: the first one ends a run after the frames in progress, the second one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import Thread
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")


class Interruption:
    """A context manager that remembers the first SIGINT or SIGTERM and calls `on_signal`.

    As long as `on_signal` is None, there is no run to end, and the signal raises KeyboardInterrupt. The first signal
    restores the default handling of the system, so that a second one kills the process.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number: int | None = None
        """Number of the signal; None before the first one."""
        self.on_signal: Callable[[], None] | None = None
        """Function that ends the run; it is called in the signal handler."""

    @property
    def exit_code(self) -> int:
        """Exit code that shells expect: 130 after SIGINT, 143 after SIGTERM, 0 without a signal."""
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
        for handled in self.SIGNALS:
            signal.signal(handled, signal.SIG_DFL)
        if self.on_signal is None:
            raise KeyboardInterrupt
        self.on_signal()


def run_interruptibly(work: Callable[[], T]) -> T:
    """Call `work` in a daemon thread and return its result, or raise its exception.

    A library that waits for a silent pipe never returns to Python, so a signal would not be handled. Here the calling
    thread handles it and leaves the daemon thread behind.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = Thread(target=run, name="interruptible-work", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
