"""One file of a batch: restored by an engine that is open already."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from runtime.batch.engines import BatchEngines
from runtime.batch.files import Task
from runtime.batch.journal import SourceVersion
from runtime.bit_depth import keep_10_bits
from runtime.cli import describe_error
from runtime.engines.shared import EngineClient
from runtime.errors import EngineError, InputError, UsageError, is_out_of_memory
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.resume import Job, resume
from runtime.sinks import open_sink
from runtime.sources import Source, open_source

INTERRUPTED = 130
"""Exit code of a file that a signal stopped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a task."""

    task: Task
    frames: int = 0
    """Number of frames that this run restored; a resumed file has more."""
    seconds: float = 0.0
    source: SourceVersion | None = None
    """Content that was restored; None if it could not be read."""
    is_published: bool = False
    """Whether the output has its final name; also true for the frames of a source that is cut off."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """Reason of a failure on one line; empty if the output is complete."""
    exit_code: int = 0
    place: str = ""
    """Host and process of the worker; empty for this process."""


def restore_file(
    task: Task, engines: BatchEngines, options: RunOptions, *, on_start: Callable[[Pipeline], None] = lambda _: None
) -> Outcome:
    """Restore a file, continuing the output of a killed run; errors are in the outcome and are not raised.

    `on_start` gets the pipeline before it runs. The engines are shared with the files that follow: after a failure they
    do not receive the frames that this one left in an engine.
    """
    start = perf_counter()
    version: SourceVersion | None = None
    pipeline: Pipeline | None = None
    error, exit_code = "", 0
    try:
        version = SourceVersion.read(Path(task.source))
        pipeline = _open_pipeline(task, engines, options)
        on_start(pipeline)
        pipeline.run()
        if pipeline.kept != task.out:
            error, exit_code = "stopped before its end", INTERRUPTED
    except Exception as raised:  # noqa: BLE001 - whatever a file raises is the failure of this file
        error, exit_code = _describe(raised, task.source)
    return Outcome(
        task=task,
        frames=pipeline.frames_written if pipeline else 0,
        seconds=perf_counter() - start,
        source=version,
        is_published=pipeline is not None and pipeline.kept == task.out,
        warnings=tuple(pipeline.warnings) if pipeline else (),
        error=error,
        exit_code=exit_code,
    )


def _describe(error: Exception, source: str) -> tuple[str, int]:
    """Return the line and exit code of a failure; the operating system's errors that reach this point are of files."""
    if isinstance(error, OSError) and not is_out_of_memory(error):
        error = InputError(f"cannot read source ({error.strerror or error})", source, hint="check the file")
    return describe_error(error)


def _open_pipeline(task: Task, engines: BatchEngines, options: RunOptions) -> Pipeline:
    with ExitStack() as not_started:
        source = open_source(task.source, decoder=options.decoder)
        not_started.callback(source.close)
        keep_10_bits(source, [task.out])
        engine, job = _choose_engine(task, source, engines, options)
        sink = open_sink(task.out, source.info, job=str(job), encoder=options.encoder)
        not_started.callback(sink.close, complete=False)
        with suppress(UsageError):  # not a video, or an unfinished output of another engine, which is written again
            resume(source, sink)
        pipeline = Pipeline(source, engine, sink, options, turn=engine.turn)
        not_started.pop_all()
    return pipeline


def _choose_engine(task: Task, source: Source, engines: BatchEngines, options: RunOptions) -> tuple[EngineClient, Job]:
    """Return the engine that can continue the unfinished output of a task, or else the default one, and the job."""
    engine = engines.default.create_client()
    job = Job.create(source, engine, engines.file, options)
    begun = Job.read(task.out)
    if begun and begun.provider != job.provider:
        with suppress(EngineError):
            other = engines.open_for(begun.provider).create_client()
            if Job.create(source, other, engines.file, options) == begun:
                return other, begun
    return engine, job
