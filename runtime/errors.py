"""Errors that are not bugs: a class and an exit code for each kind, and one line for the user."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from typing import Any, ClassVar

from runtime.redaction import redact, redact_address


class DeblurError(Exception):
    """Base class; its text is `WHAT: PATH; WHAT TO DO`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, path: str | os.PathLike[str] | None = None, *, hint: str) -> None:
        self.what, self.path, self.hint = redact(what), path, redact(hint)
        place = f": {printable(path)}" if path is not None else ""
        super().__init__(f"{self.what}{place}; {self.hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickle for every subclass, whatever its arguments are: processes send errors to each other."""
        return _unpickle, (type(self), self.args, self.__dict__)


class UsageError(DeblurError):
    """Options are wrong or do not fit together."""

    exit_code = 2


class InputError(DeblurError):
    """A source cannot be read or decoded."""

    exit_code = 3


class EngineError(DeblurError):
    """A model or engine is missing, damaged, against the contract, or not for this machine."""

    exit_code = 4


class UnfitPlanError(EngineError):
    """A plan does not fit this machine; `rebuild` holds the arguments of `python` that build one that does."""

    def __init__(self, what: str, path: Path, *, rebuild: list[str]) -> None:
        self.rebuild = rebuild
        super().__init__(what, path, hint=f"build it here with the option rebuild, or python {shlex.join(rebuild)}")


class SourceLostError(DeblurError):
    """A live source cannot be opened, or has ended."""

    exit_code = 5


class OutputError(DeblurError):
    """An output cannot be written."""

    exit_code = 6


class OutOfMemoryError(DeblurError):
    """Host or device memory is exhausted."""

    exit_code = 7


class NumbersError(DeblurError):
    """NaN or impossible values where they must not be replaced (`--strict`, training)."""

    exit_code = 8


MAX_SECONDS = 10**7
"""Longest time that an option may ask for, in seconds: four months. The system calls do not take every number."""


def require_in_range(what: str, value: float | None, low: float, high: float) -> None:
    """Raise UsageError unless a number is None or from `low` to `high`; NaN is not."""
    if value is not None and not low <= value <= high:
        raise UsageError(f"{what}: {value:g}", hint=f"give a number from {low:g} to {high:.10g}")


def _unpickle(kind: type[DeblurError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> DeblurError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


_CV_OUT_OF_MEMORY = -4
"""OpenCV's `Error::StsNoMem`."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception or one of its causes is NumPy, OpenCV, FFmpeg or a thread running out of memory.

    EAGAIN of FFmpeg is a thread that could not be started, or a damaged file. It is taken for memory unless it is a
    cause: who made another error of it has looked.
    """
    if type(error).__module__ == "av.error" and getattr(error, "errno", None) == errno.EAGAIN:
        return True
    while error is not None:
        if (
            isinstance(error, MemoryError)
            or getattr(error, "errno", None) == errno.ENOMEM
            or "can't start new thread" in str(error)
            or getattr(error, "code", None) == _CV_OUT_OF_MEMORY
        ):
            return True
        error = error.__cause__
    return False


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path or address on one line without secrets, quoted if it holds unprintable characters."""
    text = redact_address(os.fspath(path))
    return text if text.isprintable() else repr(text)
