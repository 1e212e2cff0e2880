"""An engine that is replaced between two frames when its file is replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np

from runtime.engines.base import Engine, require_same_shape
from runtime.frame import Pixels
from runtime.sidecar import sidecar_path
from runtime.spec import EngineSpec

POLL_S = 0.5
"""Seconds between two looks at the file; a new file is opened when two looks in a row find it the same."""
_MAX_SHAPES = 8
"""Number of shapes that a new engine is tried on: one for each stream, or a few of a folder of images."""
_Shape = tuple[int, ...]
_FileState = tuple[tuple[int, int, int], ...]
"""Inode, time of modification in ns, and size in bytes of an engine file and of its sidecar."""


class WatchedEngine:
    """An engine that opens `path` again when the file or its sidecar is replaced, while the old engine works on.

    The new engine first restores an empty frame of each of the last shapes, so that the first real frame is not slower
    than others. Then it takes over at the next `submit`; a shape that comes only then is tried at that moment. If it
    cannot be opened, fails on such a frame, or returns another shape, the old engine stays and `say` gets a warning.
    `open_engine` opens the file; `close` closes the old and the new engine.
    """

    def __init__(self, path: Path, open_engine: Callable[[], Engine], *, say: Callable[[str], None]) -> None:
        self._path, self._open_engine, self._say = path, open_engine, say
        self._handled_state = _read_state(path)
        self._engine = open_engine()
        self._next: Engine | None = None
        self._tried: list[_Shape] = []
        """Shapes on which the next engine has been tried."""
        self._replaced: list[Engine] = []
        """Old engines, which the watching thread closes."""
        self._shapes: dict[_Shape, None] = {}
        """Shapes of the last batches, the newest at the end."""
        self._ready: deque[Pixels | Exception] = deque()
        """Results and errors that were collected from the old engine when the new one took over."""
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
        self._switch_engine(batch.shape)
        self._shapes.pop(batch.shape, None)
        self._shapes[batch.shape] = None
        if len(self._shapes) > _MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        self._engine.submit(batch)
        self._submitted += 1

    def collect(self) -> Pixels:
        if not self._ready:
            self._submitted -= 1
            return self._engine.collect()
        result = self._ready.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._stopping.set()
        self._watcher.join()
        for engine in (self._engine, self._next, *self._replaced):
            if engine is not None:
                engine.close()

    def _switch_engine(self, shape: _Shape) -> None:
        """Change to the new engine, if there is one, after all results of the old one are collected."""
        with self._next_lock:
            new_engine, self._next = self._next, None
            is_tried = shape in self._tried
        if new_engine is None:
            return
        if not is_tried and not self._try(new_engine, [shape]):
            self._replaced.append(new_engine)
            return
        while self._submitted:
            self._submitted -= 1
            try:
                self._ready.append(self._engine.collect())
            except Exception as error:  # noqa: BLE001 - `collect` raises it for the frame that it belongs to
                self._ready.append(error)
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
            except Exception as error:  # noqa: BLE001 - as in `_try`
                self._say(f"warning: the new engine is not used: {' '.join(str(error).split())}")
                continue
            self._offer(new_engine)

    def _offer(self, new_engine: Engine) -> None:
        """Warm up a new engine, and let it take over at the next `submit`."""
        shapes = list(self._shapes)
        if not self._try(new_engine, shapes):
            new_engine.close()
            return
        with self._next_lock:
            unused, self._next = self._next, new_engine
            self._tried = shapes
        if unused is not None:
            unused.close()

    def _try(self, new_engine: Engine, shapes: list[_Shape]) -> bool:
        """Return whether a new engine restores empty frames of these shapes; `say` gets a warning if it does not."""
        try:
            for shape in shapes:
                batch = np.zeros(shape, np.uint8)
                for _ in range(new_engine.slots):
                    new_engine.submit(batch)
                for _ in range(new_engine.slots):
                    require_same_shape(new_engine.spec, batch, new_engine.collect())
        except Exception as error:  # noqa: BLE001 - the old engine stays, whatever is wrong with the new one
            self._say(f"warning: the new engine is not used: {' '.join(str(error).split())}")
            return False
        return True


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
