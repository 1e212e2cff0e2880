"""Unfinished outputs of earlier runs: the job that they belong to, and how a run continues them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import av

from runtime.engines import PROVIDERS, YUV420_SUFFIX, Engine, resolve_engine
from runtime.engines.variants import takes_planes
from runtime.errors import UsageError
from runtime.files import partial_name, sha256
from runtime.options import RunOptions
from runtime.sinks import Sink
from runtime.sinks.encoders import choose_encoder
from runtime.sinks.unfinished import read_job
from runtime.sinks.video import SUFFIXES, VideoSink
from runtime.sources import Source
from runtime.sources.video import VideoSource

_KIND = "deblur-2"
"""First word of a job as text; it changes with the words that follow."""


@dataclass(frozen=True)
class EngineFile:
    """An engine by its content, wherever it lies."""

    name: str
    """File name, or the address of an engine on a server."""
    sha256: str
    """SHA-256 of the file; empty for a server."""

    @classmethod
    def read(cls, path: Path) -> EngineFile:
        """Read an engine file; raises OSError."""
        return cls(path.name, sha256(path)) if path.is_file() else cls(str(path), "")


@dataclass(frozen=True)
class Job:
    """The run that an output belongs to, and what a later run needs to continue it.

    As text it is kept beside an unfinished video.
    """

    digest: str
    """Digest of everything that decides the frames; equal for runs that write the same frames."""
    provider: str
    """Library that computes the frames; the choice between libraries may fall out differently the next time."""
    encoder: str
    """Encoder of the video with its settings, in one word; another one would end the file in another form."""
    engine: str
    """File name of the engine, of which a folder has several."""

    @classmethod
    def create(cls, source: Source, engine: Engine, file: EngineFile, options: RunOptions) -> Job:
        """Return the job of a source, an open engine and the options that change pixels."""
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in source.info.files]
        settings = (options.side_by_side, options.guard, options.skip_blur_score, options.deinterlace)
        tiles = (options.tile, options.overlap_px)
        # The version of the library is in the name of the backend, and results of a trial come behind a bracket.
        backend, bits = engine.backend.split(" (")[0], source.info.format.bits
        # Another version of PyAV brings other encoders of the same names.
        facts = (files, file.sha256, engine.spec.to_json(), backend, settings, tiles, bits, av.__version__)
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        return cls(digest, engine.provider, str(choose_encoder(options.encoder)), file.name)

    @classmethod
    def read(cls, output: str) -> Job | None:
        """Return the job of the unfinished video of an output; None if there is none, or it is not known."""
        kind, *parts = read_job(partial_name(Path(output))).split(" ", 4)
        return cls(*parts) if kind == _KIND and len(parts) == 4 else None

    def __str__(self) -> str:
        return f"{_KIND} {self.digest} {self.provider} {self.encoder} {self.engine}"


def adopt_engine(options: RunOptions, outputs: Iterable[str]) -> RunOptions:
    """Return the options with the library and the engine file that the unfinished outputs were begun with.

    They replace `auto` and the choice from a folder, which depend on the speed of the moment. Raises UsageError if two
    outputs were begun with different ones, or if the user asks for another library.
    """
    jobs = {output: job for output in outputs if (job := Job.read(output))}
    if not jobs:
        return options
    output, first = next(iter(jobs.items()))
    encoder = str(choose_encoder(options.encoder))
    for begun, job in jobs.items():
        if job.encoder != encoder:
            hint = "give the same options of the encoder, or leave out --resume and add -y to start again"
            raise UsageError(f"the unfinished output is of {job.encoder}, not of {encoder}", begun, hint=hint)
    if any((job.provider, job.engine) != (first.provider, first.engine) for job in jobs.values()):
        raise UsageError("unfinished outputs of different engines", output, hint="resume one at a time")
    engine = resolve_engine(options.engine)
    if engine.is_dir():
        engine = engine / first.engine
        if not engine.is_file():
            hint = "put it back, or leave out --resume and add -y to start again"
            raise UsageError("the engine of the unfinished output is missing", engine, hint=hint)
    provider = options.provider
    if engine.suffix.lower() == ".onnx" and first.provider in PROVIDERS:
        if provider not in ("auto", first.provider):
            hint = f"give --provider {first.provider}, or leave out --resume and add -y to start again"
            raise UsageError(f"the unfinished output was begun with --provider {first.provider}", output, hint=hint)
        provider = first.provider
    pixels = options.pixels
    if pixels == "auto" and not (engine.is_file() and takes_planes(engine)):
        pixels = "yuv420" if Path(first.engine).stem.endswith(YUV420_SUFFIX) else "bgr"
    return replace(options, engine=engine, provider=provider, pixels=pixels)


def resume(source: Source, sink: Sink) -> int:
    """Continue an unfinished output and return the number of source frames that it holds.

    Call it before the first frame is read. Raises UsageError if the source or the sink is not one video file, or if
    the unfinished output is of another job.
    """
    if not isinstance(sink, VideoSink) or not isinstance(source, VideoSource):
        raise UsageError(
            "only a video into a video can be resumed", hint="leave out --resume, or write one video alone"
        )
    frames = sink.resume(source.start)
    if frames:
        source.skip(frames)
    return frames


def is_resumable(source: Source, outputs: list[str], options: RunOptions) -> bool:
    """Whether `--resume` can continue what a run leaves unfinished: one video that is written from one video."""
    is_video = len(outputs) == 1 and Path(outputs[0]).suffix.lower() in SUFFIXES
    return is_video and isinstance(source, VideoSource) and not (options.show or options.segment_s)
