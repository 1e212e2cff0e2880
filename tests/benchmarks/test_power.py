"""Energy of meters with known readings, and lines of tegrastats from real boards."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.power import meters as meters_module
from benchmarks.power.metering import integrate_energy_j, monitor_power
from benchmarks.power.meters import NvmlMeter, RaplMeter, Reading, TegraMeter, open_meters
from benchmarks.power.tegrastats import parse_line
from tests.rig import wait_until

# Lines that users have published, one for each release. They differ in the form of averages and module totals.
JETPACK_5 = (  # AGX Orin, layout of L4T 35: zones in capitals; jetson_exporter issue 14
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,0%@729,"
    "0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] "
    "VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C "
    "GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW "
    "VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
JETPACK_6 = (  # Orin Nano 8 GB, layout of L4T 36, as root; from the tests of a public parser in Rust
    "11-30-2025 13:26:01 RAM 2461/7620MB (lfb 3x2MB) SWAP 1243/3810MB (cached 5MB) CPU [19%@729,14%@729,22%@729,"
    "8%@729,15%@729,17%@729] EMC_FREQ 4%@2133 GR3D_FREQ 0%@[305] NVDEC off NVJPG off NVJPG1 off VIC off OFA off "
    "APE 200 cpu@46.531C soc2@47.312C soc0@46.593C gpu@48.218C tj@48.843C soc1@48.843C VDD_IN 5704mW/5704mW "
    "VDD_CPU_GPU_CV 831mW/831mW VDD_SOC 1624mW/1624mW"
)
JETPACK_7 = (  # AGX Thor, L4T 38, as root; from public notes on its tegrastats
    "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,1%@972,"
    "0%@972,0%@972,0%@972,0%@972,8%@972,0%@972,0%@972] EMC_FREQ 0%@2750 GR3D_FREQ @[314,314,314] "
    "NVENC0_FREQ @314 VIC off OFA_FREQ @315 PVA0_FREQ off APE 300 cpu@37.343C tj@38.875C soc012@37.468C "
    "gpu@38.875C soc345@37.406C VDD_GPU 1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW "
    "VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)
JETPACK_7_2 = (  # AGX Thor, L4T 39.2: no GR3D_FREQ, three numbers a rail; from the tests of a public agent in Go
    "07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) CPU [2%@972,1%@972,0%@972,"
    "0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,2%@972] cpu@60.406C tj@63.281C "
    "soc012@58.468C gpu@62.906C soc345@63.281C VDD_GPU 37528mW/37528mW/37528mW "
    "VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW VIN_SYS_5V0 18331mW/18331mW/18331mW VIN 87426mW/43713mW/87426mW"
)


@pytest.mark.parametrize(
    ("line", "module_w", "gpu_mhz", "hottest_c", "zones"),
    [
        (JETPACK_5, 2.340 + 0.390 + 4.025, None, 44.562, 7),
        (JETPACK_6, 5.704, 305, 48.843, 6),
        (JETPACK_7, 19.780, 314, 38.875, 5),
        (JETPACK_7_2, 87.426, None, 63.281, 5),
    ],
    ids=["JetPack 5", "JetPack 6", "JetPack 7", "JetPack 7.2"],
)
def test_lines_of_each_jetpack_are_parsed(
    line: str, module_w: float, gpu_mhz: int | None, hottest_c: float, zones: int
) -> None:
    values = parse_line(line)
    assert values is not None
    assert values.module_w == pytest.approx(module_w)
    assert values.gpu_mhz == gpu_mhz
    assert max(values.temperatures_c.values()) == hottest_c
    assert len(values.temperatures_c) == zones, "zones that are switched off report -256"


def test_unusual_lines_are_parsed_or_ignored() -> None:
    assert parse_line("") is None
    assert parse_line("tegrastats: permission denied") is None
    without_rails = parse_line("RAM 3468/3983MB (lfb 48x4MB) cpu [17%,13%,29%,5%]@408 GR3D_FREQ 3%@76")
    assert without_rails is not None
    assert without_rails.module_w is None, "unknown is not zero"
    assert (without_rails.gpu_percent, without_rails.gpu_mhz) == (3, 76)
    idle = parse_line(
        "RAM 26063/125772MB (lfb 35x4MB) VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 3924mW/3835mW VIN 15004mW/9mW"
    )
    assert idle is not None
    assert (idle.rails_mw["VDD_GPU"], idle.module_w) == (-392, 15.004)
    parts = parse_line("RAM 1/2MB VDD_GPU 1000mW/1mW VDD_CPU_SOC_MSS 2000mW/1mW VIN_SYS_5V0 3000mW/1mW")
    assert parts is not None
    assert parts.module_w == 6.0


def test_energy_is_integrated_from_readings() -> None:
    assert integrate_energy_j([]) is None
    assert integrate_energy_j([Reading(at_s=0, watts=5)]) is None
    assert integrate_energy_j([Reading(at_s=0), Reading(at_s=1)]) is None
    ramp = [Reading(at_s=at, watts=watts) for at, watts in ((0, 0.0), (2, 10.0), (3, 10.0))]
    assert integrate_energy_j(ramp) == 10 + 10
    gap = [Reading(at_s=0, watts=4), Reading(at_s=1), Reading(at_s=2, watts=8)]
    assert integrate_energy_j(gap) == 12
    counter = [Reading(at_s=0, joules=100, watts=9), Reading(at_s=2, joules=130, watts=9)]
    assert integrate_energy_j(counter) == 30, "an energy counter is more accurate than samples of power"


class SteadyMeter:
    """Meter that reports 10 W and about 1500 MHz, and throttling in its second reading."""

    name, covers = "NVML", "GPU board"

    def __init__(self, watts: float = 10.0) -> None:
        self.watts, self.count, self.closed = watts, 0, False

    def read(self) -> Reading:
        self.count += 1
        throttled = ("power cap",) if self.count == 2 else ()
        return Reading(
            at_s=float(self.count), watts=self.watts, gpu_mhz=1500.0 - self.count, temperature_c=60, throttled=throttled
        )

    def close(self) -> None:
        self.closed = True


def test_a_meter_is_read_while_the_body_runs() -> None:
    meter = SteadyMeter()
    with monitor_power([meter], period_s=0.01) as monitor:
        while meter.count < 5:
            sleep(0.005)
    assert meter.closed
    (result,) = monitor.summarize(frames=100)["meters"]
    assert result["mean_w"] == 10
    assert result["joules"] == 10 * (result["samples"] - 1) == 10 * result["seconds"]
    assert result["joules_per_frame"] == pytest.approx(result["joules"] / 100)
    assert result["gpu_mhz"]["min"] == 1500 - result["samples"]
    assert (result["max_temperature_c"], result["throttled"]) == (60, ["power cap"])


def test_nothing_and_zero_are_not_available() -> None:
    with monitor_power([]) as monitor:
        pass
    assert monitor.summarize(frames=1) == {"not_available": "no meter"}
    with monitor_power([SteadyMeter(watts=0.0)]) as monitor:
        pass
    assert monitor.summarize(frames=1) == {"not_available": "the meters report 0 or nothing"}


def test_a_meter_that_fails_does_not_stop_the_run() -> None:
    meter = SteadyMeter()
    meter.read = lambda: (_ for _ in ()).throw(OSError("gone"))  # type: ignore[method-assign]
    with monitor_power([meter]) as monitor:
        pass
    assert "not_available" in monitor.summarize(frames=1)
    assert meter.closed


def write_rapl_zone(root: Path, *, energy_uj: int, zone: str = "intel-rapl:0", name: str = "package-0") -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", 1_000_000)):
        (folder / file).write_text(f"{text}\n")
    return folder


def test_rapl_counters_overflow_and_subzones_are_not_counted_twice(tmp_path: Path) -> None:
    package = write_rapl_zone(tmp_path, energy_uj=900_000)
    other = write_rapl_zone(tmp_path, energy_uj=0, zone="intel-rapl:1", name="package-1")
    write_rapl_zone(tmp_path, energy_uj=500, zone="intel-rapl:0:0", name="core")
    psys = write_rapl_zone(tmp_path, energy_uj=500, zone="intel-rapl:2", name="psys")
    meter = RaplMeter(tmp_path)
    (package / "energy_uj").write_text("100000")  # 0.2 J later, after an overflow
    (other / "energy_uj").write_text("300000")
    (psys / "energy_uj").write_text("999999")
    assert meter.read().joules == pytest.approx(0.5)
    (package / "energy_uj").write_text("150000")
    assert meter.read().joules == pytest.approx(0.55)


def test_missing_meters_have_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(meters_module, "open_nvml", NoNvml)
    meters, reason = open_meters(tmp_path)
    assert (meters, reason) == ([], "no NVML, no RAPL, no tegrastats")
    write_rapl_zone(tmp_path, energy_uj=1)
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert open_meters(tmp_path)[1] == "no NVML, only root may read RAPL, no tegrastats"


class NoNvml:
    """Stand-in for `open_nvml` on a machine without NVML."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_tegrastats_is_read_as_a_child_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\necho starting\nwhile :; do echo '{JETPACK_6}'; sleep 0.02; done\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    meters, _ = open_meters(tmp_path)
    assert [type(meter) for meter in meters] == [TegraMeter]
    with monitor_power(meters, period_s=0.01) as monitor:
        ((_, readings),) = monitor._meters
        wait_until(lambda: len(readings) > 1)
    (result,) = monitor.summarize(frames=10)["meters"]
    assert result["mean_w"] == pytest.approx(5.704)
    assert (result["name"], result["covers"], result["throttled"]) == ("tegrastats", "module", None)
    assert result["max_temperature_c"] == 48.843


