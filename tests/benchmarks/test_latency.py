"""Latencies of engines whose latency is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency import main, measure, ratio, table
from runtime.frame import Pixels
from runtime.spec import EngineSpec


class Sleeper:
    """Takes this long for a frame."""

    def __init__(self, seconds: float) -> None:
        self.spec, self.backend, self.seconds = EngineSpec(name="sleeper"), "sleep", seconds

    def infer(self, batch: Pixels) -> Pixels:
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            time.sleep(0)
        return batch

    def close(self) -> None: ...


def test_a_slowdown_is_found_and_none_is_not_invented() -> None:
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    slow, fast, alike = measure(
        [Sleeper(0.011), Sleeper(0.010), Sleeper(0.010)], ["a", "b", "c"], frame, duration_s=1.5
    )
    found, low, high = ratio(slow, fast)
    assert low <= found <= high
    assert found == pytest.approx(1.1, abs=0.03)
    assert low > 1
    assert ratio(alike, fast)[0] == pytest.approx(1, abs=0.03)
    assert fast.percentile(50) == pytest.approx(10, rel=0.1)
    assert table([slow, fast]).count("\n") == 3


def test_the_command_compares_engines(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", f"{invert}@cpu", "--engine", f"{invert}@openvino", "--size", "64x48", "--duration", "0.5"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "| invert.onnx | ONNX Runtime" in shown
    assert "| invert.onnx | OpenVINO" in shown
    assert main(["--engine", "none.onnx"]) == 4
    assert main(["--engine", f"{invert}@magic"]) == 2
    with pytest.raises(SystemExit) as ending:
        main(["--size", "64"])
    assert ending.value.code == 2
