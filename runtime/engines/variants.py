"""Engines of the same network for BGR frames and for planes, which lie beside each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from runtime.engines.base import Engine
from runtime.engines.onnx import inspect
from runtime.errors import EngineError
from runtime.sidecar import Sidecar, sidecar_path
from runtime.spec import EngineSpec, PixelFormat

YUV420_SUFFIX = "_yuv420"
"""End of the name of an engine for planes, behind the name of the engine for BGR frames."""
PixelChoice = Literal["auto", PixelFormat]
"""Form of frames that is asked for; `auto` is planes where an engine for them can be used."""


def read_spec(path: Path) -> EngineSpec | None:
    """Return the spec of an engine file without opening it; None for a damaged file and for one on a server."""
    with suppress(EngineError, OSError, ValueError):
        if path.suffix.lower() == ".plan":
            return Sidecar.from_json(sidecar_path(path).read_text()).engine
        if path.suffix.lower() == ".onnx":
            status = path.stat()
            return _inspect(path, status.st_mtime_ns, status.st_size)
    return None


@lru_cache(maxsize=64)
def _inspect(path: Path, _modified_ns: int, _size: int) -> EngineSpec:
    """Return the spec of an ONNX file, which is read once in each state: a run asks several times, 15 ms each."""
    return inspect(path)


def takes_planes(path: Path) -> bool:
    """Return whether an engine file is one for planes."""
    spec = read_spec(path)
    return path.stem.endswith(YUV420_SUFFIX) if spec is None else spec.pixels == "yuv420"


def find_yuv420_engine(path: Path) -> Path | None:
    """Return the engine for planes that was exported with an engine, or `path` if it is one; None without one."""
    twin = path.with_name(f"{path.stem}{YUV420_SUFFIX}{path.suffix}")
    own = read_spec(path) if path.is_file() else None
    if own is None or own.pixels == "yuv420":
        return path if own else None
    other = read_spec(twin) if twin.is_file() else None
    if other is None or other.pixels != "yuv420":
        return None
    is_same_network = (own.weights_sha256, own.precision) == (other.weights_sha256, other.precision)
    return twin if is_same_network else None


def open_in_form(
    path: Path,
    pixels: PixelChoice,
    open_file: Callable[[Path], tuple[Engine, Path]],
    say: Callable[[str], None],
) -> tuple[Engine, Path]:
    """Open an engine file, or its twin for planes if that is asked for; return the engine and the file that is open.

    `auto` takes the engine for BGR where the twin cannot be opened, and `say` gets the reason. Raises EngineError.
    """
    twin = find_yuv420_engine(path) if pixels != "bgr" else None
    if twin is None and pixels == "yuv420":
        raise EngineError("no engine for planes of 4:2:0 lies beside the engine", path, hint="take frames as BGR")
    if twin is None or twin == path:
        return open_file(path)
    try:
        return open_file(twin)
    except EngineError as error:
        if pixels == "yuv420":
            raise
        opened = open_file(path)
        say(f"chosen  {path.name}, because {twin.name} cannot be used ({error.what})")
        return opened
