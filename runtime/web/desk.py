"""Where uploads wait for their turn at the one process that sharpens them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from time import monotonic
from typing import Any

from runtime.errors import DeblurError, EngineError
from runtime.web.settings import Limits
from runtime.web.uploads import suffix_of

_TICK_S = 0.25
"""Between two looks at whether the visitor is still there."""
_START_S = 120.0


class RefusedError(DeblurError):
    """An upload that is not served, and why; never with a path of this machine in it."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of an upload."""

    files: dict[str, bytes]
    """By name: `before.jpg`, `after.jpg`, `restored.png`, `side_by_side.jpg`; or `restored.mp4`, `side_by_side.mp4`."""
    frames: int
    fps: float
    engine_ms: float
    warnings: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an upload is getting on: those before it in the queue, or its frames."""

    ahead: int = 0
    frames: int = 0
    of: int = 0
    fps: float = 0.0


OnStanding = Callable[[Standing], None]
"""Called four times a second; what it raises ends the job."""


class Desk:
    """Serves one upload after another, in the order in which they came, and lets only so many wait.

    Whatever goes wrong in the worker ends that job alone: it is killed, and another one takes its place.
    """

    def __init__(self, engines: list[Path], *, provider: str, limits: Limits) -> None:
        self.limits = limits
        self._command = [sys.executable, "-m", "runtime.web.worker", "--provider", provider]
        self._command += [word for path in engines for word in ("--engine", str(path))]
        self._command += ["--limits", json.dumps(dataclasses.asdict(limits))]
        self._queue: list[object] = []
        self._turn = threading.Condition()
        self._worker = _Worker(self._command)
        self.engines: dict[str, dict[str, Any]] = self._worker.engines()
        """By path: `spec` and `backend`. Raises EngineError if one cannot be opened."""

    def sharpen(
        self, content: bytes, *, engine: str, reference: bytes | None = None, on_standing: OnStanding
    ) -> Answer:
        """Restore a picture or video; raises RefusedError, and what `on_standing` raises. No file outlives the call."""
        given = [content] if reference is None else [content, reference]
        try:
            suffixes = [suffix_of(each, self.limits) for each in given]
        except DeblurError as error:
            raise RefusedError(error.what, hint=error.hint) from error
        with self._my_turn(on_standing), tempfile.TemporaryDirectory(prefix="deblur-web-") as name:
            folder = Path(name)
            uploads = [
                folder / f"{role}{suffix}" for role, suffix in zip(("source", "reference"), suffixes, strict=False)
            ]
            for upload, each in zip(uploads, given, strict=True):
                upload.write_bytes(each)
            job = {"engine": engine, "folder": name, "reference": None} | {each.stem: str(each) for each in uploads}
            done = self._answer(job, on_standing)
            files = {file.name: file.read_bytes() for file in folder.iterdir() if file not in uploads}
        return Answer(files=files, **done)

    @contextmanager
    def _my_turn(self, on_standing: OnStanding) -> Iterator[None]:
        ticket = object()
        with self._turn:
            if len(self._queue) > self.limits.waiting:
                raise RefusedError(f"{self.limits.waiting} uploads wait already", hint="try again in a minute")
            self._queue.append(ticket)
        try:
            while ahead := self._ahead(ticket):
                on_standing(Standing(ahead=ahead))
            yield
        finally:
            with self._turn:
                self._queue.remove(ticket)
                self._turn.notify_all()

    def _ahead(self, ticket: object) -> int:
        """How many are before it, after waiting a moment for that to become none."""
        with self._turn:
            if self._queue[0] is not ticket:
                self._turn.wait(_TICK_S)
            return self._queue.index(ticket)

    def _answer(self, job: dict[str, Any], on_standing: OnStanding) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        try:
            for answer in self._worker.answers(job, seconds=self.limits.job_s):
                if _is_last(answer):
                    break
                on_standing(Standing(**answer))
        finally:
            if not _is_last(answer):
                self._worker.kill()
                self._worker = _Worker(self._command)
        if "refused" in answer:
            raise RefusedError(answer["refused"], hint=answer["hint"])
        done: dict[str, Any] = answer["done"]
        return done

    def close(self) -> None:
        """End the worker; what is under way fails."""
        self._worker.kill()


def _is_last(answer: dict[str, Any]) -> bool:
    return "done" in answer or "refused" in answer


class _Worker:
    """A process of `runtime.web.worker`."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module, and paths from the command line
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[str] = Queue()
        self._ready: dict[str, Any] | None = None
        threading.Thread(target=self._read, daemon=True, name="web-worker").start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def engines(self) -> dict[str, dict[str, Any]]:
        """What it has loaded, once it has."""
        if self._ready is None:
            try:
                line = self._lines.get(timeout=_START_S)
            except Empty:
                line = ""
            self._ready = json.loads(line or '{"refused": "the engines did not load", "hint": "see the log"}')
        if "refused" in self._ready:
            self.kill()
            raise EngineError(self._ready["refused"], hint=self._ready["hint"])
        found: dict[str, dict[str, Any]] = self._ready["engines"]
        return found

    def answers(self, job: dict[str, Any], *, seconds: float) -> Iterator[dict[str, Any]]:
        """How a job is getting on, four times a second, and at last what became of it."""
        self.engines()
        assert self._process.stdin
        with suppress(OSError):  # it has died, which the end of its lines tells
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        end, due = monotonic() + seconds, 0.0
        answer: dict[str, Any] = {}
        while monotonic() < end:
            with suppress(Empty):
                line = self._lines.get(timeout=_TICK_S)
                if not line:
                    raise RefusedError("too much for the process that opens uploads", hint="upload another file")
                answer = json.loads(line)
            if monotonic() > due or _is_last(answer):
                due = monotonic() + _TICK_S
                yield answer
        raise RefusedError(f"not done after {seconds:g} seconds", hint="upload something shorter or smaller")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
