"""Batches on the nodes of a Ray cluster."""

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

from runtime.batch.engines import BatchEngines
from runtime.batch.files import Task
from runtime.batch.work import Outcome, restore_file
from runtime.engines import Provider, TiledEngine, open_engine
from runtime.errors import DeblurError, EngineError, UsageError
from runtime.libraries import install_hint
from runtime.options import RunOptions
from runtime.resume import EngineFile
from runtime.sidecar import sidecar_path

_MAX_TRIES = 3
"""Number of workers that may die with the same file before the file counts as failed."""
_CONNECT_S = 5.0
_POLL_S = 1.0
"""Seconds between two looks at the list of nodes."""


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """CPUs and GPUs of one worker."""

    cpus: int
    gpus: int = 0

    def count_on(self, resources: dict[str, float]) -> int:
        """Return the number of workers that a node with these resources has room for."""
        count = int(resources.get("CPU", 0) // self.cpus)
        return min(count, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else count


@dataclass(frozen=True, kw_only=True)
class EnginePackage:
    """The files of an engine, to be sent to the nodes, and how to open it there."""

    file: EngineFile
    files: dict[str, bytes] = field(repr=False)
    """Content by file name: the engine, and the sidecar of a plan."""
    options: RunOptions
    threads: int

    @classmethod
    def read(cls, path: Path, options: RunOptions, *, threads: int) -> EnginePackage:
        """Read an engine file with its sidecar."""
        files = {file.name: file.read_bytes() for file in (path, sidecar_path(path)) if file.exists()}
        return cls(file=EngineFile.read(path), files=files, options=options, threads=threads)

    def open_engines(self) -> BatchEngines:
        """Open the engine from a folder that exists only for that time."""

        def open_with(provider: Provider) -> TiledEngine:
            with tempfile.TemporaryDirectory(prefix="deblur-engine-") as folder:
                for name, content in self.files.items():
                    (Path(folder) / name).write_bytes(content)
                path = Path(folder) / self.file.name
                return open_engine(path, provider=provider, threads=self.threads, mode="throughput")

        return BatchEngines(self.file, open_with, self.options.provider)


class Worker:
    """A Ray actor that opens the engine once and restores one file after another."""

    def load(self, package: EnginePackage) -> str:
        """Open the engine; return an empty string, or why that failed: exceptions of this package do not travel."""
        self._place = f"{os.uname().nodename}:{os.getpid()}"
        self._options = package.options
        try:
            self._engines = package.open_engines()
        except DeblurError as error:
            return f"{error.what}; {error.hint}"
        return ""

    def restore(self, task: Task) -> Outcome:
        """Restore one file."""
        return dataclasses.replace(restore_file(task, self._engines, self._options), place=self._place)


class Cluster:
    """Workers on a Ray cluster at an address, or on this machine (`local`); raises UsageError without a cluster."""

    def __init__(self, address: str, *, package: EnginePackage, worker: WorkerResources) -> None:
        try:
            import ray  # noqa: PLC0415 - optional dependency
        except ImportError as error:
            raise UsageError("Ray is not installed", hint=install_hint("ray")) from error
        self._ray: Any = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = {"include_dashboard": False} if address == "local" else {"address": address}
        try:
            if found := re.fullmatch(r"\[?([^/\]]+)\]?:(\d+)", address):  # Ray itself waits for minutes
                socket.create_connection((found[1], int(found[2])), _CONNECT_S).close()
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"no Ray cluster ({reason})", address, hint="ray start --head, or --ray local") from error
        self._resources, self._name = worker, package.file.name
        self._package = ray.put(package)
        self._actor: Any = ray.remote(num_cpus=worker.cpus, num_gpus=worker.gpus)(Worker)
        self._starting: dict[Any, Any] = {}
        """Workers that are opening the engine, by the reference of their result."""
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        """Workers and their tasks, by the reference of the outcome."""

    def run(
        self, tasks: list[Task], *, on_start: Callable[[Task], None], is_stopped: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Yield outcomes as tasks finish; a task whose worker dies goes to another worker.

        `on_start` gets each task before a worker does.
        Raises EngineError if no worker can open the engine, UsageError if no node has room for a worker.
        """
        waiting, deaths = deque(tasks), Counter[Task]()
        while (waiting or self._busy) and not is_stopped():
            self._start_workers(len(waiting) + len(self._busy))
            while waiting and self._idle:
                actor, task = self._idle.pop(), waiting.popleft()
                on_start(task)
                self._busy[actor.restore.remote(task)] = (actor, task)
            references = [*self._starting, *self._busy]
            ready, _ = self._ray.wait(references, num_returns=1, timeout=_POLL_S) if references else ([], [])
            for reference in ready:
                if reference in self._starting:
                    self._accept_started(reference)
                    continue
                outcome, task = self._take_outcome(reference)
                if outcome:
                    yield outcome
                    continue
                deaths[task] += 1
                if deaths[task] < _MAX_TRIES:
                    waiting.appendleft(task)
                else:
                    yield Outcome(task=task, error=f"its worker died {_MAX_TRIES} times", exit_code=1)

    def _start_workers(self, wanted: int) -> None:
        """Start workers up to the number of open tasks and the room on the nodes."""
        room = sum(self._resources.count_on(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if not room:
            raise UsageError(
                f"no node has {self._resources.cpus} CPUs and {self._resources.gpus} GPUs",
                hint="give fewer --cpus-per-worker",
            )
        running = len(self._starting) + len(self._idle) + len(self._busy)
        for _ in range(min(room, wanted) - running):
            actor = self._actor.remote()
            self._starting[actor.load.remote(self._package)] = actor

    def _accept_started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            reason = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return  # its node is gone
        if reason:  # the same would happen on every node
            raise EngineError(f"a worker could not load {self._name} ({reason})", hint="try it without --ray")
        self._idle.append(actor)

    def _take_outcome(self, reference: Any) -> tuple[Outcome | None, Task]:
        """Return the outcome and the task of a finished reference; the outcome is None if the worker has died."""
        actor, task = self._busy.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError):
            return None, task
        except self._ray.exceptions.RayTaskError as error:  # a bug, which the next file may not meet
            outcome = Outcome(task=task, error=f"this is a bug ({str(error).strip().splitlines()[-1]})", exit_code=1)
        self._idle.append(actor)
        return outcome, task

    def close(self) -> None:
        """Leave the cluster; workers end, and unfinished outputs can be resumed."""
        self._ray.shutdown()
