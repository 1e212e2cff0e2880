"""TensorRT-RTX as a plug-in of ONNX Runtime: the package `onnxruntime-ep-nv-tensorrt-rtx-cu12`.

It holds TensorRT-RTX and its parser. ONNX Runtime builds a plan from an ONNX file when the session starts, on the GPU
that runs it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime as ort

from runtime.engines.base import first_line
from runtime.errors import EngineError
from runtime.libraries import install_hint
from runtime.spec import EngineSpec, frame_shape

NAME = "NvTensorRTRTXExecutionProvider"
_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
_MIN_VERSION = (1, 24)
"""Version of ONNX Runtime that the plug-in needs."""
_CPU_HINT = "use provider cpu"
HEIGHT_PX, WIDTH_PX = (64, 720, 2176), (64, 1280, 3840)
"""Smallest, best and largest size of frames; others are padded or cut into tiles, as with a plan.

TensorRT-RTX plans scratch memory for the largest: 0.3 GB for `edge-s`, 0.4 GB for `edge-l` and 0.5 GB for
`edge-l-gan`.
"""


def is_installed() -> bool:
    """Return whether the plug-in is installed, and an ONNX Runtime that takes plug-ins."""
    version = tuple(map(int, ort.__version__.split(".")[:2]))
    return find_spec(_PACKAGE) is not None and version >= _MIN_VERSION


def require_installed(path: Path) -> None:
    """Raise EngineError unless `is_installed`; `path`: of the engine."""
    if find_spec(_PACKAGE) is None:
        raise EngineError("provider trt-rtx is not installed", path, hint=f"{install_hint(_PACKAGE)}, or {_CPU_HINT}")
    if not is_installed():
        raise EngineError(
            f"provider trt-rtx needs ONNX Runtime 1.24, this is {ort.__version__}",
            path,
            hint=f"pip install 'onnxruntime>=1.24' (Python 3.11 or newer), or {_CPU_HINT}",
        )


def open_device(path: Path) -> Any:
    """Register the plug-in, once in a process, and return its first device, an `onnxruntime.OrtEpDevice`.

    Raises EngineError, which names the engine `path`, if the plug-in cannot be loaded or finds no GPU.
    """
    try:
        library = Path(importlib.import_module(_PACKAGE).get_library_path())
        _load_cuda_runtime(library.parent)
        ort.register_execution_provider_library(NAME, str(library))
    except Exception as error:  # ONNX Runtime has an exception class of its own for each status code
        if "already registered" not in str(error):
            raise EngineError(f"trt-rtx cannot be loaded ({first_line(error)})", path, hint=_CPU_HINT) from error
    devices = [device for device in ort.get_ep_devices() if device.ep_name == NAME]
    if not devices:
        raise EngineError(
            "trt-rtx finds no GPU that it supports",
            path,
            hint="it needs compute capability 8.6, 8.9, or 12.0 and newer; use provider cuda or cpu",
        )
    return devices[0]


def _load_cuda_runtime(folder: Path) -> None:
    """Load the CUDA runtime that comes with the plug-in: the package leaves it to a toolkit that is installed."""
    for library in folder.glob("libcudart.so.*"):
        with suppress(OSError):  # then the plug-in says what it misses
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def limit_sizes(spec: EngineSpec) -> EngineSpec:
    """Return the spec with the range of sizes that a session is built for."""
    (low, _, high), (left, _, right) = _profile(spec.height, HEIGHT_PX), _profile(spec.width, WIDTH_PX)
    return dataclasses.replace(spec, height=(low, high), width=(left, right))


def session_options(spec: EngineSpec, input_name: str, kernel_cache: Path) -> dict[str, str]:
    """Return the options of a session for single frames; `kernel_cache`: folder of the kernels that it compiles.

    Without CUDA graphs: the provider documents them for a session that sees one shape only.
    """
    heights, widths = _profile(spec.height, HEIGHT_PX), _profile(spec.width, WIDTH_PX)
    names = ("min", "opt", "max")
    shapes = [
        frame_shape(spec.pixels, width=width, height=height) for width, height in zip(widths, heights, strict=True)
    ]
    profile = {
        f"nv_profile_{name}_shapes": f"{input_name}:" + "x".join(map(str, (1, *shape)))
        for name, shape in zip(names, shapes, strict=True)
    }
    return {"nv_runtime_cache_path": str(kernel_cache), **profile}


def _profile(accepted: tuple[int, int], wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return smallest, best and largest side: those wanted, moved into the range that an engine accepts."""
    low, best, high = (min(max(side, accepted[0]), accepted[1]) for side in wanted)
    return low, best, high
