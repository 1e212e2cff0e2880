"""Scaling with size, threads and streams: the command with real engines, the arithmetic with known ones."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.harness.results import read_results
from benchmarks.harness.scenarios import Load
from runtime.frame import Pixels
from tests.virtual import FRAMES, KnownEngine

QUICK = ["--min-queries", "4", "--min-duration", "0.02"]


def test_the_command_measures_all_three_quantities(
    invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "scaling.json"
    sizes = ["--sizes", "32x24", "64x48", "128x96", "--size", "64x48"]
    counts = ["--threads", "1", "2", "--streams", "1", "2"]
    assert scaling.main(["--engine", f"{invert}@cpu", *sizes, *counts, *QUICK, "--json", str(result)]) == 0
    shown = capsys.readouterr().out
    assert "| 128x96 | " in shown
    assert "x megapixels; R2" in shown
    results = read_results(result)["results"]
    assert [point["size"] for point in results["resolution"]["points"]] == [[32, 24], [64, 48], [128, 96]]
    assert [point["threads"] for point in results["threads"]["points"]] == [1, 2]
    assert results["threads"]["points"][0]["speedup"] == 1
    assert [point["streams"] for point in results["streams"]["points"]] == [1, 2]


def test_one_quantity_alone_is_measured(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", f"{invert}@cpu", "--what", "threads", "--size", "64x48", "--threads", "1", *QUICK]
    assert scaling.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "speed-up (ratio)" in shown
    assert "megapixels" not in shown


def test_errors_are_one_line_each(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--engine", "none.onnx"]) == 4
    assert capsys.readouterr().err.startswith("error: no such engine")
    with pytest.raises(SystemExit):
        scaling.parse(["--streams", "0"])


class SizeDependentEngine(KnownEngine):
    """Engine that takes 2 ms plus 50 ms for each megapixel."""

    def __init__(self) -> None:
        super().__init__(lambda _: 2 + 50e-6 * self.pixels)

    def infer(self, batch: Pixels) -> Pixels:
        self.pixels = batch.shape[1] * batch.shape[2]
        return super().infer(batch)


def test_the_line_of_an_engine_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "open_named_engine", lambda *_, **__: SizeDependentEngine())
    sizes = ((100, 100), (200, 100), (400, 200))
    line = scaling.measure_sizes("known", sizes, "synthetic", Load(min_queries=24, min_duration_s=0))["line"]
    assert line["fixed_ms"] == pytest.approx(2, rel=0.3)
    assert line["ms_per_megapixel"] == pytest.approx(50, rel=0.3)


def test_streams_run_at_the_same_time() -> None:
    """Use engines that wait and take no CPU time, so that four of them run at the same time on any machine."""
    barrier = threading.Barrier(4, timeout=20)

    def wait_for_the_others(query: int) -> float:
        if query == 1:  # query 0 prepares the slot
            barrier.wait()
        return 20.0

    rates = scaling.run_concurrently([KnownEngine(wait_for_the_others) for _ in range(4)], FRAMES, duration_s=0.2)
    assert len(rates) == 4
    assert all(0 < rate <= 50 for rate in rates)


def test_an_error_of_one_stream_is_raised() -> None:
    class Broken(KnownEngine):
        def infer(self, batch: Pixels) -> Pixels:
            raise MemoryError("no more")

    with pytest.raises(MemoryError):
        scaling.run_concurrently([KnownEngine(1.0), Broken(1.0)], [np.zeros((1, 8, 8, 3), np.uint8)], duration_s=0.05)
