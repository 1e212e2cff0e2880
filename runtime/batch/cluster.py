"""Workers on the nodes of a Ray cluster that restore the files of a batch."""

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
from runtime.batch.work import Outcome, restore_file
from runtime.engines import Engine, Provider, open_engine
from runtime.errors import DeblurError, EngineError, UsageError
from runtime.sidecar import sidecar_path

_MAX_ATTEMPTS = 3
"""Number of workers that may die with a file before the file itself is taken for the cause."""
_CONNECT_TIMEOUT_S = 5.0
_POLL_S = 1.0
"""Seconds after which the nodes of the cluster, and the stop signal, are looked at again."""


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """CPUs and GPUs that a worker takes on its node."""

    cpus: int
    gpus: int = 0

    def count_workers(self, node_resources: dict[str, float]) -> int:
        """Return the number of workers that a node with these resources has room for."""
        count = int(node_resources.get("CPU", 0) // self.cpus)
        return min(count, int(node_resources.get("GPU", 0) // self.gpus)) if self.gpus else count


@dataclass(frozen=True, kw_only=True)
class EnginePackage:
    """Content of an engine's files, to be sent to the nodes, and the options to open it with."""

    name: str
    files: dict[str, bytes] = field(repr=False)
    """Content by file name: the engine, and its sidecar if it has one."""
    provider: Provider
    threads: int

    @classmethod
    def from_file(cls, path: Path, *, provider: Provider, threads: int) -> EnginePackage:
        """Read an engine and its sidecar."""
        files = {file.name: file.read_bytes() for file in (path, sidecar_path(path)) if file.exists()}
        return cls(name=path.name, files=files, provider=provider, threads=threads)

    def open_in(self, folder: Path) -> Engine:
        """Write the files into a folder and open the engine; raises EngineError."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return open_engine(folder / self.name, provider=self.provider, threads=self.threads, mode="throughput")


class Worker:
    """A Ray actor that loads the engine once and restores one file after another."""

    def load(self, package: EnginePackage) -> str:
        """Load the engine; return an empty text, or the reason why it cannot be loaded.

        The reason is a text because Ray cannot send exceptions of this package to the driver.
        """
        self._name = f"{os.uname().nodename}:{os.getpid()}"
        try:
            with tempfile.TemporaryDirectory(prefix="deblur-engine-") as folder:
                self._engine = package.open_in(Path(folder))
        except DeblurError as error:
            return f"{error.what}; {error.hint}"
        return ""

    def restore(self, task: Task) -> Outcome:
        """Restore a file."""
        return dataclasses.replace(restore_file(task, self._engine), worker=self._name)


class Cluster:
    """A Ray cluster, started on this machine (`local`) or at an address; raises UsageError if it cannot be reached."""

    def __init__(self, address: str, *, package: EnginePackage, resources: WorkerResources) -> None:
        try:
            import ray  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise UsageError("Ray is not installed", hint="pip install 'deblur-toolkit[fleet]'") from error
        self._ray: Any = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        arguments = {"include_dashboard": False} if address == "local" else {"address": address}
        try:
            if match := re.fullmatch(r"\[?([^/\]]+)\]?:(\d+)", address):  # Ray waits minutes for an absent address
                socket.create_connection((match[1], int(match[2])), _CONNECT_TIMEOUT_S).close()
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"no Ray cluster ({reason})", address, hint="ray start --head, or --ray local") from error
        self._resources, self._engine_name = resources, package.name
        self._package = ray.put(package)
        self._worker_class: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(Worker)
        self._starting: dict[Any, Any] = {}
        """Workers that load the engine, by the Ray reference to the result of `load`."""
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        """Worker and task by the Ray reference to the outcome."""

    def run(self, tasks: list[Task], *, is_stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Yield outcomes in the order in which they arrive, until all tasks are done or `is_stopped` returns True.

        A task whose worker died is given to another worker. Raises EngineError if a worker cannot load the engine, and
        UsageError if no node has room for a worker.
        """
        waiting, deaths = deque(tasks), Counter[Task]()
        while (waiting or self._busy) and not is_stopped():
            self._start_workers(len(waiting) + len(self._busy))
            while waiting and self._idle:
                worker, task = self._idle.pop(), waiting.popleft()
                self._busy[worker.restore.remote(task)] = (worker, task)
            references = [*self._starting, *self._busy]
            ready, _ = self._ray.wait(references, num_returns=1, timeout=_POLL_S) if references else ([], [])
            for reference in ready:
                if reference in self._starting:
                    self._finish_start(reference)
                    continue
                outcome, task = self._finish_task(reference)
                if outcome:
                    yield outcome
                    continue
                deaths[task] += 1
                if deaths[task] < _MAX_ATTEMPTS:
                    waiting.appendleft(task)
                else:
                    yield Outcome(task=task, error=f"its worker died {_MAX_ATTEMPTS} times", exit_code=1)

    def _start_workers(self, task_count: int) -> None:
        """Start as many workers as the nodes have room for, but not more than there are tasks."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(self._resources.count_workers(node) for node in nodes)
        if not room:
            raise UsageError(
                f"no node has {self._resources.cpus} CPUs and {self._resources.gpus} GPUs",
                hint="give fewer --cpus-per-worker",
            )
        existing = len(self._starting) + len(self._idle) + len(self._busy)
        for _ in range(min(room, task_count) - existing):
            worker = self._worker_class.remote()
            self._starting[worker.load.remote(self._package)] = worker

    def _finish_start(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            reason = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return  # the node of the worker has gone
        if reason:  # the engine would fail on every other node, too
            raise EngineError(f"a worker could not load {self._engine_name} ({reason})", hint="try it without --ray")
        self._idle.append(worker)

    def _finish_task(self, reference: Any) -> tuple[Outcome | None, Task]:
        """Return the outcome of a task; None instead of an outcome if its worker has died."""
        worker, task = self._busy.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError):
            return None, task
        except self._ray.exceptions.RayTaskError as error:  # a bug; the next file may not meet it
            outcome = Outcome(task=task, error=f"this is a bug ({str(error).strip().splitlines()[-1]})", exit_code=1)
        self._idle.append(worker)
        return outcome, task

    def close(self) -> None:
        """Leave the cluster; its workers end, and unfinished videos can be resumed."""
        self._ray.shutdown()
