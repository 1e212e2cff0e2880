"""Runner of steps: a process with a time limit, and one line for every way in which it can end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.steps import Status, Step, StepResult

_TRACEBACK_S = 5.0
"""Seconds that a process gets to print where it stands before it is killed."""


def run_step(step: Step, logs: Path) -> StepResult:
    """Run a step in a process of its own; its output and its facts go to files in the folder `logs`.

    Whatever the process does, also dying of a signal or never ending, becomes the result.
    """
    log, facts_file = logs / f"{step.slug}.log", logs / f"{step.slug}.json"
    facts_file.unlink(missing_ok=True)
    began = monotonic()
    status, reason = _run_process(step, log, facts_file)
    _, _, facts = _read_outcome(facts_file)
    return StepResult(
        name=step.name,
        status=status,
        reason=reason,
        seconds=round(monotonic() - began, 1),
        facts=facts,
        weight=step.weight,
        log=log.name,
    )


def _run_process(step: Step, log: Path, facts_file: Path) -> tuple[Status, str]:
    """Run the process of a step; return how it ended, and why if it did not pass."""
    command = [*processes.PYTHON, "-m", "benchmarks.gpu_check.child"]
    command += [step.function, json.dumps(step.arguments), str(facts_file)]
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(  # noqa: S603 - a command of this package
                command,
                cwd=processes.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its own children can be ended with it
            )
        except OSError as error:
            return "failed", f"the process does not start ({error.strerror})"
        has_ended = _wait(child, step.limit_s)
    status, reason, _ = _read_outcome(facts_file)
    if not has_ended:
        return "failed", f"it took longer than {step.limit_s:g} s, {_find_place(log)}"
    if child.returncode < 0:
        when = "at the end of the process" if status == "passed" else _find_place(log)
        return "failed", f"the process died of {_signal_name(-child.returncode)}, {when}"
    if status is None:
        return "failed", f"the process ended with code {child.returncode}: {_read_last_line(log)}"
    return status, reason


def find_missing(step: Step, missing: Mapping[str, str], results: Mapping[str, StepResult]) -> str:
    """Return what a step needs and does not have, as one line; empty if it can run."""
    if lacking := [missing[name] for name in step.needs if name in missing]:
        return "; ".join(dict.fromkeys(lacking))
    before = results.get(step.after)
    return f"the step before it did not pass ({step.after})" if before and before.status != "passed" else ""


def _wait(child: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait for a process; return whether it ended within the limit. Nothing of it is left afterwards."""
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)  # faulthandler then prints where every thread stands
        with suppress(subprocess.TimeoutExpired):
            child.wait(_TRACEBACK_S)
        return False
    else:
        return True
    finally:  # also after Ctrl-C
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _read_outcome(path: Path) -> tuple[Status | None, str, dict[str, Any]]:
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, "", {}
    return outcome["status"], outcome["reason"], outcome["facts"]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _find_place(log: Path) -> str:
    """Return where a process stood, by the traceback of faulthandler in its log, or else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace")
    fatal = text.rfind("Current thread 0x")
    match = re.search(r'File "(.*?)", line (\d+) in (\S+)', text[fatal:]) if fatal >= 0 else None
    if match:
        return f"in {match[3]} ({Path(match[1]).name}, line {match[2]})"
    return f"last line: {processes.last_line(text)[:200]}"


def _read_last_line(log: Path) -> str:
    return processes.last_line(log.read_text(encoding="utf-8", errors="replace"))[:200]
