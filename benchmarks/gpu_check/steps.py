"""One step of the GPU check, its result, and what the function of a step tells: facts and reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "not run"]
Weight = Literal["required", "optional", "information"]
"""How a step counts: the verdict needs a `required` one; an `optional` one may be missing but must not fail; one for
`information` never decides."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A function that runs in a process of its own, with a time limit and conditions."""

    name: str
    """Name for people, such as `edge-s_fp16, one size: build the plan`."""
    function: str
    """Function in this package, as `module:function`; it takes a `Report` and `arguments`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments that JSON can hold."""
    limit_s: float = 300.0
    """Seconds after which the process is ended."""
    needs: tuple[str, ...] = ()
    """Names of what the machine must have: keys of `missing` in the facts of the first step."""
    after: str = ""
    """Name of the step that must have passed before."""
    weight: Weight = "required"

    @property
    def slug(self) -> str:
        """Name of the step for files."""
        plain = "".join(character if character.isalnum() or character in "_-" else " " for character in self.name)
        return "_".join(plain.lower().split())


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Outcome of one step."""

    name: str
    status: Status
    reason: str = ""
    """Why it failed, or what was missing; empty if it passed."""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    weight: Weight = "required"
    log: str = ""
    """File name of the output, in the folder of logs; empty if the step did not run."""


class CheckError(Exception):
    """A step found something wrong; the text is one line that says what."""


class NotRunError(Exception):
    """A step finds that it cannot run here; the text says what is missing."""


class Report:
    """Facts of a running step, in a file that is complete at any moment: the process may die at the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Any] = {}

    def add(self, **facts: Any) -> None:
        """Store facts, which are values that JSON can hold, and print them into the log."""
        for name, value in facts.items():
            print(f"{name}: {value}", flush=True)
        self._facts |= facts
        self._write(status=None, reason="")

    def end(self, status: Status, reason: str = "") -> None:
        """Store the outcome."""
        self._write(status=status, reason=reason)

    def _write(self, *, status: Status | None, reason: str) -> None:
        content = {"status": status, "reason": reason, "facts": self._facts}
        replace_text(self._path, json.dumps(content, indent=1, default=str))


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds either the old content or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
