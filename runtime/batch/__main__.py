"""`python -m runtime.batch`: many files through one engine, resumable; on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

from runtime.batch.cluster import Cluster, Shipment, Slice
from runtime.batch.files import Journal, Task, tasks_of
from runtime.batch.work import INTERRUPTED, Outcome, restore
from runtime.cli import run_cli, say
from runtime.engines import BUNDLED, PROVIDERS, open_engine, resolve_engine
from runtime.errors import EngineError
from runtime.files import sha256
from runtime.interrupt import Interruption
from runtime.pipeline import Pipeline
from runtime.report import format_duration


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime.batch", description=__doc__)
    add = parser.add_argument
    add("--engine", type=resolve_engine, default=BUNDLED, metavar="E", help="bundled engine or engine file")
    add(
        "--source",
        action="append",
        required=True,
        metavar="S",
        help="a quoted pattern such as 'DIR/**/*.mp4', a folder, or a file; again for more",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="outputs lie here as their sources lie there")
    add("--provider", choices=PROVIDERS, default="auto", help="what runs an .onnx engine (default: the faster)")
    add("--ray", metavar="ADDRESS|local", help="spread the files over a Ray cluster, or over workers on this machine")
    add("--cpus-per-worker", type=int, default=2, metavar="N", help="with --ray: CPUs for each file (default: 2)")
    add("-y", dest="overwrite", action="store_true", help="replace outputs that no earlier run made")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or the exit code of the first file that failed."""
    options = parse(arguments)
    return run_cli(lambda interruption: run(options, interruption), debug=options.debug)


def run(options: argparse.Namespace, interruption: Interruption) -> int:
    """Do what is not done yet; files that fail are told at the end and stop nothing."""
    if not options.engine.is_file():
        raise EngineError("no such engine", options.engine, hint="check the path")
    tasks = tasks_of(options.source, options.out)
    journal = Journal(options.out, sha256(options.engine))
    waiting = [task for task in tasks if not journal.has(task)]
    say(f"files   {len(tasks)}, {len(tasks) - len(waiting)} of them finished before")
    failed = [] if options.overwrite else [_taken(task) for task in waiting if not journal.may_write(task)]
    taken = {outcome.task for outcome in failed}
    waiting = [task for task in waiting if task not in taken]
    progress = _Progress(waiting)
    outcomes = _on_cluster(options, waiting, interruption) if options.ray else _here(options, waiting, interruption)
    for outcome in outcomes:
        if outcome.error:
            failed.append(outcome)
        else:
            journal.add(outcome.task, outcome.source_sha256)
        progress.tell(outcome)
    for outcome in failed:
        if outcome.exit_code != INTERRUPTED:
            say(f"failed  {outcome.task.source}: {outcome.error}")
    return next((outcome.exit_code for outcome in failed), 0)


def _taken(task: Task) -> Outcome:
    return Outcome(task=task, error=f"output exists: {task.out}; add -y to replace it", exit_code=2)


def _here(options: argparse.Namespace, tasks: list[Task], interruption: Interruption) -> Iterator[Outcome]:
    """One file after another in this process."""
    if not tasks:
        return

    def on_start(pipeline: Pipeline) -> None:
        interruption.on_signal = pipeline.stop

    with open_engine(options.engine, provider=options.provider, mode="throughput") as engine:
        say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
        for task in tasks:
            if interruption.number:
                return
            yield restore(task, engine, on_start=on_start)


def _on_cluster(options: argparse.Namespace, tasks: list[Task], interruption: Interruption) -> Iterator[Outcome]:
    if not tasks:
        return
    interruption.on_signal = lambda: None  # which is looked for once a second
    piece = Slice(cpus=options.cpus_per_worker, gpus=int(options.engine.suffix == ".plan"))
    shipment = Shipment.of(options.engine, provider=options.provider, threads=options.cpus_per_worker)
    # Paths are the same on every node, which share the files.
    tasks = [Task(str(Path(task.source).resolve()), str(Path(task.out).resolve())) for task in tasks]
    with closing(Cluster(options.ray, shipment=shipment, piece=piece)) as cluster:
        yield from cluster.run(tasks, stopped=lambda: bool(interruption.number))


class _Progress:
    """A line for each file that is over, with what is left by the size of the sources."""

    def __init__(self, tasks: list[Task]) -> None:
        self._count, self._over, self._frames = len(tasks), 0, 0
        self._bytes = {task.source: Path(task.source).stat().st_size for task in tasks}
        self._done_bytes = 0
        self._began = perf_counter()

    def tell(self, outcome: Outcome) -> None:
        self._over += 1
        self._frames += outcome.frames
        self._done_bytes += Path(outcome.task.source).stat().st_size if Path(outcome.task.source).exists() else 0
        seconds = perf_counter() - self._began
        left_s = seconds * (sum(self._bytes.values()) / max(1, self._done_bytes) - 1)
        what = "FAILED" if outcome.error else f"{outcome.frames} frames in {outcome.seconds:.1f} s"
        place = f" on {outcome.place}" if outcome.place else ""
        say(
            f"{self._over} of {self._count}  {outcome.task.out}: {what}{place}; "
            f"{self._frames / seconds:.1f} fps in all, {format_duration(max(0.0, left_s))} left"
        )


if __name__ == "__main__":
    sys.exit(main())
