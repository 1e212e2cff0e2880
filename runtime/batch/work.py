"""One file through an engine that is loaded already."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from runtime.batch.files import Task
from runtime.engines import Engine
from runtime.errors import DeblurError, UsageError
from runtime.files import sha256
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.session import job_id, resume
from runtime.sinks import open_sink
from runtime.sources import open_source

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task."""

    task: Task
    frames: int = 0
    """Restored by this run; a file that was resumed has more."""
    seconds: float = 0.0
    source_sha256: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """One line; empty if the output is whole."""
    exit_code: int = 0
    place: str = ""
    """Where it was done."""


def restore(task: Task, engine: Engine, *, on_start: Callable[[Pipeline], None] = lambda _: None) -> Outcome:
    """Restore a file, going on where a run that was killed left it; what is wrong with it is in the outcome."""
    began = perf_counter()
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
            seconds=perf_counter() - began,
            error=" ".join(str(error).split()) or type(error).__name__,
            exit_code=error.exit_code if isinstance(error, DeblurError) else 3,
        )
    whole = pipeline.kept == task.out
    return Outcome(
        task=task,
        frames=pipeline.frames_written,
        seconds=perf_counter() - began,
        source_sha256=digest,
        error="" if whole else "stopped before its end",
        exit_code=0 if whole else INTERRUPTED,
        warnings=tuple(pipeline.warnings),
    )
