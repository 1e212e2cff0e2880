"""What an exception means to the shell, and to the person before it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from train.checkpoint import CheckpointError
from train.data.index import DataError
from train.interrupt import InterruptedRunError
from train.training.loop import DivergedError

EXPECTED = (ValueError, OSError, MemoryError, RuntimeError, DivergedError, InterruptedRunError, KeyboardInterrupt)
"""What `told` has a code for; of RuntimeError only some."""
_CODES: dict[type[BaseException], int] = {
    ValueError: 2,
    DataError: 3,
    CheckpointError: 4,
    OSError: 6,
    MemoryError: 7,
    torch.OutOfMemoryError: 7,
    DivergedError: 8,
}


def to_its_end(work: Callable[[], None]) -> int:
    """Do what a command line asks for; what is expected to fail gets one line and its exit code."""
    try:
        work()
    except EXPECTED as error:
        code, line = told(error)
        print(line, file=sys.stderr)
        return code
    return 0


def told(error: BaseException) -> tuple[int, str]:
    """The exit code and the line for standard error; raises the error again if it is a bug."""
    if isinstance(error, InterruptedRunError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped before the first step"
    message = str(error)
    if message.startswith("Caught "):  # by torch, in a process that reads pictures, with its whole traceback
        message = message.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in message:
        return 7, "error: not enough memory; give a smaller --set batch=N or data.size_px"
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind], f"error: {message}"
    raise error
