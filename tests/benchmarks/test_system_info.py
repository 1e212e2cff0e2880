"""Facts about other machines, from copies of the files that their kernels provide."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.harness import system_info
from benchmarks.harness.system_info import describe_machine, make_device_name


@pytest.mark.parametrize(
    ("model", "cores", "gpus", "board", "name"),
    [
        ("AMD EPYC", 2, [], None, "amd-epyc-2-cores"),
        ("AMD EPYC 9R14 96-Core Processor", 1, [], None, "amd-epyc-9r14-1-core"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 4, [], None, "intel-xeon-4-cores"),
        ("AMD EPYC", 16, [{"name": "NVIDIA H100 80GB HBM3"}], None, "nvidia-h100-80gb-hbm3"),
        ("ARMv8", 6, [], "NVIDIA Jetson Orin Nano Developer Kit", "nvidia-jetson-orin-nano-developer-kit"),
    ],
)
def test_the_folder_name_of_a_device(model: str, cores: int, gpus: list[Any], board: str | None, name: str) -> None:
    assert make_device_name(model, cores, gpus, board=board) == name


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_jetson_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\nCPU part\t: 0xd42\n\n")
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    write(tmp_path, "proc/meminfo", "MemTotal:       64309000 kB\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2201600\n")
    write(tmp_path, "etc/os-release", 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n')
    write(tmp_path, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    tool = tmp_path / "bin" / "nvpmodel"
    write(tmp_path, "bin/nvpmodel", "#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    facts = describe_machine(tmp_path)
    assert facts["jetson"] == {"release": "L4T 36.4.3", "power_mode": "MODE_30W"}
    assert facts["device"] == "nvidia-jetson-agx-orin-developer-kit"
    cpu = facts["cpu"]
    assert (cpu["features"], cpu["governor"], cpu["mhz"]) == (["asimd", "asimddp"], "schedutil", 2202)
    assert cpu["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert (facts["memory_gib"], facts["os"]) == (61.3, "Ubuntu 22.04.5 LTS")


def test_a_machine_without_information_is_described(tmp_path: Path) -> None:
    facts = describe_machine(tmp_path)
    assert (facts["memory_gib"], facts["jetson"], facts["cpu"]["governor"], facts["cpu"]["mhz"]) == (None,) * 4
    assert facts["cpu"]["model"]


@pytest.mark.parametrize(
    ("name", "device"),
    [("AMD EPYC", "amd-epyc-family-25-model-1-2-cores"), ("AMD EPYC 9R14 96-Core Processor", "amd-epyc-9r14-2-cores")],
)
def test_family_and_model_are_added_to_a_generic_processor_name(
    name: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "proc/cpuinfo", f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: {name}\n\n")
    monkeypatch.setattr(system_info, "count_cores", lambda: 2)
    monkeypatch.setattr(system_info, "_describe_gpus", list)
    assert describe_machine(tmp_path)["device"] == device


class NvmlError(Exception):
    """Stand-in for pynvml.NVMLError."""


def make_library(*, integrated: bool = False) -> Any:
    """Return a stand-in for nvidia-ml-py with one GPU."""

    def discrete_only(value: Any) -> Any:
        if integrated:
            raise NvmlError("Not Supported")
        return value

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: "NVIDIA H100 80GB HBM3",
        nvmlDeviceGetCudaComputeCapability=lambda _: (9, 0),
        nvmlDeviceGetMemoryInfo=lambda _: discrete_only(SimpleNamespace(total=80 << 30, used=0)),
        nvmlDeviceGetPowerManagementLimit=lambda _: discrete_only(700_000),
    )


@pytest.mark.parametrize("integrated", [False, True])
def test_gpus_are_described_as_far_as_nvml_reports(integrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_nvml() -> Any:
        yield make_library(integrated=integrated)

    monkeypatch.setattr(system_info, "open_nvml", open_nvml)
    (gpu,) = describe_machine()["gpus"]
    assert (gpu["driver"], gpu["compute_capability"]) == ("580.65.06", "9.0")
    assert (gpu["memory_gib"], gpu["power_limit_w"]) == ((None, None) if integrated else (80.0, 700.0))
