"""What a figure was measured on: processor, memory, GPUs, versions; no names, addresses or places.

`python -m benchmarks.machine` prints it.
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
"""Instruction sets that decide how fast networks run, as /proc/cpuinfo writes them (asimddp is dotprod)."""
PACKAGES = (
    "av",
    "cuda-bindings",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "opencv-python-headless",
    "openvino",
    "pycuda",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
)
_GIB = 1 << 30


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """As `machine` in schema.json. `root`: where /proc, /sys and /etc are looked for."""
    cpu = _cpu(root)
    gpus = _gpus()
    jetson = _jetson(root)
    return {
        "device": slug(cpu["model"], cpu["cores"], gpus, board=_board(root) if jetson else None),
        "cpu": cpu,
        "memory_gib": _memory_gib(root),
        "gpus": gpus,
        "jetson": jetson,
        "os": _os(root),
        # What follows the number names who built it.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _packages(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def slug(model: str, cores: int, gpus: list[dict[str, Any]], *, board: str | None = None) -> str:
    """`AMD EPYC 9R14 96-Core Processor`, 2 -> `amd-epyc-9r14-2-cores`; a board or a GPU goes before the processor."""
    if board:
        return _dashed(board)
    if gpus:
        return _dashed(gpus[0]["name"])
    plain = re.sub(r"\((?:r|tm)\)|\d+-core|processor|\bcpu\b|@.*", " ", model.lower())
    return _dashed(f"{plain} {cores} core{'s' if cores > 1 else ''}")


def _dashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def _cpu(root: Path) -> dict[str, Any]:
    entries = re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    first: dict[str, str] = {}
    for name, value in entries:
        first.setdefault(name.lower(), value)
    flags = set((first.get("flags") or first.get("features") or "").split())
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    khz = _text(frequency / "scaling_cur_freq")
    mhz = float(khz) / 1e3 if khz.isdecimal() else float(first.get("cpu mhz") or 0)
    name = first.get("model name", "")
    if "cpu family" in first and not re.search(r"\d", name):  # a virtual machine's, alike for all generations
        name = f"{name} (family {first['cpu family']}, model {first.get('model')})".strip()
    return {
        "model": name or _board(root) or platform.processor() or platform.machine(),
        "cores": cores(),
        "features": [name for name in FEATURES if name in flags],
        "governor": _text(frequency / "scaling_governor") or None,
        "mhz": round(mhz) or None,
    }


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib(root: Path) -> float | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return round(int(found[1]) * 1024 / _GIB, 1) if found else None


def _gpus() -> list[dict[str, Any]]:
    """NVIDIA's, as NVML lists them; none where NVML or its package is not there."""
    with nvml() as library:
        if library is None:
            return []
        driver = str(library.nvmlSystemGetDriverVersion())
        return [_gpu(library, index, driver) for index in range(library.nvmlDeviceGetCount())]


def _gpu(library: Any, index: int, driver: str) -> dict[str, Any]:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    found: dict[str, Any] = {"name": str(library.nvmlDeviceGetName(handle)), "driver": driver}
    found |= dict.fromkeys(("compute_capability", "memory_gib", "power_limit_w"))
    with suppress(library.NVMLError):  # integrated GPUs answer only some of these
        found["compute_capability"] = "{}.{}".format(*library.nvmlDeviceGetCudaComputeCapability(handle))
    with suppress(library.NVMLError):
        found["memory_gib"] = round(library.nvmlDeviceGetMemoryInfo(handle).total / _GIB, 1)
    with suppress(library.NVMLError):
        found["power_limit_w"] = library.nvmlDeviceGetPowerManagementLimit(handle) / 1e3
    return found


@contextmanager
def nvml() -> Iterator[Any | None]:
    """NVIDIA's management library by nvidia-ml-py; None where either is not there."""
    try:
        import pynvml  # noqa: PLC0415 - only some users have it

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no package, no library, no driver: all mean that it cannot say
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _jetson(root: Path) -> dict[str, Any] | None:
    release = _text(root / "etc/nv_tegra_release")
    if not release:
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return {"release": f"L4T {found[1]}.{found[2]}" if found else None, "power_mode": _power_mode()}


def _power_mode() -> str | None:
    """Of a Jetson: `nvpmodel -q` answers `NV Power Mode: MAXN` and its number."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    asked = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    found = re.search(r"NV Power Mode: (\S+)", asked.stdout)
    return found[1] if found else None


def _board(root: Path) -> str:
    """What the device tree of an Arm board calls it."""
    return _text(root / "proc/device-tree/model").strip("\0 ")


def _os(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.system()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def main() -> None:
    """Command line of `python -m benchmarks.machine`: print the facts as JSON."""
    print(json.dumps(facts(), indent=2))
