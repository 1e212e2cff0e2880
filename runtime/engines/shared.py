"""One engine for several pipelines, which use it in a fair order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from runtime.engines.base import Engine, closed_error
from runtime.frame import Pixels
from runtime.spec import EngineSpec


class SharedEngine:
    """An engine and the queue of its clients: each client uses the engine as if it had no other.

    Turns are given in the order of the requests. There is no thread: a client that waits for its result also collects
    the results submitted before it, and stores each for its own client. An error in a batch reaches only the client
    that submitted it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._engine_lock = Lock()
        """Held during calls of the engine, which allows one call at a time."""
        self._submitted: deque[EngineClient] = deque()
        """The client of each batch that the engine has, in the order of submission."""
        self._waiting: deque[object] = deque()
        """Turns that are requested; the first is the current one."""
        self._turn_changed = Condition()

    def create_client(self) -> EngineClient:
        """Return an engine for one pipeline that works on this shared engine."""
        return EngineClient(self)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until the caller may submit: inside, the engine has a free slot and no other client submits."""
        ticket = object()
        with self._turn_changed:
            self._waiting.append(ticket)
            self._turn_changed.wait_for(lambda: self._waiting[0] is ticket)
        try:
            with self._engine_lock:
                while len(self._submitted) >= self.engine.slots:
                    self._collect_one()
            yield
        finally:
            with self._turn_changed:
                self._waiting.popleft()
                self._turn_changed.notify_all()

    def submit(self, client: EngineClient, batch: Pixels) -> None:
        """Submit a batch for a client, which must be inside its `turn`; raises the errors of the engine."""
        with self._engine_lock:
            self.engine.submit(batch)
            self._submitted.append(client)

    def collect(self, client: EngineClient) -> None:
        """Collect results until this client has one."""
        with self._engine_lock:
            while not client.results:
                self._collect_one()

    def _collect_one(self) -> None:
        client = self._submitted.popleft()
        try:
            client.results.append(self.engine.collect())
        except Exception as error:  # noqa: BLE001 - its own client raises it
            client.results.append(error)


class EngineClient:
    """The engine of one pipeline, backed by an engine that it shares with others.

    `submit` must be called inside `turn`. `close` ends this client only: the owner closes the shared engine.
    """

    def __init__(self, shared: SharedEngine) -> None:
        self.results: deque[Pixels | Exception] = deque()
        self.turn = shared.turn
        self._shared = shared
        self._is_closed = False

    @property
    def spec(self) -> EngineSpec:
        return self._shared.engine.spec

    @property
    def backend(self) -> str:
        return self._shared.engine.backend

    @property
    def provider(self) -> str:
        return self._shared.engine.provider

    @property
    def slots(self) -> int:
        return self._shared.engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        with self.turn():
            self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        if self._is_closed:
            raise closed_error(self.spec)
        self._shared.submit(self, batch)

    def collect(self) -> Pixels:
        self._shared.collect(self)
        result = self.results.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._is_closed = True
