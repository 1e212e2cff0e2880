"""What sharpens frames: `open_engine` picks the backend by the file."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from runtime.engines.base import MODES, Engine, Mode
from runtime.engines.onnx import OnnxEngine, has_provider
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.parallel import ParallelEngine, cores_there
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.trial import median_ms, trial_frame
from runtime.engines.triton import TritonEngine, is_triton
from runtime.errors import EngineError, UnfitPlanError
from runtime.metrics import psnr_db

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt", "coreml"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
BUNDLED_NAMES = ("edge-s", "edge-m", "edge-l")
"""Of the engines that come with the package."""
_TRIAL = (320, 180)
"""Or the nearest size that the engine takes."""
_ALIKE_DB = 40.0
"""Of both libraries' results. The bundled engines have 48 dB (INT8) and more; a wrong one was seen with 31."""


def engine_path(text: str) -> Path:
    """A path; or an engine that comes with the package by its name, in 8 bits for CPUs, where no file has that name."""
    path = Path(text)
    return _bundled(text) if text in BUNDLED_NAMES and not path.exists() else path


def _bundled(name: str) -> Path:
    return Path(__file__).parent.parent / "models" / f"{name}_int8_cpu.onnx"


BUNDLED = _bundled(BUNDLED_NAMES[0])
"""The engine that is taken where none is asked for."""


def open_engine(
    path: Path = BUNDLED,
    *,
    provider: Provider = "auto",
    threads: int = 0,
    mode: Mode = "latency",
    rebuild: bool = False,
) -> Engine:
    """Open an engine: an `.onnx`, a `.plan` with its sidecar, or `triton://HOST:PORT/MODEL` as a path.

    `provider`: what runs an ONNX file; `auto` takes CUDA where ONNX Runtime has it, else
    whichever of ONNX Runtime and OpenVINO is installed and faster, which is tried and told in
    `backend`. `threads`: of the CPU; 0 for all cores. `mode`: `throughput` has several frames under
    way, on ONNX Runtime's CPU provider and in plans; others take one at a time all the same.
    `rebuild`: a plan that does not fit this machine is built again from its ONNX file. Raises
    EngineError with what is wrong and what to do.
    """
    if is_triton(path):
        return TritonEngine(path)
    _require_file(path)
    if path.suffix.lower() != ".onnx":
        return _plan(path, mode=mode, rebuild=rebuild)
    if provider == "openvino":
        return OpenVinoEngine(path, threads=threads)
    if provider == "auto":
        return _auto(path, threads, mode)
    return _cpu(path, threads, mode) if provider == "cpu" else OnnxEngine(path, provider=provider, threads=threads)


def _require_file(path: Path) -> None:
    hint = f"check the path, or take one that is bundled: --engine {' or '.join(BUNDLED_NAMES)}"
    if not path.exists():
        raise EngineError("no such engine", path, hint=hint)
    if not path.is_file():
        raise EngineError("engine is not a file", path, hint=hint)
    if path.suffix.lower() not in {".onnx", ".plan"}:
        raise EngineError(
            f"engines of kind {path.suffix or 'without suffix'} are not known",
            path,
            hint="give an .onnx file or a .plan",
        )
    if path.stat().st_size == 0:
        raise EngineError("engine is empty", path, hint="export it again")


def _plan(path: Path, *, mode: Mode, rebuild: bool) -> Engine:
    try:
        return TensorRtEngine(path, mode=mode)
    except UnfitPlanError as error:
        if not rebuild:
            raise
        command = [sys.executable, *error.rebuild]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:  # noqa: S603 - our own
            raise EngineError(f"{error.what}, and it could not be built again", path, hint="see above") from error
    return TensorRtEngine(path, mode=mode)


def _cpu(path: Path, threads: int, mode: Mode) -> OnnxEngine | ParallelEngine:
    if mode == "throughput" and (threads or cores_there()) > 1:
        return ParallelEngine(path, threads=threads)
    return OnnxEngine(path, threads=threads)


def _auto(path: Path, threads: int, mode: Mode) -> Engine:
    if has_provider("cuda"):
        with suppress(EngineError):  # a build for GPUs on a machine without one
            return OnnxEngine(path, provider="cuda", threads=threads)
    return _faster(path, threads, mode) if find_spec("openvino") else _cpu(path, threads, mode)


def _faster(path: Path, threads: int, mode: Mode) -> Engine:
    """ONNX Runtime or OpenVINO, whichever takes less time for a small frame here and now.

    OpenVINO only where it gives the same picture: it has been seen to compute some quantised networks otherwise.
    """
    default = _cpu(path, threads, mode)
    ranges = (default.spec.width, default.spec.height)
    width, height = (min(max(side, low), high) for side, (low, high) in zip(_TRIAL, ranges, strict=True))
    frame = trial_frame((width, height))
    try:
        other = OpenVinoEngine(path, threads=threads)
        agreement_db = psnr_db(default.infer(frame)[0], other.infer(frame)[0])
        default_ms, other_ms = median_ms([default, other], frame)
    except EngineError:  # it knows fewer operators
        return default
    if agreement_db < _ALIKE_DB:
        other.close()
        default.backend += f" (OpenVINO gives another picture: {agreement_db:.0f} dB)"
        return default
    if other_ms < default_ms:
        default.close()
        other.backend += f" ({other_ms:.1f} ms for a small frame; ONNX Runtime {default_ms:.1f})"
        return other
    other.close()
    default.backend += f" ({default_ms:.1f} ms for a small frame; OpenVINO {other_ms:.1f})"
    return default


__all__ = ["BUNDLED", "BUNDLED_NAMES", "MODES", "PROVIDERS", "Engine", "Mode", "Provider", "engine_path", "open_engine"]
