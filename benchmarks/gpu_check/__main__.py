"""`make gpu-check`: build, run and measure plans on an NVIDIA machine; write one page with a verdict, and an archive.

Every step runs in a process of its own with a time limit. The page is written again after each step. A machine without
a GPU runs to the end as well: every step then says what is missing.
"""

from __future__ import annotations

import benchmarks.gpu_check.opencv  # noqa: F401 - before the runtime

# isort: split
import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu_check.catalogue import MACHINE, Engine, Settings, list_steps, listing
from benchmarks.gpu_check.processes import ROOT
from benchmarks.gpu_check.runner import find_missing, run_step
from benchmarks.gpu_check.steps import Step
from benchmarks.gpu_check.verdict import Verdict
from runtime.arguments import number_in
from runtime.cli import run_cli
from runtime.files import output_error
from runtime.parser import CommandParser

_ENGINES = ROOT / "runtime" / "models"


def check_all(settings: Settings) -> Verdict:
    """Run all steps, print one line for each on standard error, and return the verdict, whose archive is written."""
    verdict = Verdict(settings.out)
    for name in ("logs", "plans"):
        (settings.out / name).mkdir(parents=True, exist_ok=True)
    try:
        for step in _list_steps(settings, verdict):
            _run(step, settings, verdict)
        verdict.is_finished = True
    finally:  # after Ctrl-C too
        verdict.write()
        verdict.pack()
    return verdict


def _list_steps(settings: Settings, verdict: Verdict) -> Iterator[Step]:
    """Yield all steps; which they are depends on the results of the first two."""
    yield MACHINE
    first = listing(settings)
    yield first
    engines = [Engine(**values) for values in verdict.results[first.name].facts.get("engines", [])]
    steps = list_steps(engines, settings, verdict.results[MACHINE.name].facts.get("trtexec"))
    verdict.total = 2 + len(steps)
    yield from steps


def _run(step: Step, settings: Settings, verdict: Verdict) -> None:
    print(f"[{len(verdict.results) + 1}/{verdict.total or '?'}] {step.name}: ", end="", file=sys.stderr, flush=True)
    missing = verdict.results[MACHINE.name].facts.get("missing", {}) if step is not MACHINE else {}
    if lacking := find_missing(step, missing, verdict.results):
        result = verdict.skip(step, lacking)
    else:
        verdict.start(step)
        result = run_step(step, settings.out / "logs")
        verdict.add(result)
    reason = f": {result.reason}" if result.reason else ""
    print(f"{result.status} ({result.seconds:.1f} s){reason}", file=sys.stderr, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.gpu_check`."""
    parser = CommandParser("benchmarks.gpu_check", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--engines",
        type=Path,
        default=_ENGINES,
        metavar="DIR",
        help="folder of ONNX engines (default: the bundled engines)",
    )
    add(
        "--out",
        type=Path,
        default=ROOT / "out" / "gpu-check",
        metavar="DIR",
        help="folder for verdict.md, verdict.json, plans, logs and the archive (default: out/gpu-check)",
    )
    add(
        "--duration",
        type=number_in(1e-3, 86_400),
        default=5.0,
        metavar="S",
        help="seconds of each measurement of an engine; the run of a video takes twelve times as long (default: 5)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 for PASS, 4 if the machine lacks something that is required, else 1."""
    options = build_parser().parse_args(arguments)

    def command(_: object) -> int:
        settings = Settings(engines=options.engines.absolute(), out=options.out.absolute(), duration_s=options.duration)
        try:
            verdict = check_all(settings)
        except OSError as error:
            raise output_error(settings.out, error) from error
        print(verdict.render())
        return verdict.exit_code

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
