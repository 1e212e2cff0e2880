"""Live sources: a watchdog over a camera or stream, which opens it again when it stops or freezes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from threading import Condition, Event, Thread
from time import perf_counter
from typing import Protocol

import av

from runtime.errors import MAX_SECONDS, DeblurError, SourceLostError, require_in_range
from runtime.frame import Frame, Pixels
from runtime.redaction import redact
from runtime.sources.base import SourceInfo, damage_warnings
from runtime.sources.planes import DecodedImage, PlanesReader, has_planes
from runtime.stream_format import PLAIN, StreamFormat
from runtime.yuv420 import Yuv420

TIME_BASE = Fraction(1, 90_000)
"""Seconds per tick of `pts`."""
_RATE_WINDOW_S = 5.0
"""Seconds over which the frame rate is measured."""
_MAX_RATE_FACTOR = 3.0
"""Multiple of the nominal frame rate above which a connection is given up: a decoder that has lost its place in the
stream returns frames as fast as it can."""
_JOIN_S = 1.0
"""Seconds to wait for the thread of the last connection when the iteration ends."""
_STABLE_S = 1.0
"""Duration of a connection in seconds after which the next failure counts as the first in a row again."""


class Feed(Protocol):
    """One connection to a camera or a server. The constructor connects; it may block."""

    frame_rate: Fraction
    """Nominal frames per second."""
    format: StreamFormat
    """Form in which the frames are stored."""
    damaged_packets: int
    """Number of packets so far that could not be decoded; 0 for a source without packets."""

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        """Yield a function for each frame as it arrives, which returns the pixels uint8[H, W, 3] BGR.

        A `DecodedImage` can also be read as planes.

        The iteration may block for ever. Its end, and any exception, is a lost connection.
        """
        ...

    def close(self) -> None:
        """Close the connection; called in the thread that iterates."""
        ...


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Limits after which a live source is opened again, and how often that is tried."""

    timeout_s: float = 10.0
    """Seconds without a frame after which a connection is given up."""
    open_s: float = 10.0
    """Seconds to wait for the first frame of a connection, which has to be a key frame."""
    frozen_s: float = 60.0
    """Seconds of identical frames after which a connection is given up; 0 never gives up for that reason."""
    max_reconnects: int | None = None
    """Number of failed connections in a row after which the source ends with SourceLostError; None for no limit."""
    first_wait_s: float = 1.0
    """Seconds to wait before the first attempt to reconnect; the wait doubles with each further attempt in a row."""
    longest_wait_s: float = 30.0
    """Longest wait between two attempts to reconnect, in seconds."""

    def __post_init__(self) -> None:
        require_in_range("seconds to wait for the first frame", self.open_s, 0.01, MAX_SECONDS)
        require_in_range("seconds without a frame", self.timeout_s, 0.01, MAX_SECONDS)
        require_in_range("seconds of identical frames", self.frozen_s, 0, MAX_SECONDS)
        require_in_range("number of reconnections", self.max_reconnects, 0, 10**9)


