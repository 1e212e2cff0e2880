"""Queue of uploads for the one worker process that restores them."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import DeblurError
from runtime.web.messages import Job, JobProgress, JobResult, Message, RefusedError, is_final
from runtime.web.settings import Limits
from runtime.web.uploads import detect_suffix
from runtime.web.worker_client import TICK_S, WorkerClient

ProgressCallback = Callable[[JobProgress], None]
"""Called about four times a second; an exception that it raises ends the job."""


class JobQueue:
    """Restores one upload after another in the order of their arrival; a limited number of uploads may wait.

    A failure in the worker ends its job only: the worker is killed and replaced. It is also replaced after a job that
    leaves it with little memory.
    """

    def __init__(self, engines: list[Path], *, provider: str, limits: Limits) -> None:
        self.limits = limits
        self._command = [sys.executable, "-m", "runtime.web.worker", "--provider", provider]
        self._command += [word for path in engines for word in ("--engine", str(path))]
        self._command += ["--limits", json.dumps(dataclasses.asdict(limits))]
        self._queue: list[object] = []
        self._changed = threading.Condition()
        self._worker = WorkerClient(self._command)
        self.engines: dict[str, dict[str, Any]] = self._worker.wait_for_engines()
        """`spec` and `backend` of each engine by path. Raises EngineError if one cannot be opened."""

    def restore(
        self, content: bytes, *, engine: str, reference: bytes | None = None, on_progress: ProgressCallback
    ) -> JobResult:
        """Restore an image or video and return its files; no file stays on the disk.

        `engine` is a key of `engines`; `reference` is the sharp image or video to compare the result with. Raises
        RefusedError, and what `on_progress` raises.
        """
        contents = [content] if reference is None else [content, reference]
        try:
            suffixes = [detect_suffix(upload, self.limits) for upload in contents]
        except DeblurError as error:
            raise RefusedError(error.what, hint=error.hint) from error
        with self._wait_for_turn(on_progress), tempfile.TemporaryDirectory(prefix="deblur-web-") as name:
            folder = Path(name)
            paths = [
                folder / f"{role}{suffix}" for role, suffix in zip(("source", "reference"), suffixes, strict=False)
            ]
            for path, upload in zip(paths, contents, strict=True):
                path.write_bytes(upload)
            reference_path = str(paths[1]) if reference is not None else None
            job = Job(engine=engine, source=str(paths[0]), reference=reference_path, folder=name)
            facts = self._run(job, on_progress)
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path not in paths}
        return JobResult(files=files, **facts)

    @contextmanager
    def _wait_for_turn(self, on_progress: ProgressCallback) -> Iterator[None]:
        ticket = object()
        with self._changed:
            if len(self._queue) > self.limits.queue_length:
                raise RefusedError(
                    f"{self.limits.queue_length} uploads are already waiting", hint="try again in a minute"
                )
            self._queue.append(ticket)
        try:
            while jobs_ahead := self._count_jobs_ahead(ticket):
                on_progress(JobProgress(jobs_ahead=jobs_ahead))
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _count_jobs_ahead(self, ticket: object) -> int:
        """Return the number of jobs before a ticket; waits up to `TICK_S` seconds for a change if there are any."""
        with self._changed:
            if self._queue[0] is not ticket:
                self._changed.wait(TICK_S)
            return self._queue.index(ticket)

    def _run(self, job: Job, on_progress: ProgressCallback) -> dict[str, Any]:
        """Run a job in the worker and return the fields of its result, without the files."""
        message: Message = {}
        try:
            for message in self._worker.run(job, timeout_s=self.limits.job_s):
                if is_final(message):
                    break
                on_progress(JobProgress(**message))
        finally:
            if not is_final(message) or self._has_little_memory(message):
                self._worker.kill()
                self._worker = WorkerClient(self._command)
        if "refused" in message:
            raise RefusedError(message["refused"], hint=message["hint"])
        facts: dict[str, Any] = message["result"]
        return facts

    def _has_little_memory(self, final_message: Message) -> bool:
        """Whether the worker may have too little memory left for the next job."""
        is_above_limit = self._worker.memory_bytes() > self.limits.idle_memory_gib * 2**30
        return is_above_limit or final_message.get("out_of_memory", False)

    def close(self) -> None:
        """Kill the worker; a running job fails."""
        self._worker.kill()
