"""Processor time and wall time of commands that run as one job, each writing into the next."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO

Command = Sequence[str]
_LIMIT_S = 3600.0
"""Seconds after which a job is ended."""


class JobError(RuntimeError):
    """A job of which a process failed; the text is the reason in one line."""


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """Cost of a job from the start of its first process to the end of its last."""

    wall_s: float
    cpu_s: float
    """Processor time of all its processes, user and system."""
    messages: str
    """Text that its processes wrote to standard error, one after the other."""


def run_job(
    commands: Sequence[Command], *, environment: Mapping[str, str] | None = None, limit_s: float = _LIMIT_S
) -> JobCost:
    """Run commands at the same time, the standard output of each connected to the standard input of the next.

    `environment`: variables that are added to those of this process. Raises JobError if a command does not exist, fails
    or takes longer than `limit_s` seconds.
    """
    variables = {**os.environ, **(environment or {})}
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        stack.callback(_end, processes)
        began = time.perf_counter()
        for command, error in zip(commands, errors, strict=True):
            processes.append(_start(command, processes, variables, error, is_last=len(processes) == len(commands) - 1))
        timer = Timer(limit_s, _kill, [processes])
        timer.start()
        stack.callback(timer.cancel)
        cpu_s = sum(_wait(process) for process in processes)
        wall_s = time.perf_counter() - began
        messages = [_read(error) for error in errors]
    failures = [
        f"{Path(command[0]).name} {_explain(process.returncode, text)}"
        for command, process, text in zip(commands, processes, messages, strict=True)
        if process.returncode
    ]
    if failures:
        raise JobError("; ".join(failures))
    return JobCost(wall_s=wall_s, cpu_s=cpu_s, messages="".join(messages))


def _start(
    command: Command,
    before: Sequence[subprocess.Popen[bytes]],
    variables: Mapping[str, str],
    error: IO[bytes],
    *,
    is_last: bool,
) -> subprocess.Popen[bytes]:
    """Start a command that reads the output of the last process in `before`."""
    source = before[-1].stdout if before else None
    try:
        return subprocess.Popen(  # noqa: S603 - commands of this package
            command,
            stdin=source or subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if is_last else subprocess.PIPE,
            stderr=error,
            env=variables,
        )
    except OSError as reason:
        raise JobError(f"{Path(command[0]).name} did not start ({reason.strerror})") from reason
    finally:
        if source:
            source.close()  # so that the writer notices when its reader ends


def _wait(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process and return its processor time in seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    _kill(processes)
    for process in processes:
        process.wait()


def _read(error: IO[bytes]) -> str:
    error.seek(0)
    return error.read().decode(errors="replace")


def _explain(code: int, messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    ending = f"was ended by signal {-code}" if code < 0 else f"failed with code {code}"
    return f"{ending}: {lines[-1]}" if lines else ending