class LiveSource:
    """Reads a feed across all its connections; `pts` is the arrival time since the first frame.

    Each connection is opened and read in its own thread, which is left behind if a library blocks for ever. Only the
    newest frame waits to be read. A connection is given up when no frame arrives in time, when it ends, when its frame
    rate is impossible, and when its frames are frozen; see `Watch`. Raises SourceLostError if the first connection
    delivers no frame, or if too many later connections in a row fail.
    """

    damage = None

    def __init__(self, name: str, open_feed: Callable[[], Feed], watch: Watch = Watch()) -> None:
        self._open_feed, self._watch = open_feed, watch
        self._reasons: Counter[str] = Counter()
        self._closed = Event()
        self._start: float | None = None
        self._dropped_before = 0
        """Number of frames that earlier connections dropped."""
        self._damaged_before = 0
        """Number of packets of earlier connections that could not be decoded."""
        self._connection = _Connection(open_feed)
        first = self._connection.take_newest(watch.open_s)
        if first is None:
            self._connection.abandon()
            if self._connection.error:
                raise self._connection.error
            reason = self._connection.end_reason or no_frame_reason(watch.open_s)
            raise SourceLostError(
                f"source delivers no frame ({reason})", name, hint="check that it runs and that nothing else uses it"
            )
        self._first: _Arrival | None = first
        self._planes: PlanesReader | None = None
        """Makes planes of the decoded frames; None for BGR."""
        decoded = first.decoded
        height, width = (decoded.height, decoded.width) if decoded else first.pixels().shape[:2]
        self.info = SourceInfo(
            name=name,
            time_base=TIME_BASE,
            frame_rate=self._connection.frame_rate,
            format=self._connection.format.with_metadata(decoded),
            size=(width, height),
            is_live=True,
            has_planes=decoded is not None and has_planes(decoded),
        )

    def deliver_planes(self) -> None:
        """Deliver frames as planes with the colours of the first one; call it before the first frame is read."""
        assert self._first is not None
        assert self._first.decoded is not None
        self._planes = PlanesReader(self._first.decoded)
        self.info = replace(self.info, format=self._planes.describe(self.info.format))

    @property
    def reconnects(self) -> int:
        """Number of times that the source was opened again."""
        return self._reasons.total()

    @property
    def dropped(self) -> int:
        """Number of frames that a newer frame replaced before they were read."""
        return self._dropped_before + self._connection.dropped

    @property
    def warnings(self) -> list[str]:
        """Sentences about reduced samples and damaged packets, and one for each reason of lost connections."""
        damaged = damage_warnings(self._damaged_before + self._connection.damaged_packets)
        lost = [f"reconnections to the source: {count} ({reason})" for reason, count in list(self._reasons.items())]
        return self.info.format.warnings + damaged + lost

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source is closed or lost for good."""
        failures = 0
        try:
            while not self._closed.is_set():
                connected_at = perf_counter()
                reason = yield from self._frames()
                failures = 1 if perf_counter() - connected_at > _STABLE_S else failures + 1
                if not self._closed.is_set():
                    self._reconnect(reason, failures)
        finally:
            self._connection.abandon()
            self._connection.thread.join(_JOIN_S)  # a process that ends while a library still reads may crash

    def close(self) -> None:
        """End the source; may be called from any thread, and ends an iteration that waits for a frame."""
        self._closed.set()
        self._connection.abandon()

    def _frames(self) -> Generator[Frame, None, str]:
        """Yield the frames of one connection and return the reason of its end."""
        arrivals: deque[float] = deque()
        last_digest, changed_at = b"", perf_counter()
        patience_s = self._watch.open_s
        while not self._closed.is_set():
            arrival, self._first = self._first or self._connection.take_newest(patience_s), None
            if arrival is None:
                return self._connection.end_reason or no_frame_reason(patience_s)
            patience_s = self._watch.timeout_s
            frame = self._to_frame(arrival)
            yield frame
            arrivals.append(arrival.arrived_at)
            while arrivals[0] < arrival.arrived_at - _RATE_WINDOW_S:
                arrivals.popleft()
            if len(arrivals) > _MAX_RATE_FACTOR * _RATE_WINDOW_S * self.info.frame_rate:
                return f"more than {_MAX_RATE_FACTOR:g} times its frame rate"
            shown = frame.pixels.luma if isinstance(frame.pixels, Yuv420) else frame.pixels
            digest = hashlib.blake2b(shown[::8, ::8].tobytes(), digest_size=16).digest()
            if digest != last_digest:
                last_digest, changed_at = digest, arrival.arrived_at
            elif 0 < self._watch.frozen_s < arrival.arrived_at - changed_at:
                return f"identical frames for {self._watch.frozen_s:g} s"
        return ""

    def _to_frame(self, arrival: _Arrival) -> Frame:
        self._start = arrival.arrived_at if self._start is None else self._start
        pts = round((arrival.arrived_at - self._start) / TIME_BASE)
        decoded = arrival.decoded
        pixels = self._planes.read(decoded) if decoded and self._planes else arrival.pixels()
        return Frame(pixels=pixels, pts=pts, time_base=TIME_BASE, captured_at=arrival.arrived_at)

    def _reconnect(self, reason: str, failures: int) -> None:
        """Wait, then open a new connection; `failures` is the number of lost connections in a row."""
        self._connection.abandon()
        limit = self._watch.max_reconnects
        if limit is not None and failures > limit:
            raise SourceLostError(
                f"source was lost and did not come back in {limit} tries ({reason})",
                self.info.name,
                hint="check its power and network, or allow more reconnections",
            )
        wait_s = min(self._watch.first_wait_s * 2 ** (failures - 1), self._watch.longest_wait_s)
        if self._closed.wait(wait_s):
            return
        self._reasons[reason] += 1
        self._dropped_before += self._connection.dropped
        self._damaged_before += self._connection.damaged_packets
        self._connection = _Connection(self._open_feed)


def no_frame_reason(seconds: float) -> str:
    """Return why a connection is given up after this time."""
    return f"no frame for {seconds:g} s"


@dataclass(frozen=True)
class _Arrival:
    """A frame that has arrived; calling `pixels` converts it."""

    pixels: Callable[[], Pixels]
    arrived_at: float
    """`perf_counter()` in seconds."""

    @property
    def decoded(self) -> av.VideoFrame | None:
        """The frame as FFmpeg decoded it; None for a camera that gives BGR."""
        return self.pixels.frame if isinstance(self.pixels, DecodedImage) else None


class _Connection:
    """One connection, opened and read in a daemon thread that may block in a library."""

    def __init__(self, open_feed: Callable[[], Feed]) -> None:
        self.frame_rate = Fraction(30)
        self.format = PLAIN
        self.end_reason = ""
        """Reason why the connection has ended."""
        self.error: DeblurError | None = None
        self.dropped = 0
        self._open_feed = open_feed
        self._feed: Feed | None = None
        self._newest: _Arrival | None = None
        self._is_abandoned = self._has_ended = False
        self._changed = Condition()
        self.thread = Thread(target=self._run, name="live-source", daemon=True)
        self.thread.start()

    @property
    def damaged_packets(self) -> int:
        """Number of packets so far that could not be decoded."""
        return self._feed.damaged_packets if self._feed else 0

    def take_newest(self, timeout_s: float) -> _Arrival | None:
        """Return the newest frame, waiting for one; None at the end of the connection and after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._has_ended, timeout_s)
            newest, self._newest = self._newest, None
            return newest

    def abandon(self) -> None:
        """Tell the thread to end as soon as the library returns to it; does not wait."""
        with self._changed:
            self._is_abandoned = self._has_ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        reason = "end of stream"
        try:
            self._feed = feed = self._open_feed()
            try:
                self.frame_rate, self.format = feed.frame_rate, feed.format
                for pixels in feed:
                    if not self._offer(_Arrival(pixels, perf_counter())):
                        break
            finally:
                feed.close()
        except DeblurError as error:
            self.error, reason = error, error.what
        except Exception as error:  # noqa: BLE001 - any exception of a library is a lost connection
            message = getattr(error, "strerror", None) or str(error)  # FFmpeg's messages end with the address
            reason = redact(" ".join(message.split())) or type(error).__name__
        with self._changed:
            self.end_reason, self._has_ended = reason, True
            self._changed.notify_all()

    def _offer(self, arrival: _Arrival) -> bool:
        """Replace the waiting frame by a newer one; return False if the connection was abandoned."""
        with self._changed:
            if self._is_abandoned:
                return False
            self.dropped += self._newest is not None
            self._newest = arrival
            self._changed.notify_all()
            return True
