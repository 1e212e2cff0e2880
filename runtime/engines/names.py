"""Names and settings of engines: bundled names, providers, and checks that open nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from runtime.engines.base import MODES
from runtime.engines.onnx_providers import GPU_PROVIDERS
from runtime.engines.parallel import available_cores
from runtime.engines.triton import is_triton
from runtime.errors import EngineError, UsageError, require_in_range
from runtime.model_folder import find_model, list_model_folders

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt", "trt-rtx", "coreml"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
BUNDLED_NAMES = ("edge-s", "edge-m", "edge-l", "edge-l-gan")
"""Names of the engines that come with the package."""
BUNDLED_HELP = f"bundled engine {BUNDLED_NAMES[0]} (default), {', '.join(BUNDLED_NAMES[1:-1])} or {BUNDLED_NAMES[-1]}"
"""Start of the help text of `--engine`."""
MODELS = Path(__file__).parent.parent / "models"
BUNDLED = MODELS / f"{BUNDLED_NAMES[0]}_int8_cpu.onnx"
"""Default engine."""
MAX_THREADS = 256
"""Largest number of threads that may be asked for where there are fewer cores; a library may take minutes for more."""
_SUFFIXES = (".onnx", ".plan")


def resolve_engine(engine: str | Path, provider: str = "auto") -> Path:
    """Return the path of an engine; a bundled name means its INT8 file for CPUs, unless a file has that name.

    With a provider that runs on a GPU it means the FP16 file: a GPU computes the INT8 layout of CPUs in float. A folder
    of a bundled name is taken only if it holds engines: it may hold images that the engine restored. The name of one of
    the user's models means its engine, or the folder of its engines.
    """
    path, is_bundled_name = Path(engine), str(engine) in BUNDLED_NAMES
    try:
        if path.exists() and not (is_bundled_name and path.is_dir() and not _holds_engines(path)):
            return path
    except (OSError, ValueError):  # `require_engine` says why
        return path
    if is_bundled_name:
        return MODELS / f"{engine}_{'fp16' if provider in GPU_PROVIDERS else 'int8_cpu'}.onnx"
    return find_model(str(engine)) or path


def _holds_engines(folder: Path) -> bool:
    return any(file.suffix.lower() in _SUFFIXES for file in folder.iterdir())


def require_settings(provider: str, threads: int, mode: str) -> None:
    """Raise UsageError for a provider or mode that does not exist, and for an impossible number of threads."""
    if provider not in PROVIDERS:
        raise UsageError(f"unknown provider {provider!r}", hint=f"use one of {', '.join(PROVIDERS)}")
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}", hint=f"use one of {', '.join(MODES)}")
    require_in_range("number of threads (0 for every core)", threads, 0, max(MAX_THREADS, available_cores()))


def require_engine(engine: str | Path) -> None:
    """Raise EngineError if there is no engine of this bundled name or path; opens nothing."""
    path = resolve_engine(engine)
    names = [*BUNDLED_NAMES, *(folder.name for folder in list_model_folders())]
    hint = f"check the path, or use {', '.join(names[:-1])} or {names[-1]}"
    if is_triton(path):
        return
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EngineError("no such engine", path, hint=hint) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot be read ({getattr(error, 'strerror', error)})", path, hint=hint) from error
    if path.is_dir():
        return
    if not path.is_file():
        raise EngineError("engine is not a file", path, hint=hint)
    if path.suffix.lower() not in _SUFFIXES:
        kind = path.suffix or "without a suffix"
        raise EngineError(f"unknown kind of engine ({kind})", path, hint="give an .onnx file or a .plan")
    if path.stat().st_size == 0:
        raise EngineError("engine is empty", path, hint="export it again")
