"""Engines restore frames: `open_engine` opens one by name, file, folder or address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from runtime.engines.base import MODES, Engine, Mode
from runtime.engines.choice import choose_engine, is_for_cpus_on_gpu
from runtime.engines.names import (
    BUNDLED,
    BUNDLED_HELP,
    BUNDLED_NAMES,
    MODELS,
    PROVIDERS,
    Provider,
    require_engine,
    require_settings,
    resolve_engine,
)
from runtime.engines.onnx import OnnxEngine
from runtime.engines.onnx_providers import GPU_PROVIDERS, has_provider
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.parallel import ParallelEngine, available_cores
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.tile_layout import OVERLAP_PX, require_tile
from runtime.engines.tiled import TiledEngine
from runtime.engines.timing import median_ms_per_frame, trial_frame
from runtime.engines.triton import TritonEngine, is_triton
from runtime.engines.variants import YUV420_SUFFIX, PixelChoice, find_yuv420_engine, open_in_form
from runtime.errors import EngineError, UnfitPlanError, UsageError
from runtime.frame import Size
from runtime.metrics import psnr_db
from runtime.spec import PIXEL_FORMATS, variant_name

DEFAULT_SIZE: Size = (640, 360)
"""Frame size for comparing the engines of a folder when the source does not state its size (folders of images)."""
_CPU_FILES = frozenset(
    MODELS / f"{name}_{variant_name('int8_cpu', pixels)}.onnx" for name in BUNDLED_NAMES for pixels in PIXEL_FORMATS
)
"""Bundled engines for CPUs; beside each lies the FP16 file for GPUs."""
_TRIAL_SIZE: Size = (320, 180)
"""Frame size for comparing ONNX Runtime and OpenVINO, moved into the engine's range."""
_MIN_AGREEMENT_DB = 40.0
"""PSNR between the outputs of both libraries below which OpenVINO is not used.

The bundled INT8 engines agree to 48 dB and more; a wrong result was seen with 31 dB.
"""


def open_engine(
    engine: str | Path = BUNDLED,
    *,
    provider: Provider = "auto",
    threads: int = 0,
    mode: Mode = "latency",
    rebuild: bool = False,
    size: Size = DEFAULT_SIZE,
    pixels: PixelChoice = "bgr",
    tile: Size | None = None,
    overlap_px: int = OVERLAP_PX,
    say: Callable[[str], None] = lambda _: None,
) -> TiledEngine:
    """Open an engine for frames of any size; it pads and tiles by itself and is a context manager.

    Args:
        engine: a bundled name (`edge-s`, `edge-m`, `edge-l`, `edge-l-gan`), an `.onnx` file, a `.plan` with its
            sidecar, a folder of them (the fastest that keeps its quality budget is measured and used), or
            `triton://HOST:PORT/MODEL`.
        provider: the library that runs an `.onnx` file. `auto` is CUDA where ONNX Runtime has it, else the faster of
            ONNX Runtime and OpenVINO in a short measurement; `backend` of the result says which. On a GPU a bundled
            engine is its FP16 file.
        threads: number of CPU threads; 0 for every core.
        mode: `latency` works on one frame at a time, `throughput` on several where the backend can.
        rebuild: build a plan again from its ONNX file if it does not fit this machine.
        size: width and height in pixels of the frames to compare the engines of a folder with.
        pixels: form of the frames; `yuv420` opens the engine for planes that was exported with `engine`, and `auto`
            does so where it can be used here. `spec.pixels` of the result says which it is.
        tile: width and height in pixels of tiles; None for tiles only where a frame is outside the engine's range or
            does not fit into memory.
        overlap_px: overlap of neighbouring tiles in pixels.
        say: receives one line of text about each decision that was made.

    Raises:
        EngineError: the engine is missing, damaged, or not for this machine; the message says what to do.
        OutOfMemoryError: the engine does not fit into memory.
        UsageError: the tile is too small, or the provider, the mode or the number of threads is impossible.
    """
    require_settings(provider, threads, mode)
    require_tile(tile, overlap_px)
    if pixels not in get_args(PixelChoice):
        raise UsageError(f"unknown form of frames {pixels!r}", hint=f"use {', '.join(get_args(PixelChoice))}")
    path = resolve_engine(engine)
    require_engine(path)

    def open_one(file: Path) -> Engine:
        return open_backend(file, provider=provider, threads=threads, mode=mode, rebuild=rebuild)

    def open_file(file: Path) -> tuple[Engine, Path]:
        fp16 = file.with_name(file.name.replace("_int8_cpu", "_fp16"))
        if file not in _CPU_FILES or provider not in {"auto", *GPU_PROVIDERS} or not fp16.is_file():
            return open_one(file), file
        backend = open_one(fp16) if provider != "auto" else _open_auto(fp16, threads, mode, cpu_path=file)
        if backend.spec.precision != "fp16":
            return backend, file
        say(f"chosen  {fp16.name}, because {file.name} is for CPUs")
        return backend, fp16

    if path.is_dir():
        backend, path, reason = choose_engine(
            path, open_one, size=size, pixels=pixels, settings=(provider, threads, mode), say=say
        )
        say(f"chosen  {reason}")
    else:
        backend, path = open_in_form(path, pixels, open_file, say)
        _warn_of_precision(backend, say)
    return TiledEngine(backend, path=path, tile=tile, overlap_px=overlap_px, say=say)


