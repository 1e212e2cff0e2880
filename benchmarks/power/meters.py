"""Power meters: NVIDIA's NVML, tegrastats of a Jetson, and the RAPL counters of a processor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from benchmarks.harness.system_info import open_nvml
from benchmarks.power.tegrastats import TegraStats, count_over_current_events

THROTTLE_REASONS = {
    0x4: "power cap",
    0x8: "hardware",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
"""Bits of NVML's clock event reasons that lower the clock rate below the possible one."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Values of a meter at one moment; None for what the meter does not measure."""

    at_s: float
    watts: float | None = None
    joules: float | None = None
    """Energy counter with an arbitrary start; only differences have a meaning."""
    gpu_mhz: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None


class Meter(Protocol):
    """Source of power readings; used from one thread."""

    name: str
    covers: str
    """Part of the machine whose energy it measures."""

    def read(self) -> Reading | None:
        """Return a reading, after up to a second; None if there are no more."""
        ...

    def close(self) -> None:
        """Release the meter."""
        ...


class NvmlMeter:
    """Meter of the first NVIDIA GPU: its energy counter (Volta and later), and its power."""

    name, covers = "NVML", "GPU board"

    def __init__(self, library: Any, resources: ExitStack) -> None:
        """Open the meter; raise NVMLError if the GPU does not report its power. `close` closes `resources`."""
        self._library, self._resources = library, resources
        self._gpu = library.nvmlDeviceGetHandleByIndex(0)
        library.nvmlDeviceGetPowerUsage(self._gpu)  # fails on a GPU without a power sensor

    def read(self) -> Reading:
        library, gpu = self._library, self._gpu
        read_reasons = getattr(library, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            library, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        bits = self._query(read_reasons, gpu) if read_reasons else None
        energy_mj = self._query(library.nvmlDeviceGetTotalEnergyConsumption, gpu)
        power_mw = self._query(library.nvmlDeviceGetPowerUsage, gpu)
        return Reading(
            at_s=perf_counter(),
            watts=None if power_mw is None else power_mw / 1e3,
            joules=None if energy_mj is None else energy_mj / 1e3,
            gpu_mhz=self._query(library.nvmlDeviceGetClockInfo, gpu, library.NVML_CLOCK_GRAPHICS),
            temperature_c=self._query(library.nvmlDeviceGetTemperature, gpu, library.NVML_TEMPERATURE_GPU),
            throttled=None if bits is None else tuple(text for bit, text in THROTTLE_REASONS.items() if bits & bit),
        )

    def _query(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None

    def close(self) -> None:
        self._resources.close()


class TegraMeter:
    """Meter of a Jetson module."""

    name, covers = "tegrastats", "module"

    def __init__(self, tool: str, root: Path = Path("/")) -> None:
        self._stats, self._root = TegraStats(tool), root
        self._events = count_over_current_events(root)

    def read(self) -> Reading | None:
        line = self._stats.next_line()
        if line is None:
            return None
        throttled: tuple[str, ...] | None = None
        if self._events is not None:
            has_new_events = (count_over_current_events(self._root) or 0) > self._events
            throttled = ("over-current",) if has_new_events else ()
        return Reading(
            at_s=perf_counter(),
            watts=line.module_w,
            gpu_mhz=line.gpu_mhz,
            temperature_c=max(line.temperatures_c.values(), default=None),
            throttled=throttled,
        )

    def close(self) -> None:
        self._stats.close()


class RaplMeter:
    """Meter of the CPU packages: the "running average power limit" counters of Intel and AMD processors.

    Raises OSError if they cannot be read; most systems allow it to root only.
    """

    name, covers = "RAPL", "CPU package"

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
        self._zones = [zone for zone in zones if zone.name.count(":") == 1 and _read_word(zone / "name") != "psys"]
        if not self._zones:
            raise OSError("no RAPL counters")
        self._ranges_uj = [int(_read_word(zone / "max_energy_range_uj")) for zone in self._zones]
        self._last_uj = [int(_read_word(zone / "energy_uj")) for zone in self._zones]
        self._total_uj = 0

    def read(self) -> Reading:
        for index, zone in enumerate(self._zones):
            now_uj = int(_read_word(zone / "energy_uj"))
            step_uj = now_uj - self._last_uj[index]
            self._total_uj += step_uj if step_uj >= 0 else step_uj + self._ranges_uj[index]  # the counter overflowed
            self._last_uj[index] = now_uj
        return Reading(at_s=perf_counter(), joules=self._total_uj / 1e6)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def open_meters(root: Path = Path("/")) -> tuple[list[Meter], str]:
    """Open all meters of this machine; return them and the reasons why the others are missing."""
    meters: list[Meter] = []
    missing: list[str] = []
    if tool := shutil.which("tegrastats"):
        return [TegraMeter(tool, root)], ""
    resources = ExitStack()
    library = resources.enter_context(open_nvml())
    if library is None:
        missing.append("no NVML")
    else:
        try:
            meters.append(NvmlMeter(library, resources))
        except library.NVMLError as error:
            resources.close()
            missing.append(f"NVML does not report the power ({error})")
    try:
        meters.append(RaplMeter(root))
    except PermissionError:
        missing.append("only root may read RAPL")
    except (OSError, ValueError):
        missing.append("no RAPL")
    return meters, ", ".join([*missing, "no tegrastats"])


def _read_word(path: Path) -> str:
    return path.read_text().strip()
