"""Runs of the command line in which one call to the disk fails: see failing_calls.c.

As a script: jobs as JSON on standard input, one after the other in forks of a process that has imported the
runtime already, under the preloaded library; what came of them as JSON on standard output.
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
    """A command line whose `number`th call below `folder` fails; 0 only counts them."""

    arguments: list[str]
    folder: str
    number: int
    full_disk: bool = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    code: int
    said: str
    calls: int


def library(folder: Path) -> Path:
    """Compile it; skips where there is no compiler."""
    if not shutil.which("gcc") and not os.environ.get("CI"):
        pytest.skip("no gcc to make calls fail with")
    made = folder / "failing_calls.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", made, _SOURCE, "-ldl"], check=True)  # noqa: S607
    return made


def run_all(made: Path, jobs: list[Job], *, root: Path) -> list[Ending]:
    out = subprocess.run(
        [sys.executable, "-m", "tests.rig.failing", made],
        input=json.dumps([asdict(job) for job in jobs]),
        env={**os.environ, "LD_PRELOAD": str(made)},
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return [Ending(**ending) for ending in json.loads(out.stdout)]


def _run(made: ctypes.CDLL, job: Job) -> Ending:
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        from runtime.video import main

        os.dup2(write_end, 2)
        error = errno.ENOSPC if job.full_disk else errno.EIO
        made.plan_failure(job.folder.encode(), ctypes.c_long(job.number), error, int(job.full_disk))
        code = main(job.arguments)
        print(f"\n{made.calls_made()}", file=sys.stderr, flush=True)
        os._exit(code)
    os.close(write_end)
    end = time.monotonic() + _HANG_S
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with os.fdopen(read_end) as pipe:
        said, _, calls = pipe.read().rstrip().rpartition("\n")
    code = os.waitstatus_to_exitcode(status[1])
    return Ending(code=code, said=said, calls=int(calls) if code >= 0 else -1)


if __name__ == "__main__":
    import runtime.video  # noqa: F401 - once, for all forks

    library_ = ctypes.CDLL(sys.argv[1])
    print(json.dumps([asdict(_run(library_, Job(**job))) for job in json.load(sys.stdin)]))
