"""Peak memory of one engine, measured in a separate process that opens it and restores a few frames.

The process that measures latency has all engines loaded at the same time, so its memory says nothing about one of
them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.engines import open_named_engine
from benchmarks.harness.system_info import open_nvml
from runtime.engines.timing import trial_frame
from runtime.frame import Size

_FRAMES = 4
_MIB = 1 << 20
_TIMEOUT_S = 300


def measure_peak_memory(engine: str, *, size: Size, options: Sequence[str] = ()) -> dict[str, Any]:
    """Return `memory` of schema.json for an engine name as `open_named_engine` takes it.

    `options`: further arguments of the process; the first one is the number of CPU threads.
    """
    command = [sys.executable, "-m", "benchmarks.harness.memory", engine, "{}x{}".format(*size), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603
        memory: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = {"not_available": f"the measuring process did not finish ({type(error).__name__})"}
        return {"host": reason, "device": reason}
    return memory


def read_host_mib(field: str = "VmHWM") -> float | None:
    """Return the memory of this process in MiB: VmHWM is its peak, VmRSS its present size; None outside Linux."""
    try:
        match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return round(int(match[1]) * 1024 / _MIB, 1) if match else None


def read_device_mib() -> float | None:
    """Return the memory in MiB that all processes use on the first GPU; None if NVML does not report it."""
    with open_nvml() as library:
        if library is None:
            return None
        try:
            used_bytes = library.nvmlDeviceGetMemoryInfo(library.nvmlDeviceGetHandleByIndex(0)).used
        except library.NVMLError:  # an integrated GPU uses the memory of the host
            return None
        return round(float(used_bytes) / _MIB, 1)


def measure_this_process(arguments: list[str]) -> dict[str, Any]:
    """Return `memory` of schema.json for this process. `arguments`: engine name, WxH, and optionally CPU threads."""
    name, (width, height) = arguments[0], map(int, arguments[1].split("x"))
    host_before_mib, device_before_mib = read_host_mib("VmRSS"), read_device_mib()
    engine = open_named_engine(name, threads=int(arguments[2]) if len(arguments) > 2 else 0)
    frame = trial_frame((width, height), engine.spec.pixels)
    for _ in range(_FRAMES):
        engine.infer(frame)
    host_peak_mib, device_peak_mib = read_host_mib(), read_device_mib()
    engine.close()
    return {
        "host": _result(host_before_mib, host_peak_mib, "this system does not report it"),
        "device": _result(device_before_mib, device_peak_mib, "NVML reports no GPU with memory of its own"),
    }


def _result(before_mib: float | None, peak_mib: float | None, reason: str) -> dict[str, Any]:
    if before_mib is None or peak_mib is None:
        return {"not_available": reason}
    return {"before_mib": before_mib, "peak_mib": peak_mib}


if __name__ == "__main__":
    print(json.dumps(measure_this_process(sys.argv[1:])))
