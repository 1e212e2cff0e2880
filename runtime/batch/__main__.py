"""`python -m runtime.batch`: restore many files with one engine, resumable, on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from runtime.batch.cluster import Cluster, EnginePackage, WorkerResources
from runtime.batch.engines import BatchEngines
from runtime.batch.files import Task, find_tasks
from runtime.batch.journal import Journal
from runtime.batch.work import INTERRUPTED, Outcome, restore_file
from runtime.cli import describe_error, run_cli, say
from runtime.codec_options import add_decoder_option, add_encoder_options, parse_encoder
from runtime.engines import (
    BUNDLED_HELP,
    BUNDLED_NAMES,
    PROVIDERS,
    Provider,
    TiledEngine,
    open_engine,
    require_engine,
    resolve_engine,
)
from runtime.errors import InputError, UsageError
from runtime.files import output_error, sha256
from runtime.interrupt import Interruption
from runtime.options import RunOptions
from runtime.parser import CommandParser
from runtime.pipeline import Pipeline
from runtime.report import format_duration
from runtime.resume import EngineFile
from runtime.sinks import is_video_output
from runtime.sinks.encoder_trial import TRIAL_SIZE, TRIAL_SOURCE, require_encoder
from runtime.sinks.encoders import choose_encoder


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Files to restore, and how."""

    sources: tuple[str, ...]
    """Patterns, folders and files."""
    out: Path
    """Folder of the outputs and of the journal."""
    run: RunOptions
    """Engine and options of every file; `sources` and `outputs` of it are not used."""
    ray: str | None = None
    """Address of a Ray cluster, `local` for workers on this machine, None for this process."""
    cpus_per_worker: int = 2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m runtime.batch`."""
    parser = CommandParser("runtime.batch", description=__doc__)
    group = parser.add_argument_group("files")
    group.add_argument(
        "-i",
        "--source",
        action="append",
        required=True,
        metavar="S",
        help="quoted pattern such as 'DIR/**/*.mp4', folder (its videos and images), or file; repeat it for more",
    )
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the outputs, with the tree of the sources",
    )
    group.add_argument("-y", dest="overwrite", action="store_true", help="replace outputs that no earlier run wrote")
    add_decoder_option(group)
    add_encoder_options(parser)
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        default=BUNDLED_NAMES[0],
        metavar="E",
        help=f"{BUNDLED_HELP}, or engine file",
    )
    group.add_argument(
        "--provider", choices=PROVIDERS, default="auto", help="library that runs an .onnx engine (default: the faster)"
    )
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--ray", metavar="ADDRESS|local", help="address of a Ray cluster, or local for workers on this machine"
    )
    group.add_argument(
        "--cpus-per-worker", type=int, default=2, metavar="N", help="number of CPUs of each worker (default: 2)"
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> BatchOptions:
    """Parse a command line; raises UsageError for options that do not fit."""
    values = build_parser().parse_args(arguments)
    if values.cpus_per_worker < 1:
        raise UsageError(f"{values.cpus_per_worker} CPUs per worker", hint="give at least 1")
    return BatchOptions(
        sources=tuple(values.source),
        out=values.out,
        run=RunOptions(
            engine=resolve_engine(values.engine, values.provider),
            provider=values.provider,
            decoder=values.decoder,
            encoder=parse_encoder(values),
            overwrite=values.overwrite,
            mode="throughput",
            debug=values.debug,
        ),
        ray=values.ray,
        cpus_per_worker=values.cpus_per_worker,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return 0, or the exit code of the first file that failed."""

    def command(interruption: Interruption) -> int:
        return run(parse(arguments), interruption)

    return run_cli(command, debug="--debug" in (sys.argv[1:] if arguments is None else arguments))


def run(options: BatchOptions, interruption: Interruption) -> int:
    """Restore every file that is not finished; a file that fails stops no other and is named again at the end."""
    engine = Path(options.run.engine)
    require_engine(engine)
    if not engine.is_file():
        raise UsageError("a batch needs one engine file", engine, hint="give an .onnx file or a .plan")
    tasks = find_tasks(options.sources, options.out, say=say)
    journal = Journal(options.out, sha256(engine), str(choose_encoder(options.run.encoder)))
    if any(is_video_output(task.out) for task in tasks):
        require_encoder(options.run.encoder, TRIAL_SOURCE, TRIAL_SIZE)
    if not options.run.overwrite:
        journal.require_same_encoder(tasks)
    finished = {task: line for task in tasks if (line := journal.find_finished(task))}
    open_tasks = [task for task in tasks if task not in finished]
    say(f"files   {len(tasks)}, of which {len(finished)} are already finished")
    failed = [
        Outcome(task=task, error=line.damage, exit_code=InputError.exit_code)
        for task, line in finished.items()
        if line.damage
    ]
    if not options.run.overwrite:
        refused = [task for task in open_tasks if not journal.may_write(task)]
        failed += [_refuse(task) for task in refused]
        open_tasks = [task for task in open_tasks if task not in set(refused)]
    progress = _Progress(open_tasks)
    restore_all = _run_on_cluster if options.ray else _run_here
    for result in restore_all(options, open_tasks, journal, interruption):
        outcome = _record(result, journal)
        if outcome.error:
            failed.append(outcome)
        progress.report(outcome)
    for outcome in failed:
        if outcome.exit_code != INTERRUPTED:
            say(f"failed  {outcome.task.source}: {outcome.error}")
    return next((outcome.exit_code for outcome in failed), 0)


def _refuse(task: Task) -> Outcome:
    return Outcome(task=task, error=f"output exists: {task.out}; add -y to replace it", exit_code=2)


def _record(outcome: Outcome, journal: Journal) -> Outcome:
    """Note an outcome in the journal and return it, or the failure of a file whose output has been removed."""
    if not (outcome.is_published and outcome.source):
        journal.withdraw(outcome.task)
        return outcome
    try:
        journal.finish(outcome.task, outcome.source, damage=outcome.error)
    except OSError as error:
        reason, code = describe_error(output_error(Path(outcome.task.out), error))
        return dataclasses.replace(outcome, error=reason, exit_code=code)
    return outcome


def _run_here(
    options: BatchOptions, tasks: list[Task], journal: Journal, interruption: Interruption
) -> Iterator[Outcome]:
    """Restore one file after another in this process."""
    if not tasks:
        return

    def on_start(pipeline: Pipeline) -> None:
        interruption.on_signal = pipeline.stop
        if interruption.number:  # the signal came while the file was opened
            pipeline.stop()

    def open_with(provider: Provider) -> TiledEngine:
        engine = open_engine(options.run.engine, provider=provider, mode="throughput", say=say)
        say(f"engine  {engine.spec.name}, {engine.spec.precision}, {engine.backend}")
        return engine

    file = EngineFile.read(Path(options.run.engine))
    with closing(BatchEngines(file, open_with, options.run.provider)) as engines:
        for task in tasks:
            if interruption.number:
                return
            journal.start(task)
            yield restore_file(task, engines, options.run, on_start=on_start)


def _run_on_cluster(
    options: BatchOptions, tasks: list[Task], journal: Journal, interruption: Interruption
) -> Iterator[Outcome]:
    """Restore files on the workers of a Ray cluster, in the order in which they finish."""
    if not tasks:
        return
    assert options.ray
    interruption.on_signal = lambda: None  # `Cluster.run` asks for the signal once a second
    engine = Path(options.run.engine)
    worker = WorkerResources(cpus=options.cpus_per_worker, gpus=int(engine.suffix == ".plan"))
    package = EnginePackage.read(engine, options.run, threads=options.cpus_per_worker)
    # The nodes share the files under the same paths.
    tasks = [Task(str(Path(task.source).absolute()), str(Path(task.out).absolute())) for task in tasks]
    with closing(Cluster(options.ray, package=package, worker=worker)) as cluster:
        yield from cluster.run(tasks, on_start=journal.start, is_stopped=lambda: bool(interruption.number))


class _Progress:
    """Prints a line for each finished file, with the time left estimated from the sizes of the sources."""

    def __init__(self, tasks: list[Task]) -> None:
        self._count, self._finished, self._frames = len(tasks), 0, 0
        self._bytes = sum(_size(task.source) for task in tasks)
        self._finished_bytes = 0
        self._start = perf_counter()

    def report(self, outcome: Outcome) -> None:
        self._finished += 1
        self._frames += outcome.frames
        self._finished_bytes += _size(outcome.task.source)
        seconds = perf_counter() - self._start
        left_s = seconds * (self._bytes / max(1, self._finished_bytes) - 1)
        result = "FAILED" if outcome.error else f"{outcome.frames} frames in {outcome.seconds:.1f} s"
        if outcome.exit_code == INTERRUPTED:
            result = "stopped, the same command continues it"
        place = f" on {outcome.place}" if outcome.place else ""
        say(
            f"{self._finished} of {self._count}  {outcome.task.out}: {result}{place}; "
            f"{self._frames / seconds:.1f} fps in total, {format_duration(max(0.0, left_s))} left"
        )
        for warning in outcome.warnings:
            say(f"warning: {outcome.task.out}: {warning}")


def _size(path: str) -> int:
    """Return the size of a file in bytes; 0 if it has been removed."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
