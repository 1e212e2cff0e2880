"""Choice of the form of frames between source, engine and output: planes of 4:2:0 where all three can keep them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.engines import YUV420_SUFFIX, find_yuv420_engine, resolve_engine
from runtime.engines.onnx_providers import GPU_PROVIDERS, has_provider
from runtime.errors import UsageError, printable
from runtime.options import RunOptions
from runtime.sinks import NULL
from runtime.sinks.video import SUFFIXES
from runtime.sources import Source
from runtime.spec import PixelFormat
from runtime.urls import is_url

_MAX_PIXELS = 4096 * 2304
"""Largest frames that `auto` keeps as planes: larger ones may need tiles, which are cut from BGR."""


def choose_pixels(options: RunOptions, sources: Sequence[Source], outputs: Sequence[str]) -> tuple[PixelFormat, str]:
    """Return the form of the frames of a run, and why it is not planes; empty if it is.

    Raises UsageError if the options or the engine ask for planes and something in the run needs BGR.
    """
    if options.pixels == "bgr":
        return "bgr", "as requested"
    reason = next(_find_obstacles(options, sources, outputs), "")
    if not reason:
        return "yuv420", ""
    takes_planes = resolve_engine(options.engine).stem.endswith(YUV420_SUFFIX)
    if options.pixels == "yuv420" or takes_planes:
        hint = "give the engine for BGR frames" if takes_planes else "leave out --pixels"
        raise UsageError(f"frames cannot be kept as planes: {reason}", hint=hint)
    return "bgr", reason


def _find_obstacles(options: RunOptions, sources: Sequence[Source], outputs: Sequence[str]) -> Iterator[str]:
    """Yield what in a run needs BGR frames."""
    for source in sources:
        if not source.info.has_planes:
            yield f"{source.info.name} does not deliver planes of 4:2:0"
        width, height = source.info.size or (0, 0)
        if width * height > _MAX_PIXELS and options.pixels == "auto":
            yield f"frames of {width}x{height} may need tiles"
    if options.show or not (outputs or options.serve):
        yield "a window shows BGR"
    for output in outputs:
        if not (output == NULL or is_url(output) or Path(output).suffix.lower() in SUFFIXES):
            yield f"output {printable(output)} is no video"
    yield from _find_engine_obstacles(options)


def _find_engine_obstacles(options: RunOptions) -> Iterator[str]:
    if options.tile:
        yield "tiles are cut from BGR"
    if options.watch_engine:
        yield "a watched engine takes BGR"
    if options.provider in GPU_PROVIDERS or (options.provider == "auto" and has_provider("cuda")):
        yield "ONNX Runtime's GPU providers take BGR"
    if not _has_engine(resolve_engine(options.engine)):
        yield "there is no engine for planes beside the engine"


def _has_engine(path: Path) -> bool:
    if path.is_dir():
        return any(file.stem.endswith(YUV420_SUFFIX) for file in path.iterdir())
    return find_yuv420_engine(path) is not None
