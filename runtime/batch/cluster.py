"""The files of a batch on the nodes of a Ray cluster."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.batch.files import Task
from runtime.batch.work import Outcome, restore
from runtime.engines import Engine, Provider, open_engine
from runtime.errors import DeblurError, EngineError, UsageError
from runtime.sidecar import sidecar_path

_MOST_TRIES = 3
"""With a file whose worker dies, before it is taken that the file kills it."""
_REACH_S = 5.0
_LOOK_S = 1.0
"""Between two looks at which nodes there are."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What a worker takes of a node."""

    cpus: int
    gpus: int = 0

    def fit(self, resources: dict[str, float]) -> int:
        """How many of them a node has room for."""
        fits = int(resources.get("CPU", 0) // self.cpus)
        return min(fits, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else fits


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """An engine on its way to the nodes: its files by name, and how to open it."""

    name: str
    files: dict[str, bytes] = field(repr=False)
    provider: Provider
    threads: int

    @classmethod
    def of(cls, path: Path, *, provider: Provider, threads: int) -> Shipment:
        files = {each.name: each.read_bytes() for each in (path, sidecar_path(path)) if each.exists()}
        return cls(name=path.name, files=files, provider=provider, threads=threads)

    def opened(self, folder: Path) -> Engine:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        path = folder / self.name
        return open_engine(path, provider=self.provider, threads=self.threads, mode="throughput")


class Worker:
    """An actor: loads the engine once, and restores one file after another."""

    def load(self, shipment: Shipment) -> str:
        """Empty, or why the engine cannot be loaded: errors of other packages do not travel."""
        self._place = f"{os.uname().nodename}:{os.getpid()}"
        try:
            with tempfile.TemporaryDirectory(prefix="deblur-engine-") as folder:
                self._engine = shipment.opened(Path(folder))
        except DeblurError as error:
            return f"{error.what}; {error.hint}"
        return ""

    def restore(self, task: Task) -> Outcome:
        return dataclasses.replace(restore(task, self._engine), place=self._place)


class Cluster:
    """Ray, on this machine (`local`) or at an address; raises UsageError if there is none."""

    def __init__(self, address: str, *, shipment: Shipment, piece: Slice) -> None:
        try:
            import ray  # noqa: PLC0415 - only for those who have a cluster
        except ImportError as error:
            raise UsageError("Ray is not installed", hint="pip install 'deblur-toolkit[fleet]'") from error
        self._ray: Any = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = {"include_dashboard": False} if address == "local" else {"address": address}
        try:
            if found := re.fullmatch(r"\[?([^/\]]+)\]?:(\d+)", address):  # for which Ray itself waits minutes
                socket.create_connection((found[1], int(found[2])), _REACH_S).close()
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"no Ray cluster ({reason})", address, hint="ray start --head, or --ray local") from error
        self._piece, self._name = piece, shipment.name
        self._shipment = ray.put(shipment)
        self._actor: Any = ray.remote(num_cpus=piece.cpus, num_gpus=piece.gpus)(Worker)
        self._starting: dict[Any, Any] = {}
        """Actors that load the engine, by the promise that they have."""
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        """An actor and its task, by the promise of its outcome."""

    def run(self, tasks: list[Task], *, stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Outcomes as they come. What a worker dies of is done by another; raises EngineError where none can start."""
        waiting, deaths = deque(tasks), Counter[Task]()
        while (waiting or self._busy) and not stopped():
            self._start_workers(len(waiting) + len(self._busy))
            while waiting and self._idle:
                actor, task = self._idle.pop(), waiting.popleft()
                self._busy[actor.restore.remote(task)] = (actor, task)
            promises = [*self._starting, *self._busy]
            kept, _ = self._ray.wait(promises, num_returns=1, timeout=_LOOK_S) if promises else ([], [])
            for promise in kept:
                if promise in self._starting:
                    self._started(promise)
                    continue
                outcome, task = self._outcome(promise)
                if outcome:
                    yield outcome
                    continue
                deaths[task] += 1
                if deaths[task] < _MOST_TRIES:
                    waiting.appendleft(task)
                else:
                    yield Outcome(task=task, error=f"its worker died {_MOST_TRIES} times", exit_code=1)

    def _start_workers(self, wanted: int) -> None:
        """As many as nodes have room for, and as there is work for."""
        room = sum(self._piece.fit(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if not room:
            raise UsageError(
                f"no node has {self._piece.cpus} CPUs and {self._piece.gpus} GPUs", hint="give fewer --cpus-per-worker"
            )
        there = len(self._starting) + len(self._idle) + len(self._busy)
        for _ in range(min(room, wanted) - there):
            actor = self._actor.remote()
            self._starting[actor.load.remote(self._shipment)] = actor

    def _started(self, promise: Any) -> None:
        actor = self._starting.pop(promise)
        try:
            why_not = self._ray.get(promise)
        except self._ray.exceptions.RayActorError:
            return  # its node has gone
        if why_not:  # and so it would be on every node
            raise EngineError(f"a worker could not load {self._name} ({why_not})", hint="try it without --ray")
        self._idle.append(actor)

    def _outcome(self, promise: Any) -> tuple[Outcome | None, Task]:
        """None where the worker has died."""
        actor, task = self._busy.pop(promise)
        try:
            outcome: Outcome = self._ray.get(promise)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError):
            return None, task
        except self._ray.exceptions.RayTaskError as error:  # a bug, of which the next file may be free
            outcome = Outcome(task=task, error=f"this is a bug ({str(error).strip().splitlines()[-1]})", exit_code=1)
        self._idle.append(actor)
        return outcome, task

    def close(self) -> None:
        """Leave the cluster; workers end, and what is half done can be resumed."""
        self._ray.shutdown()
