"""A command line in a child process that waits before a certain frame, so that it cannot end by itself on any machine.

It continues when a signal stops its pipeline. As a script it takes the number of frames, the module and its arguments,
and prints the number of frames in the output after each frame, one on a line.
"""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction

from tests.conftest import ROOT

_LONGEST_S = 600.0
"""Seconds after which a waiting process fails, so that none outlives its test for long."""


class Held:
    """A process `python -m MODULE ARGUMENTS` that writes at most `at` frames into a video, unless a signal stops it."""

    def __init__(self, module: str, arguments: Sequence[object], *, at: int) -> None:
        command = [sys.executable, "-m", "tests.rig.held", str(at), module, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def wait_for_frame(self, number: int) -> None:
        """Wait until the output has `number` frames; if the process ends before, fail with its standard error."""
        assert self.process.stdout
        if not any(int(line) >= number for line in self.process.stdout):
            _, stderr = self.process.communicate()
            raise AssertionError(f"ended with {self.process.returncode} before frame {number}: {stderr}")

    def wait_for_end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait until the process has ended and return its exit code and standard error."""
        _, stderr = self.process.communicate(timeout=seconds)
        return self.process.returncode, stderr

    def kill(self) -> None:
        """Kill the process while it runs; fail if it has already ended."""
        self.process.kill()
        code, stderr = self.wait_for_end()
        assert code == -signal.SIGKILL, f"ended with {code} before it was killed: {stderr}"


def _run(at: int, module: str, arguments: list[str]) -> None:
    from runtime.frame import Frame
    from runtime.pipeline import Pipeline
    from runtime.sinks.video import VideoSink

    written, stopped, end = 0, False, time.monotonic() + _LONGEST_S
    resume, write, stop = VideoSink.resume, VideoSink.write, Pipeline.stop

    def reporting_resume(self: VideoSink, start: Fraction) -> int:
        nonlocal written
        written = resume(self, start)
        print(written, flush=True)
        return written

    def held_write(self: VideoSink, frame: Frame) -> None:
        nonlocal written
        while written >= at and not stopped:
            assert time.monotonic() < end, "no signal stopped it"
            time.sleep(0.01)
        write(self, frame)
        written += 1
        print(written, flush=True)

    def releasing_stop(self: Pipeline) -> None:
        nonlocal stopped
        stopped = True
        stop(self)

    VideoSink.resume, VideoSink.write, Pipeline.stop = reporting_resume, held_write, releasing_stop  # type: ignore[method-assign]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
