"""Commands that the GPU check starts in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON: tuple[str, ...] = (sys.executable, "-u", "-X", "faulthandler")
"""Python for every child: unbuffered, so that a log is complete when the process dies, and with a traceback for
signals. Tests put a script with stand-ins after it."""


def read_output(command: Sequence[str], *, limit_s: float) -> tuple[int | None, str]:
    """Run a command and return its exit code and its output, standard error included.

    The code is negative for a signal, and None if the command does not exist or took longer than `limit_s` seconds;
    the output is then the reason.
    """
    try:
        done = subprocess.run(  # noqa: S603 - commands of this package
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {limit_s:g} s"
    except OSError as error:
        return None, str(error.strerror)
    return done.returncode, done.stdout.decode(errors="replace").strip()


def last_line(text: str) -> str:
    """Return the last line of an output, which usually is the error; a note if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
