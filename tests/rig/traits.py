"""Traits of files: what a table of docs/files.md says about each, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """A file before and after a run, and what the run printed."""

    source: Path
    out: Path
    lines: list[str]
    """Lines on standard error."""

    def warns(self, word: str) -> bool:
        """Return whether a warning has a word."""
        return any(line.startswith("warning: ") and word in line for line in self.lines)


@dataclass(frozen=True)
class Trait:
    """A row of a table."""

    name: str
    source: str
    """Name of the file that has the trait; the rig makes it."""
    measure: Callable[[Result], str]
    """Returns in a few words what became of the trait."""
    word: str = "\0"
    """Word of the warning about the trait."""

    def describe(self, result: Result) -> str:
        """Return the cell of the table for a result."""
        return self.measure(result) + ("; a warning says so" if result.warns(self.word) else "")


def kept(is_kept: bool, otherwise: str = "lost") -> str:
    """Return `kept`, or another word."""
    return "kept" if is_kept else otherwise
