"""Restoring one file of a batch with an engine that is already open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from runtime.batch.files import Task
from runtime.engines import Engine
from runtime.errors import DeblurError, InputError, UsageError
from runtime.files import sha256
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.session import job_id, resume
from runtime.sinks import open_sink
from runtime.sources import open_source

INTERRUPTED = 130
"""Exit code of a file that was stopped by a signal."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a task."""

    task: Task
    frames: int = 0
    """Number of frames restored by this run; the output of a resumed file has more."""
    seconds: float = 0.0
    source_sha256: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """Error in one line; empty if the output is complete."""
    exit_code: int = 0
    worker: str = ""
    """`HOST:PID` of the Ray worker that did the task; empty without Ray."""


def restore_file(task: Task, engine: Engine, *, on_start: Callable[[Pipeline], None] = lambda _: None) -> Outcome:
    """Restore a file, continuing the output of a killed run if there is one; errors are part of the outcome.

    `on_start` gets the pipeline before it runs.
    """
    start = perf_counter()
    pipeline: Pipeline | None = None
    try:
        digest = sha256(Path(task.source))
        source = open_source(task.source)
        sink = open_sink(task.out, source.info, job=job_id(source, engine, RunOptions()))
        with suppress(UsageError):  # not a video, or an unfinished output of another engine, which is written again
            resume(source, sink)
        pipeline = Pipeline(source, engine, sink)
        on_start(pipeline)
        pipeline.run()
    except (DeblurError, OSError, MemoryError) as error:
        return Outcome(
            task=task,
            frames=pipeline.frames_written if pipeline else 0,
            seconds=perf_counter() - start,
            error=" ".join(str(error).split()) or type(error).__name__,
            exit_code=error.exit_code if isinstance(error, DeblurError) else InputError.exit_code,
        )
    is_complete = pipeline.kept == task.out
    return Outcome(
        task=task,
        frames=pipeline.frames_written,
        seconds=perf_counter() - start,
        source_sha256=digest,
        error="" if is_complete else "stopped before its end",
        exit_code=0 if is_complete else INTERRUPTED,
        warnings=tuple(pipeline.warnings),
    )
