"""Reports of a run: a progress line while it runs, a table and JSON at its end."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from runtime.cli import say
from runtime.engines.base import Engine
from runtime.files import write_json
from runtime.pipeline import STAGES, Pipeline

SCHEMA = 2
"""Version of the JSON of `--stats`; it grows when a field changes its meaning or is removed."""


class Progress:
    """Frames, rate and time left of all pipelines: one rewritten line on a terminal, a line every 10 s in a log."""

    def __init__(self, *, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._pipelines: dict[Pipeline, None] = {}
        """Pipelines that have written a frame, in the order of their first frames."""
        self._is_terminal = stream.isatty()
        self._interval_s = 0.25 if self._is_terminal else 10.0
        self._last = perf_counter()

    def __call__(self, pipeline: Pipeline, *_: object) -> None:
        """Print the progress, unless it was printed a moment ago; a listener of pipelines."""
        self._pipelines[pipeline] = None
        now = perf_counter()
        if now - self._last < self._interval_s:
            return
        self._last = now
        line = " | ".join(_progress_line(pipeline) for pipeline in list(self._pipelines))
        self._stream.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Clear the line on a terminal."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")


def _progress_line(pipeline: Pipeline) -> str:
    expected = pipeline.source.frame_count
    line = f"frame {pipeline.frames_written}"
    if expected:
        line += f" of {expected}"
    line += f", {pipeline.fps:.1f} fps"
    if expected and pipeline.fps:
        line += f", {format_duration((expected - pipeline.frames_written) / pipeline.fps)} left"
    if pipeline.frames_dropped:
        line += f", {pipeline.frames_dropped} dropped"
    return line


def format_table(pipeline: Pipeline) -> str:
    """Return frame counts, rate and latencies of each stage as a few lines of plain text."""
    rows = [
        f"frames  {pipeline.frames_read} read, {pipeline.frames_written} written, {pipeline.frames_dropped} dropped",
        f"rate    {pipeline.fps:.1f} fps over {pipeline.seconds:.1f} s",
        f"{'ms':8}" + "".join(f"{name:>9}" for name in ("p50", "p90", "p99", "max")),
    ]
    if pipeline.frames_skipped:
        rows[0] += f", {pipeline.frames_skipped} sharp already"
    for stage in STAGES:
        values = pipeline.latencies[stage].summary().values()
        rows.append(f"{stage:8}" + "".join(f"{value:9.1f}" for value in values))
    return "\n".join(rows)


def to_dict(pipeline: Pipeline) -> dict[str, Any]:
    """Return the facts of a run for JSON; docs/stats.md lists the fields."""
    return {
        "source": pipeline.source.name,
        "output": pipeline.kept,
        "warnings": pipeline.warnings,
        "frames": {
            "read": pipeline.frames_read,
            "written": pipeline.frames_written,
            "dropped": pipeline.frames_dropped,
            "rejected": pipeline.frames_rejected,
            "skipped": pipeline.frames_skipped,
            "reconnects": pipeline.reconnects,
        },
        "seconds": round(pipeline.seconds, 3),
        "fps": round(pipeline.fps, 3),
        "latency_ms": {stage: pipeline.latencies[stage].summary() for stage in STAGES},
    }


def print_report(pipeline: Pipeline, *, with_source: bool, is_resumable: bool) -> None:
    """Print warnings, table and output of a finished run on standard error, below the source's name if wanted.

    `is_resumable` says whether `--resume` can continue an unfinished output.
    """
    if with_source:
        say(f"source  {pipeline.source.name}")
    for warning in pipeline.warnings:
        say(f"warning: {warning}")
    if pipeline.frames_read:
        say(format_table(pipeline))
    if pipeline.kept:
        is_unfinished = is_resumable and Path(pipeline.kept).stem.endswith(".partial")
        advice = "; unfinished, the same command with --resume continues it" if is_unfinished else ""
        say(f"output  {pipeline.kept}{advice}")


def write_statistics(path: Path, engine: Engine, pipelines: list[Pipeline]) -> None:
    """Write the JSON file of `--stats`; raises OutputError."""
    facts = {"schema": SCHEMA, "engine": engine.spec.to_dict(), "backend": engine.backend}
    runs = [to_dict(pipeline) for pipeline in pipelines]
    write_json(path, facts | (runs[0] if len(runs) == 1 else {"streams": runs}))


def format_duration(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
