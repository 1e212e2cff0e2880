"""Runs of the command line in which one call to the disk fails; see failing_calls.c.

As a script, it reads jobs as JSON from standard input and writes their outcomes as JSON to standard output. Each job
runs in a fork of this process, which has imported the runtime and preloaded the library.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("failing_calls.c")
_HANG_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command line whose call number `number` to files below `folder` fails; 0 only counts the calls."""

    arguments: list[str]
    folder: str
    number: int
    full_disk: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Exit code and standard error of a job, and the number of its calls to the disk; -1 if it was killed."""

    code: int
    stderr: str
    calls: int


def build_library(folder: Path) -> Path:
    """Compile failing_calls.c and return the library; skips the test if there is no compiler."""
    if not shutil.which("gcc") and not os.environ.get("CI"):
        pytest.skip("no gcc, which compiles the library that lets calls fail")
    library = folder / "failing_calls.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)  # noqa: S607
    return library


def run_all(library: Path, jobs: list[Job], *, root: Path) -> list[Outcome]:
    """Run the jobs one after the other and return their outcomes."""
    out = subprocess.run(
        [sys.executable, "-m", "tests.rig.failing", library],
        input=json.dumps([asdict(job) for job in jobs]),
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return [Outcome(**outcome) for outcome in json.loads(out.stdout)]


def _run(library: ctypes.CDLL, job: Job) -> Outcome:
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        from runtime.video import main

        os.dup2(write_end, 2)
        error = errno.ENOSPC if job.full_disk else errno.EIO
        library.plan_failure(job.folder.encode(), ctypes.c_long(job.number), error, int(job.full_disk))
        code = main(job.arguments)
        print(f"\n{library.calls_made()}", file=sys.stderr, flush=True)
        os._exit(code)
    os.close(write_end)
    end = time.monotonic() + _HANG_S
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with os.fdopen(read_end) as pipe:
        stderr, _, calls = pipe.read().rstrip().rpartition("\n")
    code = os.waitstatus_to_exitcode(status[1])
    return Outcome(code=code, stderr=stderr, calls=int(calls) if code >= 0 else -1)


if __name__ == "__main__":
    import runtime.video  # noqa: F401 - imported once for all forks

    preloaded = ctypes.CDLL(sys.argv[1])
    print(json.dumps([asdict(_run(preloaded, Job(**job))) for job in json.load(sys.stdin)]))
