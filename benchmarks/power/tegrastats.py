"""Power, clocks and temperatures of a Jetson, from the text of NVIDIA's `tegrastats`.

Its lines differ between boards and releases: zones in capitals up to JetPack 5, no GR3D_FREQ on some Thor images,
one to three numbers a rail. The first number of a rail is the present one, the others are averages.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL_MS = 200
_OFF_C = -100.0
"""Zones that are switched off read -256."""
_WHOLE = ("VDD_IN", "VIN")
"""Rails that feed the whole module: Orin Nano and NX, Thor."""
_PARTS = (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"))
"""Together the module, where no rail feeds the whole: AGX Orin; Thor. What else is listed hangs from these."""


@dataclass(frozen=True, kw_only=True)
class TegraLine:
    """What one line says."""

    rails_mw: dict[str, int]
    temperatures_c: dict[str, float]
    """Of zones that are on, by name in small letters."""
    gpu_mhz: int | None
    """The fastest of the GPU's clusters; None where all are off."""
    gpu_percent: int | None

    @property
    def module_w(self) -> float | None:
        """Of the whole module; None where its rails are not known, which is no zero."""
        for rail in _WHOLE:
            if rail in self.rails_mw:
                return self.rails_mw[rail] / 1e3
        for parts in _PARTS:
            if all(part in self.rails_mw for part in parts):
                return sum(self.rails_mw[part] for part in parts) / 1e3
        return None


def parse(line: str) -> TegraLine | None:
    """One line of output; None if it is not one."""
    if not re.search(r"\bRAM \d+/\d+MB", line):
        return None
    rails = {name: int(value) for name, value in re.findall(r"\b([A-Z][A-Z0-9_]+) (-?\d+)mW", line) if name != "NC"}
    zones = {name.lower(): float(value) for name, value in re.findall(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C", line)}
    gpu = re.search(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+))?", line)
    clocks = [int(each) for each in gpu[2].split(",") if int(each or 0)] if gpu and gpu[2] else []
    return TegraLine(
        rails_mw=rails,
        temperatures_c={name: value for name, value in zones.items() if value > _OFF_C},
        gpu_mhz=max(clocks, default=None),
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
    )


class TegraStats:
    """`tegrastats` as a child process; every line is a reading."""

    def __init__(self, tool: str) -> None:
        self._child = subprocess.Popen(  # noqa: S603 - found on PATH
            [tool, "--interval", str(INTERVAL_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def next_line(self) -> TegraLine | None:
        """Waits for one; None at the end of the output."""
        assert self._child.stdout
        for line in self._child.stdout:
            if found := parse(line):
                return found
        return None

    def close(self) -> None:
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._child.kill()
        self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()


def over_current_events(root: Path = Path("/")) -> int | None:
    """How often over-current has throttled the chip since it started; None where the kernel does not count it."""
    counts = []
    for path in root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"):
        with suppress(OSError, ValueError):
            counts.append(int(path.read_text()))
    return sum(counts) if counts else None
