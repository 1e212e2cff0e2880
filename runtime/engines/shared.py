"""One engine for several pipelines, in fair turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from runtime.engines.base import Engine
from runtime.frame import Pixels
from runtime.spec import EngineSpec


class SharedEngine:
    """Whoever has a `seat` uses the engine as if it were alone; turns come in the order in which they are asked for.

    There is no thread of its own: who waits for a result collects those before it too, each for
    its seat. What goes wrong with a batch concerns no other seat.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._running = Lock()
        """Held by whoever calls the engine, which is used from one thread at a time."""
        self._under_way: deque[Seat] = deque()
        self._waiting: deque[object] = deque()
        self._turned = Condition()

    def seat(self) -> Seat:
        """A place in the queue, with the promises of an engine."""
        return Seat(self)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While entered, the engine has a free slot for the caller, and nobody else submits."""
        me = object()
        with self._turned:
            self._waiting.append(me)
            self._turned.wait_for(lambda: self._waiting[0] is me)
        try:
            with self._running:
                while len(self._under_way) >= self.engine.slots:
                    self._collect_one()
            yield
        finally:
            with self._turned:
                self._waiting.popleft()
                self._turned.notify_all()

    def submit(self, seat: Seat, batch: Pixels) -> None:
        """In the seat's turn; raises what the engine raises."""
        with self._running:
            self.engine.submit(batch)
            self._under_way.append(seat)

    def collect(self, seat: Seat) -> None:
        """Collect until the seat has a result."""
        with self._running:
            while not seat.results:
                self._collect_one()

    def _collect_one(self) -> None:
        seat = self._under_way.popleft()
        try:
            seat.results.append(self.engine.collect())
        except Exception as error:  # noqa: BLE001 - raised where it is collected, whoever came upon it
            seat.results.append(error)


class Seat:
    """An engine to its pipeline; not to be closed, as it is for others too."""

    def __init__(self, shared: SharedEngine) -> None:
        self.results: deque[Pixels | Exception] = deque()
        self._shared = shared
        self.turn = shared.turn

    @property
    def spec(self) -> EngineSpec:
        return self._shared.engine.spec

    @property
    def backend(self) -> str:
        return self._shared.engine.backend

    @property
    def slots(self) -> int:
        return self._shared.engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        with self.turn():
            self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        self._shared.submit(self, batch)

    def collect(self) -> Pixels:
        self._shared.collect(self)
        result = self.results.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Nothing: whoever opened the engine closes it."""
