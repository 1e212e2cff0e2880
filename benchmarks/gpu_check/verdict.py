"""Verdict of the GPU check: one word with a reason, as a page for people, as JSON, and as an archive to send."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import time

from benchmarks.gpu_check.page import format_page, shorten
from benchmarks.gpu_check.steps import Step, StepResult, replace_text

ARCHIVE = "gpu-check.tar.gz"
PAGE, DATA = "verdict.md", "verdict.json"
SCHEMA = 1
"""Version of the fields of verdict.json."""
_NAMES_IN_VERDICT = 3
_LOG_SUFFIXES = (".json", ".log", ".txt")


@dataclass
class Verdict:
    """Results so far; every new one is written to the folder `out` at once."""

    out: Path
    results: dict[str, StepResult] = field(default_factory=dict)
    total: int | None = None
    """Number of all steps; None until it is known."""
    began_s: float = field(default_factory=time)
    """Time of the start, in seconds since 1970."""
    running: str = ""
    """Name of the step that runs now, or at which the check was ended."""
    is_finished: bool = False

    @property
    def headline(self) -> str:
        """First line of the page without `# `: PASS, FAIL, NOT RUN or NOT FINISHED, and why."""
        failures = [
            result for result in self.results.values() if result.status == "failed" and result.weight != "information"
        ]
        missing = [
            result.reason
            for result in self.results.values()
            if result.status == "not run" and result.weight == "required"
        ]
        failed = f"FAIL: {_join_failures(failures)}"
        if not self.is_finished:
            count = f"{len(self.results)} of {self.total or 'an unknown number of'} steps done"
            running = f", stopped in: {self.running}" if self.running else ""
            return f"NOT FINISHED: {count}{running}" + (f"; {failed}" if failures else "")
        if failures:
            return failed
        return f"NOT RUN: {missing[0]}" if missing else "PASS"

    @property
    def exit_code(self) -> int:
        """Return 0 for PASS, 4 for NOT RUN (the machine lacks something), else 1."""
        word = self.headline.partition(":")[0]
        return {"PASS": 0, "NOT RUN": 4}.get(word, 1)

    def start(self, step: Step) -> None:
        """Note that a step begins: if the machine stops now, the page says where."""
        self.running = step.name
        self.write()

    def add(self, result: StepResult) -> None:
        """Take the result of a step and write page and JSON."""
        self.results[result.name] = result
        self.running = ""
        self.write()

    def skip(self, step: Step, reason: str) -> StepResult:
        """Take a step that does not run, with what is missing."""
        result = StepResult(name=step.name, status="not run", reason=reason, weight=step.weight)
        self.add(result)
        return result

    def write(self) -> None:
        """Write `verdict.md` and `verdict.json`, each complete at any moment."""
        results = list(self.results.values())
        content = {
            "schema": SCHEMA,
            "verdict": self.headline.partition(":")[0],
            "headline": self.headline,
            "began": datetime.fromtimestamp(self.began_s, timezone.utc).isoformat(timespec="seconds"),
            "steps": [asdict(result) for result in results],
        }
        replace_text(self.out / DATA, json.dumps(content, indent=1, default=str) + "\n")
        replace_text(self.out / PAGE, self.render() + "\n")

    def render(self) -> str:
        """Return the page in Markdown."""
        return format_page(self.headline, list(self.results.values()), ARCHIVE if self.is_finished else None)

    def pack(self) -> Path:
        """Write the archive with page, JSON, logs and descriptions of the plans, without plans; return its path."""
        logs, plans = self.out / "logs", self.out / "plans"
        candidates = [
            self.out / PAGE,
            self.out / DATA,
            *sorted(file for suffix in _LOG_SUFFIXES for file in logs.glob(f"*{suffix}")),
            *sorted(plans.glob("*.json")),
        ]
        # Files of an earlier check in the same folder would mislead. Some file systems round times to two seconds.
        files = [file for file in candidates if file.stat().st_mtime > self.began_s - 2]
        path = self.out / ARCHIVE
        partial = path.with_name(path.name + ".partial")
        with tarfile.open(partial, "w:gz") as archive:
            for file in files:
                archive.add(file, Path("gpu-check") / file.relative_to(self.out), filter=_without_owner)
        partial.replace(path)
        return path


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _join_failures(failures: Sequence[StepResult]) -> str:
    """Return the names of what failed; with the reason if it is a single step."""
    if len(failures) == 1:
        return f"{failures[0].name}: {shorten(failures[0].reason)}"
    more = len(failures) - _NAMES_IN_VERDICT
    names = [result.name for result in failures[:_NAMES_IN_VERDICT]]
    return "; ".join(names) + (f"; and {more} more" if more > 0 else "")
