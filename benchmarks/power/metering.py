"""Joules, watts, clock rates, temperature and throttling during a measurement, from NVML, tegrastats or RAPL.

Without a usable meter the result is `not_available` with a reason, never 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from benchmarks.power.meters import Meter, Reading, open_meters

PERIOD_S = 0.1
"""Seconds between two readings of a meter."""
_JOIN_TIMEOUT_S = 5.0


class PowerMonitor:
    """Reads every meter in a thread of its own from `start` to `stop`; `summarize` returns the result."""

    def __init__(self, meters: Sequence[Meter] | None = None, *, period_s: float = PERIOD_S) -> None:
        """Monitor the given meters, or all meters of this machine."""
        available, self._reason_without_meters = open_meters() if meters is None else (list(meters), "no meter")
        self._period_s = period_s
        self._meters: list[tuple[Meter, list[Reading]]] = [(meter, []) for meter in available]
        self._ended = Event()
        self._threads = [
            Thread(target=self._watch, args=(meter, readings), name=f"power {meter.name}", daemon=True)
            for meter, readings in self._meters
        ]

    def start(self) -> None:
        """Start reading."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take a last reading of every meter and close the meters."""
        self._ended.set()
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
        for meter, _ in self._meters:
            meter.close()

    def summarize(self, frames: int) -> dict[str, Any]:
        """Return `power` of schema.json. `frames`: number of frames restored between start and stop."""
        summaries = [
            summary for meter, readings in self._meters if (summary := _summarize_meter(meter, readings, frames))
        ]
        if summaries:
            return {"meters": summaries}
        reason = "the meters report 0 or nothing" if self._meters else self._reason_without_meters
        return {"not_available": reason}

    def _watch(self, meter: Meter, readings: list[Reading]) -> None:
        """Read a meter at the start, after every period, and at the end."""
        with suppress(OSError, ValueError):  # a counter that disappears ends the readings, not the run
            while (reading := meter.read()) is not None:
                readings.append(reading)
                if self._ended.is_set():
                    return
                self._ended.wait(self._period_s)


@contextmanager
def monitor_power(meters: Sequence[Meter] | None = None, *, period_s: float = PERIOD_S) -> Iterator[PowerMonitor]:
    """Read the given meters, or all meters of this machine, while the body runs."""
    monitor = PowerMonitor(meters, period_s=period_s)
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.stop()


def _summarize_meter(meter: Meter, readings: Sequence[Reading], frames: int) -> dict[str, Any] | None:
    """Return one meter of `power` in schema.json; None with fewer than two readings or without energy."""
    joules = integrate_energy_j(readings)
    if not joules:
        return None
    seconds = readings[-1].at_s - readings[0].at_s
    clocks_mhz = [reading.gpu_mhz for reading in readings if reading.gpu_mhz is not None]
    temperatures_c = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    throttling = [reading.throttled for reading in readings if reading.throttled is not None]
    mean_mhz = round(sum(clocks_mhz) / len(clocks_mhz), 1) if clocks_mhz else None
    return {
        "name": meter.name,
        "covers": meter.covers,
        "samples": len(readings),
        "seconds": round(seconds, 6),
        "joules": round(joules, 6),
        "mean_w": round(joules / seconds, 6),
        "joules_per_frame": round(joules / frames, 5) if frames else None,
        "gpu_mhz": {"min": min(clocks_mhz), "mean": mean_mhz} if clocks_mhz else None,
        "max_temperature_c": max(temperatures_c, default=None),
        "throttled": sorted({reason for reasons in throttling for reason in reasons}) if throttling else None,
    }


def integrate_energy_j(readings: Sequence[Reading]) -> float | None:
    """Return the energy in joules between the first and the last reading; None if the readings do not tell it.

    If every reading has a value of an energy counter, the energy is the difference of the counter. Otherwise the power
    in watts is integrated by the trapezoidal rule.
    """
    if len(readings) < 2:
        return None
    counter_j = [reading.joules for reading in readings if reading.joules is not None]
    if len(counter_j) == len(readings):
        return counter_j[-1] - counter_j[0]
    samples = [(reading.at_s, reading.watts) for reading in readings if reading.watts is not None]
    if len(samples) < 2:
        return None
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(samples))
