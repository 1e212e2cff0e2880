"""Joules, watts, clocks, temperature and throttling while something runs: NVML, tegrastats, RAPL.

A machine that cannot say answers `not_available` and why; never 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from benchmarks.power.meters import Meter, Reading, open_meters

PERIOD_S = 0.1
_LEAVE_S = 5.0


class Power:
    """Reads meters in threads of their own from `start` to `stop`; `result` tells of it afterwards."""

    def __init__(self, meters: Sequence[Meter] | None = None, *, period_s: float = PERIOD_S) -> None:
        found, self._missing = open_meters() if meters is None else (list(meters), "no meter")
        self._period_s = period_s
        self._meters: list[tuple[Meter, list[Reading]]] = [(meter, []) for meter in found]
        self._ended = Event()
        self._threads = [
            Thread(target=self._watch, args=each, name=f"power {each[0].name}", daemon=True) for each in self._meters
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_LEAVE_S)
        for meter, _ in self._meters:
            meter.close()

    def result(self, frames: int) -> dict[str, Any]:
        """As `power` in schema.json: a list of meters, or `not_available` and why. `frames`: restored meanwhile."""
        told = [facts for meter, readings in self._meters if (facts := _facts(meter, readings, frames))]
        if told:
            return {"meters": told}
        reason = "its meters say 0 or nothing" if self._meters else self._missing
        return {"not_available": reason}

    def _watch(self, meter: Meter, readings: list[Reading]) -> None:
        """One at the start, one at the end, and one every so often between."""
        with suppress(OSError, ValueError):  # a counter that vanishes ends the readings, not the run
            while (reading := meter.read()) is not None:
                readings.append(reading)
                if self._ended.is_set():
                    return
                self._ended.wait(self._period_s)


@contextmanager
def metered(meters: Sequence[Meter] | None = None, *, period_s: float = PERIOD_S) -> Iterator[Power]:
    """Read all meters of this machine, or those given, while the body runs."""
    power = Power(meters, period_s=period_s)
    power.start()
    try:
        yield power
    finally:
        power.stop()


def _facts(meter: Meter, readings: Sequence[Reading], frames: int) -> dict[str, Any] | None:
    """None where there is nothing to tell: fewer than two readings, or no joules."""
    joules = energy_j(readings)
    if not joules:
        return None
    seconds = readings[-1].at_s - readings[0].at_s
    clocks = [each.gpu_mhz for each in readings if each.gpu_mhz is not None]
    heat = [each.temperature_c for each in readings if each.temperature_c is not None]
    reasons = [each.throttled for each in readings if each.throttled is not None]
    return {
        "name": meter.name,
        "covers": meter.covers,
        "samples": len(readings),
        "seconds": round(seconds, 6),
        "joules": round(joules, 6),
        "mean_w": round(joules / seconds, 6),
        "joules_per_frame": round(joules / frames, 5) if frames else None,
        "gpu_mhz": {"min": min(clocks), "mean": round(sum(clocks) / len(clocks), 1)} if clocks else None,
        "max_temperature_c": max(heat, default=None),
        "throttled": sorted({reason for each in reasons for reason in each}) if reasons else None,
    }


def energy_j(readings: Sequence[Reading]) -> float | None:
    """Joules from the first to the last reading: of the counter, or watts by the trapezoidal rule; None if neither."""
    if len(readings) < 2:
        return None
    counts = [each.joules for each in readings if each.joules is not None]
    if len(counts) == len(readings):
        return counts[-1] - counts[0]
    known = [(each.at_s, each.watts) for each in readings if each.watts is not None]
    if len(known) < 2:
        return None
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(known))
