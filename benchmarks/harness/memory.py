"""Peak memory of one engine: a process of its own opens it and restores a few frames.

In the process that measures, all engines are loaded at once, and none of them could be told from the others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.system_info import nvml
from runtime.frame import Size

_FRAMES = 4
_MIB = 1 << 20
_TIMEOUT_S = 300


def peak(engine: str, *, size: Size, options: Sequence[str] = ()) -> dict[str, Any]:
    """As `memory` in schema.json. `engine` and `options` as `benchmarks.latency` takes them."""
    command = [sys.executable, "-m", "benchmarks.harness.memory", engine, "{}x{}".format(*size), *options]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603
        told: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = {"not_available": f"the process that was to tell did not ({type(error).__name__})"}
        return {"host": reason, "device": reason}
    return told


def host_mib(field: str = "VmHWM") -> float | None:
    """Of this process, as Linux counts it: VmHWM is the most so far, VmRSS what it is now."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return round(int(found[1]) * 1024 / _MIB, 1) if found else None


def device_mib() -> float | None:
    """In use on the first GPU, by whomever; None where NVML does not say."""
    with nvml() as library:
        if library is None:
            return None
        try:
            used = library.nvmlDeviceGetMemoryInfo(library.nvmlDeviceGetHandleByIndex(0)).used
        except library.NVMLError:  # the memory of an integrated GPU is the host's
            return None
        return round(used / _MIB, 1)


def measured(arguments: list[str]) -> dict[str, Any]:
    """In the process of its own: before the engine is there, and the most with it."""
    from benchmarks.harness.engines import opened  # noqa: PLC0415 - what it loads belongs to `before`

    name, (width, height) = arguments[0], map(int, arguments[1].split("x"))
    before_host, before_device = host_mib("VmRSS"), device_mib()
    engine = opened(name, threads=int(arguments[2]) if len(arguments) > 2 else 0)
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    for _ in range(_FRAMES):
        engine.infer(frame)
    after_host, after_device = host_mib(), device_mib()
    engine.close()
    return {
        "host": _told(before_host, after_host, "this system does not count it"),
        "device": _told(before_device, after_device, "no GPU with memory of its own that NVML sees"),
    }


def _told(before_mib: float | None, peak_mib: float | None, reason: str) -> dict[str, Any]:
    if before_mib is None or peak_mib is None:
        return {"not_available": reason}
    return {"before_mib": before_mib, "peak_mib": peak_mib}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1:])))
