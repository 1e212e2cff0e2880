"""Choice of the form of frames between source, engine and output: planes of 4:2:0 where all three can keep them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.engines import find_yuv420_engine, resolve_engine
from runtime.engines.choice import SUFFIXES
from runtime.engines.variants import PixelChoice, takes_planes
from runtime.errors import UsageError
from runtime.options import RunOptions
from runtime.sources import Source

ENGINE_TAKES_BGR = "the engine takes BGR"
"""Reason for BGR where the choice among the engines of a folder, or a twin that cannot be used, has decided it."""


def choose_pixels(options: RunOptions, sources: Sequence[Source]) -> tuple[PixelChoice, str]:
    """Return the form of frames that the engine of a run is to be opened for, and why it is BGR; empty if it is not.

    Outputs have no say: what shows or stores BGR (windows, images, the status page) converts the planes that it gets.
    `auto` leaves the last word to the engines of a folder, or to the twin for planes, which may not run here. Raises
    UsageError if the options or the engine ask for planes and something in the run needs BGR, or the reverse.
    """
    engine = resolve_engine(options.engine)
    is_for_planes = _is_for_planes(engine)
    if options.pixels == "bgr":
        if is_for_planes:
            raise UsageError("engine is for planes of 4:2:0", engine, hint="give the engine for BGR frames")
        return "bgr", "as requested"
    reason = next(_find_obstacles(options, sources, engine), "")
    if not reason:
        return "yuv420" if is_for_planes else options.pixels, ""
    if options.pixels == "yuv420" or is_for_planes:
        hint = "give the engine for BGR frames" if is_for_planes else "leave out --pixels"
        raise UsageError(f"frames cannot be kept as planes: {reason}", hint=hint)
    return "bgr", reason


def may_take_planes(options: RunOptions) -> bool:
    """Return whether the engine of a run may take planes, before its sources are opened."""
    engine = resolve_engine(options.engine)
    return options.pixels != "bgr" and not next(_find_engine_obstacles(options, engine), "")


def _find_obstacles(options: RunOptions, sources: Sequence[Source], engine: Path) -> Iterator[str]:
    """Yield what in a run needs BGR frames."""
    for source in sources:
        if not source.info.has_planes:
            yield f"{source.info.name} does not deliver planes of 4:2:0"
    yield from _find_engine_obstacles(options, engine)


def _find_engine_obstacles(options: RunOptions, engine: Path) -> Iterator[str]:
    if _is_for_planes(engine):
        return
    if options.watch_engine:
        yield "the watched engine takes BGR"
    if not _has_engine_for_planes(engine):
        yield "there is no engine for planes beside the engine"


def _is_for_planes(engine: Path) -> bool:
    return engine.is_file() and takes_planes(engine)


def _has_engine_for_planes(engine: Path) -> bool:
    if engine.is_dir():
        return any(file.suffix.lower() in SUFFIXES and takes_planes(file) for file in engine.iterdir())
    return find_yuv420_engine(engine) is not None
