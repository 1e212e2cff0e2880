"""A command line in a process of its own that cannot end by itself, however fast the machine is.

It is held before a frame, until it is told to stop. As a script: the number of that frame, then the module and its
arguments; a line on standard output gives the number of frames in the output so far.
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
"""Until it ends by itself after all: no process outlives its test for long."""


class Held:
    """`python -m MODULE ARGUMENTS`, which never writes more than `at` frames into a video unless it is stopped."""

    def __init__(self, module: str, arguments: Sequence[object], *, at: int) -> None:
        command = [sys.executable, "-m", "tests.rig.held", str(at), module, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def wait_for_frame(self, number: int) -> None:
        """Wait until the output has so many frames; fails with what the process said if it ends before."""
        assert self.process.stdout
        if not any(int(line) >= number for line in self.process.stdout):
            _, said = self.process.communicate()
            raise AssertionError(f"ended with {self.process.returncode} before frame {number}: {said}")

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        """Exit code and standard error, once the process has ended."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def kill(self) -> None:
        """Kill it in the middle of its work; fails if it has ended by itself."""
        self.process.kill()
        code, said = self.ended()
        assert code == -signal.SIGKILL, f"ended with {code} before it was killed: {said}"


def _run(at: int, module: str, arguments: list[str]) -> None:
    from runtime.frame import Frame
    from runtime.pipeline import Pipeline
    from runtime.sinks.video import VideoSink

    written, stopped, end = 0, False, time.monotonic() + _LONGEST_S
    resume, write, stop = VideoSink.resume, VideoSink.write, Pipeline.stop

    def told_resume(self: VideoSink, start: Fraction) -> int:
        nonlocal written
        written = resume(self, start)
        print(written, flush=True)
        return written

    def held_write(self: VideoSink, frame: Frame) -> None:
        nonlocal written
        while written >= at and not stopped:
            assert time.monotonic() < end, "nobody has stopped it"
            time.sleep(0.01)
        write(self, frame)
        written += 1
        print(written, flush=True)

    def releasing_stop(self: Pipeline) -> None:
        nonlocal stopped
        stopped = True
        stop(self)

    VideoSink.resume, VideoSink.write, Pipeline.stop = told_resume, held_write, releasing_stop  # type: ignore[method-assign]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
