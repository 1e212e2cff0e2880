"""Facts about the machine of a measurement: processor, memory, GPUs, versions; no user names, addresses or paths.

`python -m benchmarks.machine` prints them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16")
"""Instruction sets that decide the speed of networks, in the spelling of /proc/cpuinfo (asimddp is dotprod)."""
PACKAGES = (
    "av",
    "cuda-bindings",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-nv-tensorrt-rtx-cu12",
    "opencv-python",
    "opencv-python-headless",
    "openvino",
    "pycuda",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
)
_GIB = 1 << 30


def describe_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return `machine` of schema.json. `root`: folder that contains /proc, /sys and /etc."""
    cpu = _describe_cpu(root)
    gpus = _describe_gpus()
    jetson = _describe_jetson(root)
    return {
        "device": make_device_name(cpu["model"], cpu["cores"], gpus, board=_read_board(root) if jetson else None),
        "cpu": cpu,
        "memory_gib": _read_memory_gib(root),
        "gpus": gpus,
        "jetson": jetson,
        "os": _read_os_name(root),
        # The part after the version number may name the person who built the kernel.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _list_packages(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def make_device_name(model: str, cores: int, gpus: list[dict[str, Any]], *, board: str | None = None) -> str:
    """Return the folder name of a device, such as `amd-epyc-9r14-2-cores` for `AMD EPYC 9R14 96-Core Processor`, 2.

    A board or a GPU names the device instead of its processor.
    """
    if board:
        return _join_with_dashes(board)
    if gpus:
        return _join_with_dashes(gpus[0]["name"])
    plain = re.sub(r"\((?:r|tm)\)|\d+-core|processor|\bcpu\b|@.*", " ", model.lower())
    return _join_with_dashes(f"{plain} {cores} core{'s' if cores > 1 else ''}")


def _join_with_dashes(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def _describe_cpu(root: Path) -> dict[str, Any]:
    entries = re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", _read_text(root / "proc/cpuinfo"), re.MULTILINE)
    first: dict[str, str] = {}
    for name, value in entries:
        first.setdefault(name.lower(), value)
    flags = set((first.get("flags") or first.get("features") or "").split())
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    khz = _read_text(frequency / "scaling_cur_freq")
    mhz = float(khz) / 1e3 if khz.isdecimal() else float(first.get("cpu mhz") or 0)
    name = first.get("model name", "")
    if "cpu family" in first and not re.search(r"\d", name):  # virtual machines show one name for all generations
        name = f"{name} (family {first['cpu family']}, model {first.get('model')})".strip()
    return {
        "model": name or _read_board(root) or platform.processor() or platform.machine(),
        "cores": count_cores(),
        "features": [name for name in FEATURES if name in flags],
        "governor": _read_text(frequency / "scaling_governor") or None,
        "mhz": round(mhz) or None,
    }


def count_cores() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_memory_gib(root: Path) -> float | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read_text(root / "proc/meminfo"), re.MULTILINE)
    return round(int(match[1]) * 1024 / _GIB, 1) if match else None


def _describe_gpus() -> list[dict[str, Any]]:
    """Return the NVIDIA GPUs that NVML lists; empty if NVML or its package is not installed."""
    with open_nvml() as library:
        if library is None:
            return []
        driver = str(library.nvmlSystemGetDriverVersion())
        return [_describe_gpu(library, index, driver) for index in range(library.nvmlDeviceGetCount())]


def _describe_gpu(library: Any, index: int, driver: str) -> dict[str, Any]:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    gpu: dict[str, Any] = {"name": str(library.nvmlDeviceGetName(handle)), "driver": driver}
    gpu |= dict.fromkeys(("compute_capability", "memory_gib", "power_limit_w"))
    with suppress(library.NVMLError):  # an integrated GPU answers only some of these queries
        gpu["compute_capability"] = "{}.{}".format(*library.nvmlDeviceGetCudaComputeCapability(handle))
    with suppress(library.NVMLError):
        gpu["memory_gib"] = round(library.nvmlDeviceGetMemoryInfo(handle).total / _GIB, 1)
    with suppress(library.NVMLError):
        gpu["power_limit_w"] = library.nvmlDeviceGetPowerManagementLimit(handle) / 1e3
    return gpu


@contextmanager
def open_nvml() -> Iterator[Any | None]:
    """Open NVIDIA's management library through nvidia-ml-py; None if either is not installed or there is no GPU."""
    try:
        import pynvml  # noqa: PLC0415 - an optional package

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no package, no library or no driver: NVML cannot be used
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _describe_jetson(root: Path) -> dict[str, Any] | None:
    release = _read_text(root / "etc/nv_tegra_release")
    if not release:
        return None
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return {"release": f"L4T {match[1]}.{match[2]}" if match else None, "power_mode": _read_power_mode()}


def _read_power_mode() -> str | None:
    """Return the power mode of a Jetson; `nvpmodel -q` prints `NV Power Mode: MAXN` and the number of the mode."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    match = re.search(r"NV Power Mode: (\S+)", done.stdout)
    return match[1] if match else None


def _read_board(root: Path) -> str:
    """Return the model name in the device tree of an Arm board; empty elsewhere."""
    return _read_text(root / "proc/device-tree/model").strip("\0 ")


def _read_os_name(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read_text(root / "etc/os-release"), re.MULTILINE)
    return match[1] if match else platform.system()


def _list_packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def main() -> None:
    """Print the facts of this machine as JSON."""
    print(json.dumps(describe_machine(), indent=2))
