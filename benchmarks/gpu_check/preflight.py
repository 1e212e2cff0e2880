"""First step of the GPU check: what the machine is and has, and what is missing for the other steps.

Every library is imported in a process of its own: a package for another version may end the process.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.steps import CheckError, Report
from benchmarks.harness.system_info import describe_machine

MODULES = {
    "numpy": "numpy",
    "cv2": "opencv-python",
    "av": "av",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "pycuda.driver": "pycuda",
    "cuda.bindings.driver": "cuda-bindings",
}
"""Modules of the GPU path, with the names of their packages."""
TOOLS = ("nvidia-smi", "tegrastats", "nvpmodel", "jetson_clocks", "trtexec", "gst-launch-1.0", "ffmpeg")
TRTEXEC = Path("usr/src/tensorrt/bin/trtexec")
"""Place of trtexec in JetPack and in NVIDIA's Debian packages, which is not on PATH."""
ARGUS_SOCKET = Path("tmp/argus_socket")
"""Socket of the service that reads CSI cameras on a Jetson."""
COMMANDS = {
    "commit": ("git", "rev-parse", "--short", "HEAD"),
    "power_mode": ("nvpmodel", "-q"),
    "clocks": ("jetson_clocks", "--show"),
    "jetpack": ("dpkg-query", "--show", "nvidia-jetpack"),
    "gpu_state": (
        "nvidia-smi",
        "--query-gpu=name,driver_version,pstate,clocks.sm,clocks.max.sm,memory.used,memory.total,power.limit",
        "--format=csv,noheader",
    ),
}
"""Commands whose output is a fact, where they are installed."""
_LIMIT_S = 60.0
_IMPORT = """
import importlib, importlib.metadata, json, sys
module = importlib.import_module(sys.argv[1])
if sys.argv[1].startswith("tensorrt"):
    module.Builder  # the package on PyPI is empty without NVIDIA's index
try:
    version = importlib.metadata.version(sys.argv[2])
except importlib.metadata.PackageNotFoundError:
    version = "unknown"
print(json.dumps({"version": str(getattr(module, "__version__", version)), "file": str(module.__file__)}))
"""
_OPENCV = """
import json, cv2, numpy
assert cv2.resize(numpy.full((8, 8, 3), 200, numpy.uint8), (4, 4)).mean() == 200
print(json.dumps({"gstreamer": "GStreamer:                   YES" in cv2.getBuildInformation()}))
"""
_GPU = """
import json
from dataclasses import asdict
from runtime.engines.cuda import probe
from runtime.errors import EngineError
try:
    print(json.dumps(asdict(probe())))
except EngineError as error:
    raise SystemExit(error.what)
"""


def check_machine(report: Report, *, root: str = "/") -> None:
    """Report system, modules, tools and GPU, and as `missing` what later steps lack; fail if OpenCV does not work."""
    place = Path(root)
    report.add(system=describe_machine(place), memory=_read_memory(place))
    release = place / "etc/nv_tegra_release"
    report.add(l4t=release.read_text().splitlines()[0] if release.is_file() else None)
    for name, command in COMMANDS.items():
        code, text = processes.read_output(command, limit_s=_LIMIT_S)
        if code and command[0] in TOOLS:  # jetson_clocks wants root
            text = f"it ended with code {code}: {processes.last_line(text)}"
        report.add(**{name: text if code == 0 or (code and command[0] in TOOLS) else None})
    report.add(gpu_clock_mhz=_read_gpu_clocks(place))
    report.add(tools={name: shutil.which(name) for name in TOOLS}, trtexec=find_trtexec(place))
    modules = {name: _ask(_IMPORT, name, package) for name, package in MODULES.items()}
    report.add(modules=modules)
    opencv, gpu = _ask(_OPENCV), _ask(_GPU)
    report.add(opencv_with_numpy=opencv, gpu=gpu)
    report.add(missing=_list_missing(modules, opencv, gpu, place))
    if "error" in opencv:
        raise CheckError(
            f"OpenCV does not work with the NumPy that is installed ({opencv['error']}); on a Jetson: "
            "pip install 'numpy<2', on a machine without a screen: opencv-python-headless"
        )


def find_trtexec(root: Path = Path("/")) -> str | None:
    """Return the path of NVIDIA's trtexec; None if it is not installed."""
    if on_path := shutil.which("trtexec"):
        return on_path
    place = root / TRTEXEC
    return str(place) if place.is_file() else None


def _ask(code: str, *words: str) -> dict[str, Any]:
    """Run Python code in a process of its own; return what it prints as JSON, or its `error` on one line."""
    exit_code, text = processes.read_output([*processes.PYTHON, "-c", code, *words], limit_s=_LIMIT_S)
    if exit_code is None:
        return {"error": text}
    if exit_code < 0:
        return {"error": f"the process died of signal {-exit_code}"}
    answers = [line for line in text.splitlines() if line.startswith("{")]  # libraries print before it and after it
    answer: Any = json.loads(answers[-1]) if exit_code == 0 and answers else None
    return answer if isinstance(answer, dict) else {"error": processes.last_line(text)}


def _list_missing(
    modules: dict[str, dict[str, Any]], opencv: dict[str, Any], gpu: dict[str, Any], root: Path
) -> dict[str, str]:
    """Return one line for each thing that later steps need and that is not here."""
    errors = {
        name: f"{name} cannot be imported ({answer['error']})" for name, answer in modules.items() if "error" in answer
    }
    missing = {}
    if "error" in opencv:
        missing["opencv"] = "OpenCV does not work"
    if "error" in gpu:
        missing["driver"] = str(gpu["error"])
    if "tensorrt" in errors and "tensorrt_rtx" in errors:
        missing["tensorrt"] = "neither TensorRT nor TensorRT-RTX is installed"
    if "pycuda.driver" in errors and "cuda.bindings.driver" in errors:
        missing["cuda"] = "neither PyCUDA nor cuda-bindings is installed"
    if "tensorrt" in errors or find_trtexec(root) is None:
        missing["trtexec"] = f"no trtexec of TensorRT, neither on PATH nor in /{TRTEXEC.parent}"
    if not _has_csi_camera(root):
        missing["csi"] = f"no CSI camera (/{ARGUS_SOCKET} and a Tegra video input)"
    if find_spec("pytest") is None:
        missing["pytest"] = "pytest is not installed"
    if not (processes.ROOT / "tests").is_dir():
        missing["pytest"] = "no folder of tests here"
    return missing


def _has_csi_camera(root: Path) -> bool:
    """Whether the service for CSI cameras runs and the kernel has found a sensor."""
    names = [path.read_text() for path in root.glob("sys/class/video4linux/video*/name")]
    return (root / ARGUS_SOCKET).exists() and any(name.startswith("vi-output") for name in names)


def _read_gpu_clocks(root: Path) -> dict[str, float]:
    """Return present and largest clock rate of a Jetson's GPU, which the kernel tells without root."""
    paths = root.glob("sys/class/devfreq/*gpu*/*_freq")
    return {path.stem: int(path.read_text()) / 1e6 for path in paths if path.stem in {"cur_freq", "max_freq"}}


def _read_memory(root: Path) -> dict[str, str]:
    """Return the lines of /proc/meminfo that tell how much memory and swap there is."""
    path = root / "proc/meminfo"
    if not path.is_file():
        return {}
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs if name in {"MemTotal", "MemAvailable", "SwapTotal"}}
