"""What sharpens frames: `open_engine` picks the backend by the file."""

from __future__ import annotations

from pathlib import Path

from runtime.engines.base import Engine
from runtime.engines.onnx import PROVIDERS, OnnxEngine, Provider
from runtime.errors import EngineError

BUNDLED = Path(__file__).parent.parent / "models" / "deblur_edge_fp32.onnx"
"""The engine that comes with the package."""


def open_engine(path: Path = BUNDLED, *, provider: Provider = "auto", threads: int = 0) -> Engine:
    """Open an engine file.

    `threads`: of the CPU for one frame; 0 for all cores. Raises EngineError with what is wrong
    and what to do.
    """
    hint = "check the path, or leave out --engine for the bundled one"
    if not path.exists():
        raise EngineError("no such engine", path, hint=hint)
    if not path.is_file():
        raise EngineError("engine is not a file", path, hint=hint)
    if path.suffix.lower() != ".onnx":
        raise EngineError(
            f"engines of kind {path.suffix or 'without suffix'} are not known", path, hint="give an .onnx file"
        )
    if path.stat().st_size == 0:
        raise EngineError("engine is empty", path, hint="export it again")
    return OnnxEngine(path, provider=provider, threads=threads)


__all__ = ["BUNDLED", "PROVIDERS", "Engine", "Provider", "open_engine"]
