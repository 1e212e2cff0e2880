"""`python -m runtime.batch`: restore many files with one engine, resumable, on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from runtime.batch.cluster import Cluster, EnginePackage, WorkerResources
from runtime.batch.files import Journal, Task, find_tasks
from runtime.batch.work import INTERRUPTED, Outcome, restore_file
from runtime.cli import run_cli, say
from runtime.engines import BUNDLED, BUNDLED_NAMES, PROVIDERS, Provider, open_engine, resolve_engine
from runtime.errors import EngineError
from runtime.files import sha256
from runtime.interrupt import Interruption
from runtime.pipeline import Pipeline
from runtime.report import format_duration


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Files of a batch, the engine that restores them, and the machines that do the work."""

    sources: tuple[str, ...]
    """Patterns, folders and file names."""
    out: Path
    """Folder of the outputs and of the journal."""
    engine: Path = BUNDLED
    provider: Provider = "auto"
    """Library that runs an `.onnx` engine."""
    ray: str | None = None
    """Address of a Ray cluster, or `local`; None restores one file after another in this process."""
    cpus_per_worker: int = 2
    """CPUs of a Ray worker, which restores one file at a time."""
    overwrite: bool = False
    """Replace outputs that no earlier run made."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m runtime.batch", description=__doc__)
    add = parser.add_argument_group("input").add_argument
    add(
        "--source",
        action="append",
        required=True,
        metavar="S",
        help="quoted pattern such as 'DIR/**/*.mp4', folder, or file; repeat it for more files",
    )
    add = parser.add_argument_group("output").add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the outputs, which have the same places in it as the sources in theirs",
    )
    add("-y", dest="overwrite", action="store_true", help="replace outputs that no earlier run made")
    add = parser.add_argument_group("engine").add_argument
    add(
        "--engine",
        type=resolve_engine,
        default=BUNDLED,
        metavar="E",
        help=f"bundled engine or engine file (default: {BUNDLED_NAMES[0]})",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="library that runs an .onnx engine (default: the faster)")
    add = parser.add_argument_group("cluster").add_argument
    add(
        "--ray",
        metavar="ADDRESS|local",
        help="Ray cluster that restores the files, or local for several workers on this machine (default: one process)",
    )
    add(
        "--cpus-per-worker",
        type=int,
        default=BatchOptions.cpus_per_worker,
        metavar="N",
        help="number of CPUs for each file with --ray (default: 2)",
    )
    add = parser.add_argument_group("errors").add_argument
    add("--debug", action="store_true", help="print the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or the exit code of the first file that failed."""
    values = build_parser().parse_args(arguments)
    options = BatchOptions(
        sources=tuple(values.source),
        out=values.out,
        engine=values.engine,
        provider=values.provider,
        ray=values.ray,
        cpus_per_worker=values.cpus_per_worker,
        overwrite=values.overwrite,
    )
    return run_cli(lambda interruption: run(options, interruption), debug=values.debug)


def run(options: BatchOptions, interruption: Interruption) -> int:
    """Restore all files that are not finished; return 0, or the exit code of the first failure.

    A file that fails does not stop the others; failures are listed at the end.
    """
    if not options.engine.is_file():
        raise EngineError("no such engine", options.engine, hint="check the path")
    tasks = find_tasks(options.sources, options.out)
    journal = Journal(options.out, sha256(options.engine))
    unfinished = [task for task in tasks if not journal.is_finished(task)]
    say(f"files   {len(tasks)}, of which {len(tasks) - len(unfinished)} are already finished")
    failures = [] if options.overwrite else [_blocked(task) for task in unfinished if not journal.may_write(task)]
    blocked = {outcome.task for outcome in failures}
    unfinished = [task for task in unfinished if task not in blocked]
    progress = _Progress(unfinished)
    restore_all = _restore_on_cluster if options.ray else _restore_here
    for outcome in restore_all(options, unfinished, interruption):
        if outcome.error:
            failures.append(outcome)
        else:
            journal.add(outcome.task, outcome.source_sha256)
        progress.report(outcome)
    for outcome in failures:
        if outcome.exit_code != INTERRUPTED:
            say(f"failed  {outcome.task.source}: {outcome.error}")
    return next((outcome.exit_code for outcome in failures), 0)


def _blocked(task: Task) -> Outcome:
    """Return the outcome of a task whose output is a file that no earlier run made."""
    return Outcome(task=task, error=f"output exists: {task.out}; add -y to replace it", exit_code=2)


def _restore_here(options: BatchOptions, tasks: list[Task], interruption: Interruption) -> Iterator[Outcome]:
    """Restore one file after another in this process."""
    if not tasks:
        return

    def stop_on_signal(pipeline: Pipeline) -> None:
        interruption.on_signal = pipeline.stop

    with open_engine(options.engine, provider=options.provider, mode="throughput") as engine:
        say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
        for task in tasks:
            if interruption.number:
                return
            yield restore_file(task, engine, on_start=stop_on_signal)


def _restore_on_cluster(options: BatchOptions, tasks: list[Task], interruption: Interruption) -> Iterator[Outcome]:
    """Restore files on a Ray cluster; paths are made absolute, and are the same on all nodes, which share the files."""
    if not tasks:
        return
    assert options.ray
    interruption.on_signal = lambda: None  # `is_stopped` below looks at the signal once a second
    resources = WorkerResources(cpus=options.cpus_per_worker, gpus=int(options.engine.suffix == ".plan"))
    package = EnginePackage.from_file(options.engine, provider=options.provider, threads=options.cpus_per_worker)
    tasks = [Task(str(Path(task.source).resolve()), str(Path(task.out).resolve())) for task in tasks]
    with closing(Cluster(options.ray, package=package, resources=resources)) as cluster:
        yield from cluster.run(tasks, is_stopped=lambda: bool(interruption.number))


class _Progress:
    """Prints a line after each file, with an estimate of the time left that is based on the sizes of the sources."""

    def __init__(self, tasks: list[Task]) -> None:
        self._count, self._finished, self._frames = len(tasks), 0, 0
        self._total_bytes = sum(Path(task.source).stat().st_size for task in tasks)
        self._finished_bytes = 0
        self._start = perf_counter()

    def report(self, outcome: Outcome) -> None:
        """Print the line of a file that is finished or has failed."""
        source = Path(outcome.task.source)
        self._finished += 1
        self._frames += outcome.frames
        self._finished_bytes += source.stat().st_size if source.exists() else 0
        seconds = perf_counter() - self._start
        left_s = seconds * (self._total_bytes / max(1, self._finished_bytes) - 1)
        result = "FAILED" if outcome.error else f"{outcome.frames} frames in {outcome.seconds:.1f} s"
        worker = f" on {outcome.worker}" if outcome.worker else ""
        say(
            f"{self._finished} of {self._count}  {outcome.task.out}: {result}{worker}; "
            f"{self._frames / seconds:.1f} fps overall, {format_duration(max(0.0, left_s))} left"
        )


if __name__ == "__main__":
    sys.exit(main())
