"""Sinks for frames: `open_sink` chooses the writer by the name of the output."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import UsageError
from runtime.files import output_error, partial_name
from runtime.image_files import IMAGE_SUFFIXES, is_image
from runtime.sinks import video
from runtime.sinks.base import NullSink, Sink, Tee
from runtime.sinks.encoder_settings import CODEC_NAMES, DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.encoders import choose_encoder
from runtime.sinks.images import ImageSink
from runtime.sinks.pipe import PipeFormat, PipeSink
from runtime.sinks.publish import PublishSink
from runtime.sinks.segments import SegmentSink
from runtime.sinks.video import VideoSink
from runtime.sinks.window import WindowSink
from runtime.sources.base import SourceInfo
from runtime.urls import is_mistyped_address, is_url, resolve_secrets

STDOUT = "-"
NULL = "null"
"""Name of the output that discards every frame."""
_CODECS = {".mov": ("h264", "hevc"), ".m4v": ("h264",)}
"""Codecs of the containers that do not hold all."""


def open_sink(
    text: str | Path,
    source: SourceInfo,
    *,
    job: str = "",
    segment_s: float = 0.0,
    pipe: PipeFormat = "y4m",
    encoder: EncoderSettings = DEFAULT_SETTINGS,
) -> Sink:
    """Open an output by its name: a video or image file, a folder of images, a server, `-`, or `null`.

    A new folder is named with a `/` at its end, unless the source is a folder or pattern of images.
    `-` is standard output in the format `pipe`. The address of a server may hold `${NAME}` from the environment;
    `@FILE` reads the address from a file. `segment_s` is the length in seconds of the files of a recording, 0 for one
    file. `job` identifies the run that writes the frames, for `VideoSink.resume`. `encoder` chooses codec, encoder and
    quality of videos.

    Existing outputs are replaced: the caller asks first, see `existing_output`. Raises UsageError for a name of unknown
    kind and for an output that is the source, OutputError if the output cannot be written.
    """
    text = os.fspath(text)
    if text == NULL:
        return NullSink()
    if text == STDOUT:
        return PipeSink(source, kind=pipe)
    text = resolve_secrets(text)
    if is_url(text):
        return PublishSink(text, source, encoder=encoder)
    if is_mistyped_address(text) and not Path(text).exists():
        raise UsageError("not an address to publish to", text, hint="use rtsp:// or rtmp://, or ./NAME for a file")
    return _open_file_sink(text, source, job=job, segment_s=segment_s, encoder=encoder)


def _open_file_sink(text: str, source: SourceInfo, *, job: str, segment_s: float, encoder: EncoderSettings) -> Sink:
    path = Path(text)
    suffix = path.suffix.lower()
    if _is_source(path, source):
        raise UsageError("output is the source", path, hint="give another output")
    if text.endswith("/"):
        return ImageSink(path, source, single=False)
    if suffix in _CODECS and choose_encoder(encoder).codec not in _CODECS[suffix]:
        held = " and ".join(CODEC_NAMES[codec] for codec in _CODECS[suffix])
        raise UsageError(f"{suffix[1:].upper()} holds {held} only", path, hint="give an .mp4 or .mkv, or another codec")
    if suffix in video.SUFFIXES and segment_s:
        return SegmentSink(path, source, seconds=segment_s, settings=encoder)
    if suffix in video.SUFFIXES:
        return VideoSink(path, source, job=job, settings=encoder)
    if suffix in IMAGE_SUFFIXES:
        if source.frame_count != 1:
            what = "one image cannot hold several frames" if source.files else "an image is no output of a stream"
            raise UsageError(what, path, hint="give a folder or a video")
        return ImageSink(path, source, single=True)
    if path.is_dir() or (not suffix and source.root):
        return ImageSink(path, source, single=False)
    if not suffix:
        example = source.files[0].suffix if any(map(is_image, source.files)) else ".mp4"
        raise UsageError(
            "output has no suffix", path, hint=f"give {path}/ for a folder of images, or a file such as {path}{example}"
        )
    suffixes = " ".join(sorted(video.SUFFIXES | IMAGE_SUFFIXES))
    raise UsageError(
        f"outputs of kind {suffix} are not known", path, hint=f"give a folder, {NULL}, or one of {suffixes}"
    )


def is_video_output(text: str) -> bool:
    """Return whether an output of this name is encoded: a video file or the address of a server."""
    return is_url(text) or text.startswith("@") or Path(text).suffix.lower() in video.SUFFIXES


def existing_output(text: str) -> Path | None:
    """Return what an output of this name would replace, or None.

    That is a file, an unfinished file of the same name, or a folder that is not empty. Servers, standard output and
    `null` replace nothing. Raises OutputError if the system refuses to say it.
    """
    path = Path(text)
    if text in {NULL, STDOUT} or text.startswith("@") or is_url(text):
        return None
    try:
        if path.is_dir():
            return path if any(path.iterdir()) else None
        return path if path.exists() else unfinished_output(text)
    except OSError as error:
        raise output_error(path, error) from error


def unfinished_output(text: str) -> Path | None:
    """Return the unfinished file of an output, or None; an empty one is nothing to keep."""
    if not Path(text).name:
        return None
    partial = partial_name(Path(text))
    # False for names that are too long
    return partial if os.path.isfile(partial) and partial.stat().st_size else None  # noqa: PTH113


def _is_source(path: Path, source: SourceInfo) -> bool:
    """Return whether an output would replace a file of the source, or write into its folder of images."""
    places = {path.resolve()}
    if path.name:  # `.` and `/` are folders
        places.add(partial_name(path).resolve())
    return any(file.resolve() in places or file.resolve().parent == path.resolve() for file in source.files)


__all__ = [
    "NULL",
    "STDOUT",
    "EncoderSettings",
    "NullSink",
    "Sink",
    "Tee",
    "WindowSink",
    "existing_output",
    "is_video_output",
    "open_sink",
    "unfinished_output",
]
