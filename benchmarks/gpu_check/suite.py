"""Step that runs the tests which need a GPU."""

from __future__ import annotations

import os
import subprocess

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.steps import CheckError, Report


def run_tests(report: Report) -> None:
    """Run `pytest -m gpu`; the log holds its output."""
    command = [*processes.PYTHON, "-m", "pytest", "-q", "-m", "gpu", "tests/runtime/test_gpu.py"]
    environment = os.environ | {"DEBLUR_REQUIRE_GPU": "1"}
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, cwd=processes.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode(errors="replace")
    print(text)
    report.add(note=processes.last_line(text))
    if done.returncode:
        raise CheckError(processes.last_line(text))
