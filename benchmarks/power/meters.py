"""What knows power: NVIDIA's NVML, a Jetson's tegrastats, a processor's RAPL counters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from benchmarks.harness.system_info import nvml
from benchmarks.power.tegrastats import TegraStats, over_current_events

SLOWDOWNS = {0x4: "power cap", 0x8: "hardware", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
"""Bits of NVML's clock event reasons that mean less speed than there could be."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """At one moment; what a meter cannot say is None."""

    at_s: float
    watts: float | None = None
    joules: float | None = None
    """Of a counter since some moment; differences count."""
    gpu_mhz: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None


class Meter(Protocol):
    """Something that knows power; used from one thread."""

    name: str
    covers: str
    """What its joules are of."""

    def read(self) -> Reading | None:
        """May wait up to a second; None at its end."""
        ...

    def close(self) -> None: ...


class NvmlMeter:
    """The first NVIDIA GPU. Its energy counter where there is one (Volta and later), else its power, added up."""

    name, covers = "NVML", "GPU board"

    def __init__(self, library: Any, keep: ExitStack) -> None:
        self._library, self._keep = library, keep
        self._gpu = library.nvmlDeviceGetHandleByIndex(0)
        library.nvmlDeviceGetPowerUsage(self._gpu)  # raises NVMLError where it does not say

    def read(self) -> Reading:
        library, gpu = self._library, self._gpu
        reasons = getattr(library, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            library, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        bits = self._asked(reasons, gpu) if reasons else None
        energy_mj = self._asked(library.nvmlDeviceGetTotalEnergyConsumption, gpu)
        power_mw = self._asked(library.nvmlDeviceGetPowerUsage, gpu)
        return Reading(
            at_s=perf_counter(),
            watts=None if power_mw is None else power_mw / 1e3,
            joules=None if energy_mj is None else energy_mj / 1e3,
            gpu_mhz=self._asked(library.nvmlDeviceGetClockInfo, gpu, library.NVML_CLOCK_GRAPHICS),
            temperature_c=self._asked(library.nvmlDeviceGetTemperature, gpu, library.NVML_TEMPERATURE_GPU),
            throttled=None if bits is None else tuple(text for bit, text in SLOWDOWNS.items() if bits & bit),
        )

    def _asked(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None

    def close(self) -> None:
        self._keep.close()


class TegraMeter:
    """A Jetson module."""

    name, covers = "tegrastats", "module"

    def __init__(self, tool: str, root: Path = Path("/")) -> None:
        self._stats, self._root = TegraStats(tool), root
        self._events = over_current_events(root)

    def read(self) -> Reading | None:
        line = self._stats.next_line()
        if line is None:
            return None
        throttled: tuple[str, ...] | None = None
        if self._events is not None:
            throttled = ("over-current",) if (over_current_events(self._root) or 0) > self._events else ()
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
    """CPU packages, by the running average power limit counters of Intel and AMD processors.

    Raises OSError where they cannot be read, which only root may on most systems.
    """

    name, covers = "RAPL", "CPU package"

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
        self._zones = [zone for zone in zones if zone.name.count(":") == 1 and _word(zone / "name") != "psys"]
        if not self._zones:
            raise OSError("no RAPL counters")
        self._ranges = [int(_word(zone / "max_energy_range_uj")) for zone in self._zones]
        self._last = [int(_word(zone / "energy_uj")) for zone in self._zones]
        self._total_uj = 0

    def read(self) -> Reading:
        for index, zone in enumerate(self._zones):
            now = int(_word(zone / "energy_uj"))
            step = now - self._last[index]
            self._total_uj += step if step >= 0 else step + self._ranges[index]  # the counter went round
            self._last[index] = now
        return Reading(at_s=perf_counter(), joules=self._total_uj / 1e6)

    def close(self) -> None:
        """Nothing to release."""


def open_meters(root: Path = Path("/")) -> tuple[list[Meter], str]:
    """All meters of this machine, and why there are no others."""
    meters: list[Meter] = []
    missing: list[str] = []
    if tool := shutil.which("tegrastats"):
        return [TegraMeter(tool, root)], ""
    keep = ExitStack()
    library = keep.enter_context(nvml())
    if library is None:
        missing.append("no NVML")
    else:
        try:
            meters.append(NvmlMeter(library, keep))
        except library.NVMLError as error:
            keep.close()
            missing.append(f"NVML does not tell the power ({error})")
    try:
        meters.append(RaplMeter(root))
    except PermissionError:
        missing.append("RAPL may be read by root only")
    except (OSError, ValueError):
        missing.append("no RAPL")
    return meters, ", ".join([*missing, "no tegrastats"])


def _word(path: Path) -> str:
    return path.read_text().strip()