def test_over_current_counts_as_throttling(tmp_path: Path) -> None:
    counter = tmp_path / "sys/class/hwmon/hwmon3/oc1_event_cnt"
    counter.parent.mkdir(parents=True)
    counter.write_text("4\n")
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\necho '{JETPACK_6}'\necho '{JETPACK_6}'\n")
    tool.chmod(0o755)
    meter = TegraMeter(str(tool), tmp_path)
    first = meter.read()
    counter.write_text("5\n")
    second = meter.read()
    assert (first and first.throttled, second and second.throttled) == ((), ("over-current",))
    assert meter.read() is None, "the output has ended"
    meter.close()


class NvmlError(Exception):
    """Stand-in for pynvml.NVMLError."""


def make_library(**changes: Any) -> Any:
    """Return a stand-in for nvidia-ml-py with one GPU that draws 250 W."""
    names = {
        "NVMLError": NvmlError,
        "NVML_CLOCK_GRAPHICS": 0,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetPowerUsage": lambda _: 250_000,
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: 7_000,
        "nvmlDeviceGetClockInfo": lambda _, kind: 1980,
        "nvmlDeviceGetTemperature": lambda _, kind: 65,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x4 | 0x40 | 0x1,
    }
    return SimpleNamespace(**names | changes)


def raise_unsupported(*_: object) -> None:
    raise NvmlError("Not Supported")


def test_an_nvidia_gpu_is_read() -> None:
    reading = NvmlMeter(make_library(), ExitStack()).read()
    assert (reading.watts, reading.joules, reading.gpu_mhz, reading.temperature_c) == (250, 7, 1980, 65)
    assert reading.throttled == ("power cap", "hardware thermal"), "idle is not throttling"


def test_an_older_gpu_reports_less() -> None:
    older = make_library(nvmlDeviceGetTotalEnergyConsumption=raise_unsupported)
    del older.nvmlDeviceGetCurrentClocksEventReasons
    reading = NvmlMeter(older, ExitStack()).read()
    assert (reading.watts, reading.joules, reading.throttled) == (250, None, None)
    older.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: 0x8
    assert NvmlMeter(older, ExitStack()).read().throttled == ("hardware",)


def test_a_gpu_without_a_power_sensor_is_not_a_meter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class MuteNvml(NoNvml):
        def __enter__(self) -> Any:
            return make_library(nvmlDeviceGetPowerUsage=raise_unsupported)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(meters_module, "open_nvml", MuteNvml)
    meters, reason = open_meters(tmp_path)
    assert meters == []
    assert reason.startswith("NVML does not report the power (Not Supported)")
