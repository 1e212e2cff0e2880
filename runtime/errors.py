"""Everything that can go wrong with a name, an exit code and one line for the user."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from typing import ClassVar


class DeblurError(Exception):
    """Base of all errors that are not bugs: `WHAT: PATH; WHAT TO DO`, and an exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, path: str | os.PathLike[str] | None = None, *, hint: str) -> None:
        self.what, self.path, self.hint = what, path, hint
        super().__init__(f"{what}: {shown(path)}; {hint}" if path is not None else f"{what}; {hint}")


class UsageError(DeblurError):
    """The command line does not make sense."""

    exit_code = 2


class InputError(DeblurError):
    """The source cannot be read or decoded."""

    exit_code = 3


class EngineError(DeblurError):
    """The model or engine is missing, damaged, of another contract, or not for this machine."""

    exit_code = 4


class UnfitPlanError(EngineError):
    """A plan that runs elsewhere; `rebuild` holds the arguments of python that build it for this machine."""

    def __init__(self, what: str, path: Path, *, rebuild: list[str]) -> None:
        self.rebuild = rebuild
        super().__init__(what, path, hint=f"build it here with --rebuild, or python {shlex.join(rebuild)}")


class SourceLostError(DeblurError):
    """A live source cannot be opened or has ended."""

    exit_code = 5


class OutputError(DeblurError):
    """The output cannot be written."""

    exit_code = 6


class OutOfMemoryError(DeblurError):
    """Host or device memory does not suffice."""

    exit_code = 7


class NumbersError(DeblurError):
    """NaN, or numbers that cannot be right, where that is not to be passed over."""

    exit_code = 8


_CV_NO_MEMORY = -4


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it is or comes from a want of memory, which NumPy, threads, OpenCV and FFmpeg each tell differently."""
    while error is not None:
        from_ffmpeg = type(error).__module__ == "av.error"
        if (
            isinstance(error, MemoryError)
            or getattr(error, "errno", None) == errno.ENOMEM
            or (from_ffmpeg and getattr(error, "errno", None) == errno.EAGAIN)  # of a thread that it could not start
            or "can't start new thread" in str(error)
            or getattr(error, "code", None) == _CV_NO_MEMORY
        ):
            return True
        error = error.__cause__
    return False


def shown(path: str | os.PathLike[str]) -> str:
    """A path on one line: quoted where it holds line breaks or other unprintable characters."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
