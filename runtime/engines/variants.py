"""Engines of the same network for BGR frames and for planes, which lie beside each other."""

from __future__ import annotations

from pathlib import Path

from runtime.engines.onnx import inspect

YUV420_SUFFIX = "_yuv420"
"""End of the name of an engine for planes, behind the name of the engine for BGR frames."""


def find_yuv420_engine(path: Path) -> Path | None:
    """Return the engine for planes that was exported with an engine, or `path` if it is one; None without one."""
    if path.stem.endswith(YUV420_SUFFIX):
        return path if path.is_file() else None
    twin = path.with_name(f"{path.stem}{YUV420_SUFFIX}{path.suffix}")
    if path.suffix.lower() != ".onnx" or not (path.is_file() and twin.is_file()):
        return None
    own, other = inspect(path), inspect(twin)
    is_same_network = (own.weights_sha256, own.precision) == (other.weights_sha256, other.precision)
    return twin if is_same_network and other.pixels == "yuv420" else None
