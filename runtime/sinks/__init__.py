"""Where frames go: `open_sink` picks the writer by the name of the output."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UsageError
from runtime.files import partial_name
from runtime.image_files import IMAGE_SUFFIXES
from runtime.sinks import video
from runtime.sinks.base import NullSink, Sink, Tee
from runtime.sinks.images import ImageSink
from runtime.sinks.pipe import PipeFormat, PipeSink
from runtime.sinks.publish import PublishSink
from runtime.sinks.segments import SegmentSink
from runtime.sinks.video import VideoSink
from runtime.sinks.window import WindowSink
from runtime.sources.base import SourceInfo
from runtime.urls import is_url, with_secrets

STDOUT = "-"
NULL = "null"
"""The output that keeps nothing."""


def open_sink(
    text: str, source: SourceInfo, *, job: str = "", segment_s: float = 0.0, pipe: PipeFormat = "y4m"
) -> Sink:
    """Open a video file, a picture, a folder of pictures, a server, `-` (standard output), or `null`, by its name.

    An address may hold `${NAME}` from the environment, or stand in a file: `@FILE`. `segment_s`:
    length of the files of a recording; `pipe`: what standard output gets; `job`: what makes the
    frames, for `VideoSink.resume`. Raises UsageError if the name says none
    of these or the output is the source, OutputError if it cannot be written. Whether it may
    replace what is there is the caller's to ask: see `in_the_way`.
    """
    if text == NULL:
        return NullSink()
    if text == STDOUT:
        return PipeSink(source, kind=pipe)
    text = with_secrets(text)
    if is_url(text):
        return PublishSink(text, source)
    return _file_sink(Path(text), source, job=job, segment_s=segment_s)


def _file_sink(path: Path, source: SourceInfo, *, job: str, segment_s: float) -> Sink:
    suffix = path.suffix.lower()
    if _is_source(path, source):
        raise UsageError("output is the source", path, hint="give another --out")
    if suffix in video.SUFFIXES and segment_s:
        return SegmentSink(path, source, seconds=segment_s)
    if suffix in video.SUFFIXES:
        return VideoSink(path, source, job=job)
    if suffix in IMAGE_SUFFIXES:
        if source.frame_count != 1:
            raise UsageError("one picture cannot hold several frames", path, hint="give a folder or a video as --out")
        return ImageSink(path, single=True)
    if not suffix or path.is_dir():
        return ImageSink(path, single=False)
    known = " ".join(sorted(video.SUFFIXES | IMAGE_SUFFIXES))
    raise UsageError(f"outputs of kind {suffix} are not known", path, hint=f"give a folder, {NULL}, or one of {known}")


def in_the_way(text: str) -> Path | None:
    """What an output of this name would replace: a file, an unfinished one, or a filled folder."""
    path = Path(text)
    if text in {NULL, STDOUT} or text.startswith("@") or is_url(text):
        return None
    if path.is_dir():
        return path if any(path.iterdir()) else None
    return next((candidate for candidate in (path, partial_name(path)) if candidate.exists()), None)


def _is_source(path: Path, source: SourceInfo) -> bool:
    places = {path.resolve(), partial_name(path).resolve()}
    return any(file.resolve() in places or file.resolve().parent == path.resolve() for file in source.files)


__all__ = ["NULL", "NullSink", "Sink", "Tee", "WindowSink", "in_the_way", "open_sink"]
