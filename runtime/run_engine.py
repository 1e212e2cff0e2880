"""The engine of a run, opened as its options say."""

from __future__ import annotations

from runtime.cli import say
from runtime.engines import PROVIDERS, Engine, Mode, TiledEngine, open_engine, resolve_engine
from runtime.engines.variants import PixelChoice
from runtime.engines.watched import WatchedEngine
from runtime.frame import Size
from runtime.options import RunOptions
from runtime.resume import EngineFile


def open_run_engine(options: RunOptions, size: Size, mode: Mode, pixels: PixelChoice) -> tuple[Engine, EngineFile]:
    """Open the engine of a run, which has one file; `size` of the frames decides between the engines of a folder."""
    provider = options.provider

    def open_once() -> TiledEngine:
        nonlocal provider
        engine = open_engine(
            options.engine,
            provider=provider,
            threads=options.threads,
            mode=mode,
            rebuild=options.rebuild,
            size=size,
            pixels=pixels,
            tile=options.tile,
            overlap_px=options.overlap_px,
            say=say,
        )
        if engine.provider in PROVIDERS:
            # A new engine file gets the same provider: a trial would mislead while frames are restored.
            provider = engine.provider
        return engine

    path = resolve_engine(options.engine)
    if options.watch_engine:
        return WatchedEngine(path, open_once, say=say), EngineFile.read(path)
    engine = open_once()
    return engine, EngineFile.read(engine.path or path)
