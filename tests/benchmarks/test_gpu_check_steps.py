"""Single steps of the GPU check, called in this process with stand-ins."""

from __future__ import annotations

import ctypes
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu_check import driver, preflight, providers, robustness, stream, trtexec
from benchmarks.gpu_check.engine import count_layers
from benchmarks.gpu_check.steps import CheckError, NotRunError, Report
from runtime.engines.cuda import Device
from runtime.engines.cuda_drivers import CudaBindings
from tests.conftest import make_image
from tests.runtime.test_cuda import BindingsDriver


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "facts.json")


def test_a_half_plan_after_a_kill_fails(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "killed.plan"

    def kill(command: list[str], seconds: float) -> bool:
        plan.write_bytes(b"half")
        return True

    monkeypatch.setattr(robustness, "_kill_after", kill)
    monkeypatch.setattr(robustness, "_build", lambda command: None)
    monkeypatch.setattr(robustness, "detect_flavour", lambda: "tensorrt")
    with pytest.raises(CheckError, match=r"the killed build left killed\.plan"):
        robustness.kill_build(report, onnx="copy.onnx", plan=str(plan))


class Camera:
    """Stand-in for a camera with a number of frames."""

    def __init__(self, count: int, *, is_still: bool = False) -> None:
        self._seeds = [0 if is_still else index for index in range(count)]

    def __iter__(self) -> Iterator[Any]:
        return (SimpleNamespace(bgr=make_image(64, 48, seed=seed)) for seed in self._seeds)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("camera", "reason"),
    [(Camera(40), ""), (Camera(9), "gave 9 frames"), (Camera(40, is_still=True), "frames of the camera are the same")],
)
def test_thirty_frames_of_a_camera(
    invert: Path, report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, camera: Camera, reason: str
) -> None:
    monkeypatch.setattr(stream, "open_source", lambda *_: camera)
    if reason:
        with pytest.raises(CheckError, match=reason):
            stream.read_camera(report, plan=str(invert))
    else:
        stream.read_camera(report, plan=str(invert))
    facts = json.loads((tmp_path / "facts.json").read_text())["facts"]
    assert facts["shape"] == [48, 64, 3]


@pytest.mark.parametrize("provider", ["cuda", "cpu"])
def test_a_provider_of_onnx_runtime(
    invert: Path, report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: str
) -> None:
    """The CPU stands in for a GPU."""
    arguments = {"onnx": str(invert), "provider": provider, "duration_s": 0.01}
    if provider == "cuda":
        monkeypatch.setattr(providers, "has_provider", lambda _: False)
        with pytest.raises(NotRunError, match="ONNX Runtime has no provider cuda here"):
            providers.measure_provider(report, **arguments)
        return
    providers.measure_provider(report, **arguments)
    facts = json.loads((tmp_path / "facts.json").read_text())["facts"]
    assert (facts["worst_db"], facts["required_db"]) == (99.0, 35.0)
    assert 0 < facts["host_p50_ms"] <= facts["host_p99_ms"]
    monkeypatch.setattr(providers, "capped_psnr_db", lambda *_: 12.0)
    with pytest.raises(CheckError, match=r"12.0 dB between cpu and CPU, at least 35 dB are required"):
        providers.measure_provider(report, **arguments)


def test_a_jetson_is_described_from_its_files(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n# KERNEL",
        "proc/meminfo": "MemTotal:  7620 kB\nMemFree: 1 kB\n",
        "tmp/argus_socket": "",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
        "usr/src/tensorrt/bin/trtexec": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(preflight, "_ask", lambda code, *words: {"version": "1", "file": "f"})
    monkeypatch.setenv("PATH", "")
    preflight.check_machine(report, root=str(root))
    facts = json.loads((tmp_path / "facts.json").read_text())["facts"]
    assert facts["l4t"] == "# R36 (release), REVISION: 4.3, GCID: 1"
    assert facts["memory"] == {"MemTotal": "7620 kB"}
    assert facts["gpu_clock_mhz"] == {"cur_freq": 306.0}
    assert facts["trtexec"] == str(root / "usr/src/tensorrt/bin/trtexec")
    assert facts["missing"] == {}
    (root / "tmp/argus_socket").unlink()
    assert set(preflight._list_missing({}, {}, {"error": "no driver"}, root)) == {"csi", "driver"}


def test_layers_are_counted_in_the_words_of_every_version() -> None:
    layers = [
        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Thirty-two wide channel INT8"}]},
        {"LayerType": "correlation", "Outputs": [{"Datatype": "Int8"}]},
        {"LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"LayerType": "NoOp", "Outputs": []},
        "only a name",
    ]
    assert count_layers(layers) == {
        "layer_kinds": {"CaskConvolution": 1, "correlation": 1, "Reformat": 1, "NoOp": 1, "unknown": 1},
        "layer_types": {"INT8": 2, "FP32": 1, "other": 1},
    }


def test_shared_memory_can_be_forced_on_any_gpu() -> None:
    cuda = CudaBindings(BindingsDriver(), Device("GPU", "8.9", integrated=False, driver="13.0"), 0)
    cuda.device = dataclasses.replace(cuda.device, integrated=True)
    with cuda.active():
        buffer = cuda.allocate(100)
        assert buffer.host.ctypes.data == buffer.device
        buffer.free()


class Library:
    """Stand-in for libcuda with a hundred bytes."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def free(self) -> int:
        return 100 - sum(map(len, self.blocks.values()))

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = self.free(), 100
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > self.free():
            return 2
        block = (ctypes.c_uint8 * size.value)()
        address._obj.value = ctypes.addressof(block)
        self.blocks[address._obj.value] = block
        return 0

    def cuMemAllocManaged(self, address: Any, size: Any, flags: int) -> int:  # noqa: N802
        assert flags == 1
        return self.cuMemAlloc_v2(address, size)

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.blocks[address.value]
        return 0


def test_calls_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(driver, "_library", lambda: library)
    address = driver.allocate(60)
    assert address
    assert driver.free_bytes() == 40
    assert driver.allocate(41) is None
    buffer = driver.ManagedBuffer(40)
    buffer.host[:] = 7
    assert buffer.device == buffer.host.ctypes.data
    buffer.free()
    driver.release(address)
    assert driver.free_bytes() == 100
    with pytest.raises(CheckError, match="cuMemAllocManaged failed with CUDA error 2"):
        driver.ManagedBuffer(101)


def test_the_time_of_trtexec() -> None:
    line = "[01/01/2026-00:00:00] [I] GPU Compute Time: min = 1.1 ms, max = 9 ms, mean = 1.6 ms, median = 1.5 ms, p"
    assert trtexec.parse_compute_ms(f"[I] Latency: median = 2 ms\n{line}\n") == 1.5
    with pytest.raises(CheckError, match="no GPU compute time"):
        trtexec.parse_compute_ms("[E] error")
