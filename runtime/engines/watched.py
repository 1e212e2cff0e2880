"""An engine that is replaced between two frames when its file is replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np

from runtime.engines.base import Engine
from runtime.frame import Pixels
from runtime.sidecar import sidecar_path
from runtime.spec import EngineSpec

POLL_S = 0.5
"""Seconds between two looks at the file; a new file is opened when two looks in a row find it the same."""
_FileState = tuple[tuple[int, int, int], ...]
"""Inode, time of modification in ns, and size in bytes of an engine file and of its sidecar."""


class WatchedEngine:
    """An engine that opens `path` again when the file or its sidecar is replaced, while the old engine works on.

    The new engine first restores an empty frame of the last shape, so that the first real frame is not slower than
    others. Then it takes over at the next `submit`. If it cannot be opened or fails on that frame, the old engine
    stays and `say` gets a warning. `open_engine` opens the file; `close` closes the old and the new engine.
    """

    def __init__(self, path: Path, open_engine: Callable[[], Engine], *, say: Callable[[str], None]) -> None:
        self._path, self._open_engine, self._say = path, open_engine, say
        self._handled_state = _read_state(path)
        self._engine = open_engine()
        self._next: Engine | None = None
        self._replaced: list[Engine] = []
        """Old engines, which the watching thread closes."""
        self._shape: tuple[int, ...] = ()
        self._ready: deque[Pixels] = deque()
        """Results that were collected from the old engine when the new one took over."""
        self._submitted = 0
        """Batches that the current engine has."""
        self._next_lock = Lock()
        self._stopping = Event()
        self._watcher = Thread(target=self._watch, name="watch-engine", daemon=True)
        self._watcher.start()

    @property
    def spec(self) -> EngineSpec:
        return self._engine.spec

    @property
    def backend(self) -> str:
        return self._engine.backend

    @property
    def provider(self) -> str:
        return self._engine.provider

    @property
    def slots(self) -> int:
        return self._engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        self._switch_engine()
        self._shape = batch.shape
        self._engine.submit(batch)
        self._submitted += 1

    def collect(self) -> Pixels:
        if self._ready:
            return self._ready.popleft()
        self._submitted -= 1
        return self._engine.collect()

    def close(self) -> None:
        self._stopping.set()
        self._watcher.join()
        for engine in (self._engine, self._next, *self._replaced):
            if engine is not None:
                engine.close()

    def _switch_engine(self) -> None:
        """Change to the new engine, if there is one, after all results of the old one are collected."""
        with self._next_lock:
            new_engine, self._next = self._next, None
        if new_engine is None:
            return
        while self._submitted:
            self._submitted -= 1
            self._ready.append(self._engine.collect())
        self._replaced.append(self._engine)
        self._engine = new_engine
        self._say(f"engine replaced: {self._engine.spec.name}, {self._engine.backend}")

    def _watch(self) -> None:
        """Look at the file until the engine is closed, and open each new version."""
        state = self._handled_state
        while not self._stopping.wait(POLL_S):
            while self._replaced:
                with suppress(Exception):  # all its results are collected: an error here harms nobody
                    self._replaced.pop().close()
            previous_state, state = state, _read_state(self._path)
            if state == self._handled_state or state != previous_state:
                continue
            self._handled_state = state
            try:
                new_engine = self._open_engine()
            except Exception as error:  # noqa: BLE001 - the old engine stays, whatever is wrong with the new one
                self._say(f"warning: the new engine is not used: {error}")
                continue
            self._offer(new_engine)

    def _offer(self, new_engine: Engine) -> None:
        """Warm up a new engine, and let it take over at the next `submit`."""
        try:
            if self._shape:
                for _ in range(new_engine.slots):
                    new_engine.submit(np.zeros(self._shape, np.uint8))
                for _ in range(new_engine.slots):
                    new_engine.collect()
        except Exception as error:  # noqa: BLE001 - as above
            self._say(f"warning: the new engine is not used: {error}")
            new_engine.close()
            return
        with self._next_lock:
            unused, self._next = self._next, new_engine
        if unused is not None:
            unused.close()


def _read_state(path: Path) -> _FileState:
    """Return the state of an engine file and its sidecar, which changes when one of them is replaced."""
    state = []
    for file in (path, sidecar_path(path)):
        try:
            status = file.stat()
        except OSError:
            state.append((0, 0, 0))
        else:
            state.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(state)
