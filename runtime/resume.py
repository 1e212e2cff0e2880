"""Unfinished outputs of earlier runs: the job that they belong to, and how a run continues them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runtime.engines import Engine
from runtime.errors import UsageError
from runtime.options import RunOptions
from runtime.sinks import Sink
from runtime.sinks.video import SUFFIXES, VideoSink
from runtime.sources import Source
from runtime.sources.video import VideoSource


def job_id(source: Source, engine: Engine, options: RunOptions) -> str:
    """Return a digest of everything that decides the frames of an output; equal for runs that write the same frames."""
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.info.files]
    settings = (options.side_by_side, options.guard, options.skip_blur_score)
    facts = (files, engine.spec.to_json(), engine.backend.split(" (")[0], *settings)
    return f"deblur {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def resume(source: Source, sink: Sink) -> int:
    """Continue an unfinished output and return the number of source frames that it holds.

    Call it before the first frame is read. Raises UsageError if the source or the sink is not one video file, or if
    the unfinished output is of another job.
    """
    if not isinstance(sink, VideoSink) or not isinstance(source, VideoSource):
        raise UsageError("only a video into a video can be resumed", hint="leave out --resume, or --show")
    frames = sink.resume(source.start)
    if frames:
        source.skip(frames)
    return frames


def is_resumable(source: Source, outputs: list[str], options: RunOptions) -> bool:
    """Whether `--resume` can continue what a run leaves unfinished: one video that is written from one video."""
    is_video = len(outputs) == 1 and Path(outputs[0]).suffix.lower() in SUFFIXES
    return is_video and isinstance(source, VideoSource) and not (options.show or options.segment_s)
