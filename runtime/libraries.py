"""Libraries that may be missing: how to install each, and one line instead of a traceback in every command."""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import cast

from runtime.errors import UsageError

_EXTRAS = {
    "": {"av": "av>=17,<19", "cv2": "opencv-python>=4.8", "numpy": "numpy>=1.24", "onnxruntime": "onnxruntime>=1.20"},
    "train": {
        "matplotlib": "matplotlib>=3.8",
        "safetensors": "safetensors>=0.5",
        "tensorboard": "tensorboard>=2.16",
        "torch": "torch>=2.11",
        "torchmetrics": "torchmetrics>=1.6",
        "tqdm": "tqdm>=4.66",
        "transformers": "transformers>=5",
    },
    "export": {"onnx": "onnx>=1.18", "onnx_ir": "onnx-ir>=0.1.9", "onnxscript": "onnxscript>=0.5"},
    "openvino": {"openvino": "openvino>=2025"},
    "rtx": {"tensorrt_rtx": "tensorrt-rtx>=1.7", "cuda": "cuda-bindings>=12"},
    "trt-rtx": {"onnxruntime_ep_nv_tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx-cu12>=0.5"},
    "tensorrt": {"tensorrt": "tensorrt>=10.3", "pycuda": "pycuda>=2024.1"},
    "bench": {
        "jsonschema": "jsonschema>=4.20",
        "markdown": "markdown>=3.5",
        "pynvml": "nvidia-ml-py>=12",
        "skimage": "scikit-image>=0.24",
    },
    "bundle": {"zstandard": "zstandard>=0.22"},
    "fleet": {"ray": "ray>=2.40", "tritonclient": "tritonclient[grpc]>=2.50"},
    "web": {"PIL": "pillow>=10", "streamlit": "streamlit>=1.65"},
}
"""Requirements of pyproject.toml by extra and by module; a test compares them."""
_REQUIREMENTS = {module: text for extra in _EXTRAS.values() for module, text in extra.items()}
_PACKAGES = ("runtime", "train", "export", "benchmarks")
"""Packages whose modules are commands."""


def install_hint(*modules: str) -> str:
    """Return the command that installs the libraries of some modules, for a checkout and for an installed package.

    The toolkit is not on PyPI, so the command names the libraries and not an extra of the toolkit.
    """
    return "pip install " + " ".join(shlex.quote(_REQUIREMENTS[module]) for module in modules)


def import_openvino() -> ModuleType:
    """Return the module `openvino`, imported without its telemetry; raises ImportError.

    OpenVINO's telemetry reports each import to a server from a fork of the process. The fork may hang for ever, as it
    lacks the threads that hold its locks, and then keeps pipes and files of the process open. Without the package of
    the telemetry, OpenVINO uses a stub.
    """
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return import_module("openvino")
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    modules[telemetry] = None  # "not installed"
    try:
        return import_module("openvino")
    finally:
        del modules[telemetry]


def explain_import_error(error: BaseException) -> UsageError | None:
    """Return the line for the user if a library of the toolkit cannot be imported; None for any other exception."""
    if not isinstance(error, ImportError):
        return None
    if isinstance(error.__cause__, ImportError):  # one that was raised again with this line
        error = error.__cause__
    module = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) and (module == "cv2" or _comes_from("cv2", error.__traceback__)):
        return UsageError(
            f"OpenCV cannot be loaded ({error.msg})",
            hint="on Debian and Ubuntu apt install libgl1 libglib2.0-0, or without windows: "
            "pip uninstall opencv-python, and pip install opencv-python-headless",
        )
    if module not in _REQUIREMENTS:
        return None
    if module in _EXTRAS[""]:
        hint = "pip install . in the folder of the toolkit"
    else:
        extra = next(modules for modules in _EXTRAS.values() if module in modules)
        hint = install_hint(module, *(other for other in extra if other != module and not find_spec(other)))
    return UsageError(f"{module} cannot be imported ({error.msg})", hint=hint)


def _comes_from(module: str, trace: TracebackType | None) -> bool:
    """Return whether an exception was raised inside a module or one of its submodules."""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == module:
            return True
        trace = trace.tb_next
    return False


def report_import_errors() -> None:
    """Let a command of the toolkit end with one line if a library cannot be imported; does nothing in other processes.

    A command imports its libraries before any function of it can catch their exceptions.
    """
    if not _is_our_command():
        return
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        explained = explain_import_error(error)
        if explained is None:
            show(kind, error, trace)
            return
        print(f"error: {explained}", file=sys.stderr)
        raise SystemExit(explained.exit_code)

    sys.excepthook = hook


def _is_our_command() -> bool:
    """Return whether this process runs a console script of ours, or `python -m` with a module of ours."""
    if Path(sys.argv[0]).name.startswith("deblur"):
        return True
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "").split(".")[0] in _PACKAGES
        if word == "-c" or not word.startswith("-"):
            break
    return False