def _warn_of_precision(backend: Engine, say: Callable[[str], None]) -> None:
    """Warn of an engine whose precision is for other processors than the one that it runs on."""
    if backend.spec.precision == "fp16" and backend.provider in {"cpu", "openvino"}:
        say("warning: an FP16 engine is several times slower on a CPU than an INT8 engine for CPUs (NAME_int8_cpu)")
    if is_for_cpus_on_gpu(backend):
        say("warning: an INT8 engine for CPUs is slower on a GPU than an FP16 engine (NAME_fp16)")


def open_backend(
    engine: str | Path,
    *,
    provider: Provider = "auto",
    threads: int = 0,
    mode: Mode = "latency",
    rebuild: bool = False,
) -> Engine:
    """Open one engine file or Triton address without tiling: frames outside its range raise EngineError.

    Arguments and errors are those of `open_engine`.
    """
    path = resolve_engine(engine, provider)
    require_settings(provider, threads, mode)
    require_engine(path)
    if is_triton(path):
        return TritonEngine(path)
    if path.is_dir():
        raise EngineError("engine is a folder", path, hint="give one engine of it")
    if path.suffix.lower() == ".plan":
        return _open_plan(path, mode=mode, rebuild=rebuild)
    if provider == "openvino":
        return OpenVinoEngine(path, threads=threads, mode=mode)
    if provider == "auto":
        return _open_auto(path, threads, mode)
    return _open_cpu(path, threads, mode) if provider == "cpu" else OnnxEngine(path, provider=provider, threads=threads)


def _open_plan(path: Path, *, mode: Mode, rebuild: bool) -> Engine:
    try:
        return TensorRtEngine(path, mode=mode)
    except UnfitPlanError as error:
        if not rebuild:
            raise
        command = [sys.executable, *error.rebuild]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:  # noqa: S603 - our own command
            raise EngineError(f"{error.what}, and building it again failed", path, hint="see above") from error
    return TensorRtEngine(path, mode=mode)


def _open_cpu(path: Path, threads: int, mode: Mode) -> OnnxEngine | ParallelEngine:
    if mode == "throughput" and (threads or available_cores()) > 1:
        return ParallelEngine(path, threads=threads)
    return OnnxEngine(path, threads=threads)


def _open_auto(path: Path, threads: int, mode: Mode, *, cpu_path: Path | None = None) -> Engine:
    """Open an engine on CUDA if that is possible, else on the CPU; `cpu_path`: the file for the CPU if it is another.

    `backend` says why CUDA is not used, where ONNX Runtime has it.
    """
    reason = ""
    if has_provider("cuda"):
        try:
            return OnnxEngine(path, provider="cuda", threads=threads)
        except EngineError as error:
            reason = error.what
    path = cpu_path or path
    engine = _open_faster(path, threads, mode) if find_spec("openvino") else _open_cpu(path, threads, mode)
    engine.backend += f" (not CUDA: {reason})" if reason else ""
    return engine


def _open_faster(path: Path, threads: int, mode: Mode) -> OnnxEngine | ParallelEngine | OpenVinoEngine:
    """Open an engine with ONNX Runtime or OpenVINO, whichever is faster on a small frame on this machine.

    OpenVINO is used only if its output agrees with ONNX Runtime's: it computes some quantised networks wrongly.
    """
    default = _open_cpu(path, threads, mode)
    ranges = (default.spec.width, default.spec.height)
    width, height = (min(max(side, low), high) for side, (low, high) in zip(_TRIAL_SIZE, ranges, strict=True))
    frame = trial_frame((width, height), default.spec.pixels)
    try:
        other = OpenVinoEngine(path, threads=threads, mode=mode)
    except EngineError:  # OpenVINO has fewer operators
        return default
    try:
        agreement_db = psnr_db(default.infer(frame)[0], other.infer(frame)[0])
        default_ms, other_ms = median_ms_per_frame([default, other], frame)
    except EngineError:
        other.close()
        return default
    if agreement_db < _MIN_AGREEMENT_DB:
        other.close()
        default.backend += f" (OpenVINO's output differs: {agreement_db:.0f} dB)"
        return default
    if other_ms < default_ms:
        default.close()
        other.backend += f" ({other_ms:.1f} ms for {width}x{height}; ONNX Runtime {default_ms:.1f})"
        return other
    other.close()
    default.backend += f" ({default_ms:.1f} ms for {width}x{height}; OpenVINO {other_ms:.1f})"
    return default


__all__ = [
    "BUNDLED",
    "BUNDLED_HELP",
    "BUNDLED_NAMES",
    "DEFAULT_SIZE",
    "MODES",
    "PROVIDERS",
    "YUV420_SUFFIX",
    "Engine",
    "Mode",
    "Provider",
    "TiledEngine",
    "find_yuv420_engine",
    "open_backend",
    "open_engine",
    "require_engine",
    "require_settings",
    "resolve_engine",
]
