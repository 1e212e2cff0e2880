"""Power, clock rates and temperatures of a Jetson, parsed from the output of NVIDIA's `tegrastats`.

The lines differ between boards and releases: zone names in capitals up to JetPack 5, no GR3D_FREQ on some Thor images,
one to three numbers for each power rail. The first number of a rail is the present power, the others are averages.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL_MS = 200
"""Milliseconds between two lines of tegrastats."""
_OFF_C = -100.0
"""Temperature below which a zone is switched off; such zones report -256."""
_MODULE_RAILS = ("VDD_IN", "VIN")
"""Rails that feed the whole module (Orin Nano and NX, Thor)."""
_PARTIAL_RAILS = (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"))
"""Rails that together feed the whole module if no single rail does (AGX Orin; Thor). All other rails are parts of
these."""


@dataclass(frozen=True, kw_only=True)
class TegraLine:
    """Values of one line of tegrastats."""

    rails_mw: dict[str, int]
    temperatures_c: dict[str, float]
    """Temperature by zone name in lower case, without zones that are switched off."""
    gpu_mhz: int | None
    """Clock rate of the fastest GPU cluster; None if all clusters are off."""
    gpu_percent: int | None

    @property
    def module_w(self) -> float | None:
        """Power of the whole module in watts; None (not zero) if its rails are not known."""
        for rail in _MODULE_RAILS:
            if rail in self.rails_mw:
                return self.rails_mw[rail] / 1e3
        for rails in _PARTIAL_RAILS:
            if all(rail in self.rails_mw for rail in rails):
                return sum(self.rails_mw[rail] for rail in rails) / 1e3
        return None


def parse_line(line: str) -> TegraLine | None:
    """Parse one line of output; None if it is not a line of statistics."""
    if not re.search(r"\bRAM \d+/\d+MB", line):
        return None
    rails = {name: int(value) for name, value in re.findall(r"\b([A-Z][A-Z0-9_]+) (-?\d+)mW", line) if name != "NC"}
    zones = {name.lower(): float(value) for name, value in re.findall(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C", line)}
    gpu = re.search(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+))?", line)
    clocks_mhz = [int(text) for text in gpu[2].split(",") if int(text or 0)] if gpu and gpu[2] else []
    return TegraLine(
        rails_mw=rails,
        temperatures_c={name: value for name, value in zones.items() if value > _OFF_C},
        gpu_mhz=max(clocks_mhz, default=None),
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
    )


class TegraStats:
    """`tegrastats` as a child process."""

    def __init__(self, tool: str) -> None:
        self._child = subprocess.Popen(  # noqa: S603 - found on PATH
            [tool, "--interval", str(INTERVAL_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def next_line(self) -> TegraLine | None:
        """Wait for the next line of statistics; None at the end of the output."""
        assert self._child.stdout
        for text in self._child.stdout:
            if line := parse_line(text):
                return line
        return None

    def close(self) -> None:
        """Stop the child process."""
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._child.kill()
        self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()


def count_over_current_events(root: Path = Path("/")) -> int | None:
    """Return how many times over-current has throttled the chip since boot; None if the kernel does not count it."""
    counts = []
    for path in root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"):
        with suppress(OSError, ValueError):
            counts.append(int(path.read_text()))
    return sum(counts) if counts else None
