"""Sources that do not wait: watched, and opened again when they fall silent."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from threading import Condition, Event, Thread
from time import perf_counter
from typing import Protocol

from runtime.errors import DeblurError, SourceLostError
from runtime.frame import Frame, Pixels
from runtime.sources.base import SourceInfo
from runtime.urls import redact

TIME_BASE = Fraction(1, 90_000)
_RATE_WINDOW_S = 5.0
_RUNAWAY = 3.0
"""Times the nominal rate. Decoders that lost their place give frames as fast as they can."""
_LEAVE_S = 1.0
_SETTLED_S = 1.0
"""A connection that held so long was a good one: the next failure is the first again."""


class Feed(Protocol):
    """One connection to a camera or a server."""

    frame_rate: Fraction
    """Nominal frames per second."""

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        """Frames as they come; calling one gives its pixels, uint8[H, W, 3] BGR.

        May block for ever. The end, and any exception, is a lost connection.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Watch:
    """When a live source is given up, and how often it is tried again."""

    timeout_s: float = 10.0
    """Without a frame."""
    open_s: float = 10.0
    """Until the first frame of a connection, which waits for a key frame."""
    frozen_s: float = 60.0
    """With nothing but copies of one frame; 0 lets it be."""
    max_reconnects: int | None = None
    """In a row, none of which held; None goes on for ever."""
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    """Before the first try, doubled for each further one up to the longest."""


class LiveSource:
    """Frames of a feed, stamped with the time of their arrival, across all its connections.

    A feed is opened and read in a thread of its own, which is left behind where a library
    blocks for ever. Only the newest frame waits. A connection is given up after `timeout_s`
    without a frame, at its end, when the frame rate runs away, and when the picture is frozen.
    Raises SourceLostError if the first connection gives no frame, or too many later ones in a row.
    """

    damage = None

    def __init__(self, name: str, open_feed: Callable[[], Feed], watch: Watch = Watch()) -> None:
        self._open_feed, self._watch = open_feed, watch
        self._reasons: Counter[str] = Counter()
        self._closed = Event()
        self._start: float | None = None
        self._dropped_before = 0
        self._grabber = _Grabber(open_feed)
        first = self._grabber.take(watch.open_s)
        if first is None:
            self._grabber.abandon()
            if self._grabber.error:
                raise self._grabber.error
            reason = self._grabber.reason or _silent(watch.open_s)
            raise SourceLostError(
                f"source gives nothing ({reason})", name, hint="check that it is there and not in use"
            )
        self._first: _Taken | None = first
        height, width = first.pixels().shape[:2]
        self.info = SourceInfo(
            name=name,
            time_base=TIME_BASE,
            frame_rate=self._grabber.frame_rate,
            size=(width, height),
            is_live=True,
        )

    @property
    def reconnects(self) -> int:
        return self._reasons.total()

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before they were taken."""
        return self._dropped_before + self._grabber.dropped

    @property
    def warnings(self) -> list[str]:
        return [f"connected again {count} times: {reason}" for reason, count in list(self._reasons.items())]

    def __iter__(self) -> Iterator[Frame]:
        failures = 0
        try:
            while not self._closed.is_set():
                began = perf_counter()
                reason = yield from self._frames()
                failures = 1 if perf_counter() - began > _SETTLED_S else failures + 1
                if not self._closed.is_set():
                    self._reconnect(reason, failures)
        finally:
            self._grabber.abandon()
            self._grabber.thread.join(_LEAVE_S)  # a process that ends while a library still reads may crash

    def close(self) -> None:
        """From any thread: whoever takes frames finds the end."""
        self._closed.set()
        self._grabber.abandon()

    def _frames(self) -> Generator[Frame, None, str]:
        """Frames of one connection; returns why it ended."""
        arrivals: deque[float] = deque()
        last_digest, changed_at = b"", perf_counter()
        patience_s = self._watch.open_s
        while not self._closed.is_set():
            taken, self._first = self._first or self._grabber.take(patience_s), None
            if taken is None:
                return self._grabber.reason or _silent(patience_s)
            patience_s = self._watch.timeout_s
            frame = self._stamped(taken)
            yield frame
            arrivals.append(taken.arrived_at)
            while arrivals[0] < taken.arrived_at - _RATE_WINDOW_S:
                arrivals.popleft()
            if len(arrivals) > _RUNAWAY * _RATE_WINDOW_S * self.info.frame_rate:
                return f"more than {_RUNAWAY:g} times its frame rate"
            digest = hashlib.blake2b(frame.pixels[::8, ::8].tobytes(), digest_size=16).digest()
            if digest != last_digest:
                last_digest, changed_at = digest, taken.arrived_at
            elif 0 < self._watch.frozen_s < taken.arrived_at - changed_at:
                return f"the same picture for {self._watch.frozen_s:g} s"
        return ""

    def _stamped(self, taken: _Taken) -> Frame:
        self._start = taken.arrived_at if self._start is None else self._start
        pts = round((taken.arrived_at - self._start) / TIME_BASE)
        return Frame(pixels=taken.pixels(), pts=pts, time_base=TIME_BASE, captured_at=taken.arrived_at)

    def _reconnect(self, reason: str, failures: int) -> None:
        self._reasons[reason] += 1
        self._grabber.abandon()
        most = self._watch.max_reconnects
        if most is not None and failures > most:
            raise SourceLostError(
                f"source was lost and did not come back in {most} tries ({reason})",
                self.info.name,
                hint="check its power and network, or raise --max-reconnects",
            )
        wait_s = min(self._watch.first_wait_s * 2 ** (failures - 1), self._watch.longest_wait_s)
        self._closed.wait(wait_s)
        self._dropped_before += self._grabber.dropped
        self._grabber = _Grabber(self._open_feed)


def _silent(seconds: float) -> str:
    return f"no frame for {seconds:g} s"


@dataclass(frozen=True)
class _Taken:
    pixels: Callable[[], Pixels]
    arrived_at: float


class _Grabber:
    """One connection, read in a thread that nothing waits for."""

    def __init__(self, open_feed: Callable[[], Feed]) -> None:
        self.frame_rate = Fraction(30)
        self.reason = ""
        """Why it ended."""
        self.error: DeblurError | None = None
        self.dropped = 0
        self._open_feed = open_feed
        self._newest: _Taken | None = None
        self._abandoned = self._ended = False
        self._changed = Condition()
        self.thread = Thread(target=self._run, name="live-source", daemon=True)
        self.thread.start()

    def take(self, timeout_s: float) -> _Taken | None:
        """The newest frame, waiting for one; None at the end or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._ended, timeout_s)
            taken, self._newest = self._newest, None
            return taken

    def abandon(self) -> None:
        """Have the thread end when it next can."""
        with self._changed:
            self._abandoned = self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        reason = "end of stream"
        try:
            feed = self._open_feed()
            try:
                self.frame_rate = feed.frame_rate
                for pixels in feed:
                    if not self._offer(_Taken(pixels, perf_counter())):
                        break
            finally:
                feed.close()
        except DeblurError as error:
            self.error, reason = error, error.what
        except Exception as error:  # noqa: BLE001 - whatever a library raises is a lost connection
            reason = redact(" ".join(str(error).split())) or type(error).__name__
        with self._changed:
            self.reason, self._ended = reason, True
            self._changed.notify_all()

    def _offer(self, taken: _Taken) -> bool:
        with self._changed:
            if self._abandoned:
                return False
            self.dropped += self._newest is not None
            self._newest = taken
            self._changed.notify_all()
            return True
