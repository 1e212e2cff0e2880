"""The worker process as the job queue sees it: start it, give it jobs, read its messages, kill it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from time import monotonic
from typing import Any

from runtime.errors import EngineError
from runtime.web.messages import Job, Message, RefusedError, is_final

TICK_S = 0.25
"""Seconds between two progress messages; also how often it is checked whether the visitor is still there."""
_START_S = 120.0
"""Seconds to wait for the engines to load."""


class WorkerClient:
    """A running process of `runtime.web.worker`."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module, and paths from the command line
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[str] = Queue()
        self._first_message: Message | None = None
        threading.Thread(target=self._read_lines, daemon=True, name="web-worker").start()

    def _read_lines(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait_for_engines(self) -> dict[str, dict[str, Any]]:
        """Return `spec` and `backend` of each engine by path, once all are loaded; raises EngineError."""
        if self._first_message is None:
            try:
                line = self._lines.get(timeout=_START_S)
            except Empty:
                line = ""
            self._first_message = json.loads(line or '{"refused": "the engines did not load", "hint": "see the log"}')
        if "refused" in self._first_message:
            self.kill()
            raise EngineError(self._first_message["refused"], hint=self._first_message["hint"])
        engines: dict[str, dict[str, Any]] = self._first_message["engines"]
        return engines

    def run(self, job: Job, *, timeout_s: float) -> Iterator[Message]:
        """Run a job and yield its progress every `TICK_S` seconds, and its final message at the end.

        The last message is repeated while there is no newer one. Raises RefusedError if the process dies, or if the job
        is not finished after `timeout_s` seconds.
        """
        self.wait_for_engines()
        assert self._process.stdin
        with suppress(OSError):  # the process has died; the end of its output is noticed below
            self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
            self._process.stdin.flush()
        end, next_message_at = monotonic() + timeout_s, 0.0
        message: Message = {}
        while monotonic() < end:
            with suppress(Empty):
                line = self._lines.get(timeout=TICK_S)
                if not line:
                    raise RefusedError(
                        "this file was too much for the process that restores it", hint="upload another file"
                    )
                message = json.loads(line)
            if monotonic() > next_message_at or is_final(message):
                next_message_at = monotonic() + TICK_S
                yield message
        raise RefusedError(f"not finished after {timeout_s:g} seconds", hint="upload a shorter or smaller file")

    def memory_bytes(self) -> int:
        """Return the memory of the process as `RLIMIT_DATA` counts it; 0 if it is dead, or without /proc."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"^VmData:\s+(\d+) kB$", status, re.MULTILINE)
        return 1024 * int(found[1]) if found else 0

    def kill(self) -> None:
        """Kill the process; safe to call twice."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
