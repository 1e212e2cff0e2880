"""The execution providers of ONNX Runtime: their names, their options, and why one cannot be used here."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from runtime.engines import onnx_plugin
from runtime.engines.cuda import probe
from runtime.errors import EngineError
from runtime.files import sha256
from runtime.spec import EngineSpec

OrtProvider = Literal["cpu", "cuda", "tensorrt", "trt-rtx", "coreml"]
ORT_NAMES: dict[OrtProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "trt-rtx": onnx_plugin.NAME,
    "coreml": "CoreMLExecutionProvider",
}
GPU_PROVIDERS = frozenset({"cuda", "tensorrt", "trt-rtx"})
"""Providers that run on an NVIDIA GPU."""
_TENSORRT_PROVIDERS = frozenset({"tensorrt", "trt-rtx"})
_GPU_BUILD = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' cuda-bindings"
_LIBRARIES = {"cuda": "libonnxruntime_providers_cuda.so", "tensorrt": "libonnxruntime_providers_tensorrt.so"}
"""Files of ONNX Runtime that need NVIDIA's libraries."""
BIAS_ROUNDING = "WeightBiasQuantization"
"""Optimiser of ONNX Runtime that rounds biases of quantised convolutions to multiples of a scale, before any provider
sees the graph. TensorRT takes no quantised biases, and scales in half precision may overflow."""


def has_provider(provider: OrtProvider) -> bool:
    """Return whether the installed build of ONNX Runtime, or a plug-in of it, contains a provider."""
    if provider == "trt-rtx":
        return onnx_plugin.is_installed()
    return ORT_NAMES[provider] in ort.get_available_providers()


def require_provider(provider: OrtProvider, path: Path) -> None:
    """Raise EngineError if a provider is not installed, or needs a GPU where there is none."""
    if provider == "trt-rtx":
        onnx_plugin.require_installed(path)
    elif not has_provider(provider):
        available = " or ".join(name for name in ORT_NAMES if has_provider(name))
        install = f"{_GPU_BUILD}, or " if provider in GPU_PROVIDERS else ""
        raise EngineError(
            f"provider {provider} is not in this build of ONNX Runtime", path, hint=f"{install}use provider {available}"
        )
    if provider in GPU_PROVIDERS:
        try:
            probe()
        except EngineError as error:
            raise EngineError(f"{error.what}, as {provider} needs", path, hint="use provider cpu") from error


def require_precision(provider: OrtProvider, spec: EngineSpec, path: Path) -> None:
    """Raise EngineError for an engine of a precision that a provider does not take."""
    if provider in _TENSORRT_PROVIDERS and spec.precision == "int8_cpu":
        raise EngineError(
            f"{provider} takes no INT8 engine for CPUs", path, hint="give NAME_fp16.onnx or NAME_int8.onnx of it"
        )


def provider_options(
    provider: OrtProvider, spec: EngineSpec, path: Path, input_name: str, *, with_graphs: bool = False
) -> dict[str, str]:
    """Return the options of a provider for an engine; `with_graphs`: with CUDA graphs, where the provider is `cuda`.

    Not set are `cudnn_conv_algo_search` (its default, an exhaustive search at the first frame of a size, pays for a
    stream of one size), `do_copy_in_default_stream` (frames are bound on the device: ONNX Runtime copies none), and
    `user_compute_stream` (a replayed graph waits for its stream anyway).
    """
    if provider == "cuda":
        return {
            "use_tf32": "0",  # TF32 would round FP32 engines
            "prefer_nhwc": str(int(spec.precision == "fp16")),  # the order of tensor cores; FP32 does not use them
            "enable_cuda_graph": str(int(with_graphs)),
        }
    if provider == "tensorrt":
        cache = str(path.with_name(f".{path.name}.tensorrt"))
        # The graph states every type. TensorRT refuses types whose flag is not set; the tensors between the
        # convolutions of an INT8 engine may be FP16.
        return {
            "trt_fp16_enable": str(int(spec.precision in {"fp16", "int8"})),
            "trt_int8_enable": str(int(spec.precision == "int8")),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": cache,
        }
    return onnx_plugin.session_options(spec, input_name, _kernel_cache(path)) if provider == "trt-rtx" else {}


def _kernel_cache(path: Path) -> Path:
    """Return the folder of the kernels that TensorRT-RTX compiles for an engine; other content, other folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "deblur" / "trt-rtx" / sha256(path)[:16]


def preload_libraries(provider: OrtProvider) -> None:
    """Load NVIDIA's libraries from the packages of pip, where ONNX Runtime does not look by itself."""
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload and provider in {"cuda", "tensorrt"}:
        with silence(), redirect_stdout(StringIO()):  # what is missing is printed; `start_error` says it
            preload(directory="")
    if provider == "tensorrt":
        with suppress(ImportError, OSError):  # it may be installed without its Python module
            importlib.import_module("tensorrt")


@contextmanager
def silence() -> Iterator[None]:
    """Keep what ONNX Runtime logs outside a session from the terminal: the user gets one line."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)


def start_error(provider: OrtProvider, path: Path, reason: str = "") -> EngineError:
    """Return the error for a provider that ONNX Runtime has and cannot start; `reason`: its message, if it has one."""
    reason = _missing_library(provider) or reason
    return EngineError(
        f"ONNX Runtime could not start {provider}" + (f" ({reason})" if reason else ""),
        path,
        hint="install the libraries that it needs, or use provider cpu",
    )


def _missing_library(provider: OrtProvider) -> str:
    """Return what the loader misses of the libraries of a provider; ONNX Runtime only writes it to its log."""
    name = _LIBRARIES.get(provider)
    library = Path(ort.__file__).parent / "capi" / name if name else None
    if library is None or not library.exists():
        return ""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""
