"""An engine that is replaced between two frames when its file is."""

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
"""A new file must look the same twice, so long apart, before it is opened."""
_State = tuple[tuple[int, int, int], ...]


class WatchedEngine:
    """Opens `path` again, beside the engine in use, when the file or its sidecar is replaced.

    The new engine works on a frame of the last shape before it takes over, so that the frame
    after the change waits no longer than any other. One that cannot be opened or fails is told
    to `say`, and the old one goes on.
    """

    def __init__(self, path: Path, open_it: Callable[[], Engine], *, say: Callable[[str], None]) -> None:
        self._path, self._open, self._say = path, open_it, say
        self._state = _state(path)
        self._engine = open_it()
        self._next: Engine | None = None
        self._replaced: list[Engine] = []
        self._shape: tuple[int, ...] = ()
        self._ready: deque[Pixels] = deque()
        self._under_way = 0
        self._changing = Lock()
        self._ended = Event()
        self._watcher = Thread(target=self._watch, name="watch-engine", daemon=True)
        self._watcher.start()

    @property
    def spec(self) -> EngineSpec:
        return self._engine.spec

    @property
    def backend(self) -> str:
        return self._engine.backend

    @property
    def slots(self) -> int:
        return self._engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        self._take_over()
        self._shape = batch.shape
        self._engine.submit(batch)
        self._under_way += 1

    def collect(self) -> Pixels:
        if self._ready:
            return self._ready.popleft()
        self._under_way -= 1
        return self._engine.collect()

    def close(self) -> None:
        self._ended.set()
        self._watcher.join()
        for engine in (self._engine, self._next, *self._replaced):
            if engine is not None:
                engine.close()

    def _take_over(self) -> None:
        """Change to the new engine, if there is one, when the old one has given all that it was given."""
        with self._changing:
            fresh, self._next = self._next, None
        if fresh is None:
            return
        while self._under_way:
            self._under_way -= 1
            self._ready.append(self._engine.collect())
        self._replaced.append(self._engine)
        self._engine = fresh
        self._say(f"engine replaced: {self._engine.spec.name}, {self._engine.backend}")

    def _watch(self) -> None:
        seen = self._state
        while not self._ended.wait(POLL_S):
            while self._replaced:
                with suppress(Exception):  # it has done its work
                    self._replaced.pop().close()
            before, seen = seen, _state(self._path)
            if seen == self._state or seen != before:
                continue
            self._state = seen
            try:
                fresh = self._open()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the old one goes on
                self._say(f"warning: the new engine is not used: {error}")
                continue
            self._offer(fresh)

    def _offer(self, fresh: Engine) -> None:
        """Let a new engine warm up, and have it take over at the next frame."""
        try:
            if self._shape:
                for _ in range(fresh.slots):
                    fresh.submit(np.zeros(self._shape, np.uint8))
                for _ in range(fresh.slots):
                    fresh.collect()
        except Exception as error:  # noqa: BLE001 - as above
            self._say(f"warning: the new engine is not used: {error}")
            fresh.close()
            return
        with self._changing:
            unused, self._next = self._next, fresh
        if unused is not None:
            unused.close()


def _state(path: Path) -> _State:
    """What tells a file from the one that was there before."""
    state = []
    for each in (path, sidecar_path(path)):
        try:
            found = each.stat()
        except OSError:
            state.append((0, 0, 0))
        else:
            state.append((found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(state)
