"""Errors of training: each has an exit code, and one line for the user (`runtime.errors`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import EngineError, InputError, NumbersError, UsageError


class DataError(InputError):
    """Images cannot be trained on. The text may have several lines; the first one is a summary."""


class CheckpointError(EngineError):
    """A checkpoint is missing, damaged, or of another network."""


class DivergedError(NumbersError):
    """Losses or weights are NaN or infinite."""


class InterruptedRunError(Exception):
    """A signal stopped the run after its state was saved; `exit_code` is 128 + the number of the signal."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def settings_checked(hint: str = "correct the setting, see docs/training.md") -> Iterator[None]:
    """Raise a ValueError of the block, which states a setting that cannot be used, as UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), hint=hint) from error
