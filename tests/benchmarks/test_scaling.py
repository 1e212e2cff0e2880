"""Growth with size, threads and streams: real engines for the command, known ones for the arithmetic."""

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


def test_the_command_tells_all_three(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "scaling.json"
    sizes = ["--sizes", "32x24", "64x48", "128x96", "--size", "64x48"]
    counts = ["--threads", "1", "2", "--streams", "1", "2"]
    assert scaling.main(["--engine", f"{invert}@cpu", *sizes, *counts, *QUICK, "--json", str(result)]) == 0
    shown = capsys.readouterr().out
    assert "| 128x96 | " in shown
    assert "x megapixels; R2" in shown
    results = read_results(result)["results"]
    assert [each["size"] for each in results["resolution"]["points"]] == [[32, 24], [64, 48], [128, 96]]
    assert [each["threads"] for each in results["threads"]["points"]] == [1, 2]
    assert results["threads"]["points"][0]["speedup"] == 1
    assert [each["streams"] for each in results["streams"]["points"]] == [1, 2]


def test_one_of_them_alone(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", f"{invert}@cpu", "--what", "threads", "--size", "64x48", "--threads", "1", *QUICK]
    assert scaling.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "times faster" in shown
    assert "megapixels" not in shown


def test_what_is_wrong_is_one_line(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["--engine", "none.onnx"]) == 4
    assert capsys.readouterr().err.startswith("error: no such engine")
    with pytest.raises(SystemExit):
        scaling.parse(["--streams", "0"])


class BySize(KnownEngine):
    """Two milliseconds, and fifty a megapixel."""

    def __init__(self) -> None:
        super().__init__(lambda _: 2 + 50e-6 * self.pixels)

    def infer(self, batch: Pixels) -> Pixels:
        self.pixels = batch.shape[1] * batch.shape[2]
        return super().infer(batch)


def test_the_law_of_an_engine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "opened", lambda *_, **__: BySize())
    sizes = ((100, 100), (200, 100), (400, 200))
    told = scaling.resolution("known", sizes, "synthetic", Load(min_queries=24, min_duration_s=0))["line"]
    assert told["fixed_ms"] == pytest.approx(2, rel=0.3)
    assert told["ms_per_megapixel"] == pytest.approx(50, rel=0.3)


def test_streams_run_at_once_and_are_counted_together() -> None:
    """Engines that wait take no CPU, so that four of them give four times as much on any machine."""
    together = threading.Barrier(4, timeout=20)

    def first_meets_the_others(query: int) -> float:
        if query == 1:  # the one before prepares it
            together.wait()
        return 20.0

    rates = scaling._at_once([KnownEngine(first_meets_the_others) for _ in range(4)], FRAMES, duration_s=0.2)
    assert len(rates) == 4
    assert all(0 < rate <= 50 for rate in rates)


def test_a_stream_that_fails_is_told() -> None:
    class Broken(KnownEngine):
        def infer(self, batch: Pixels) -> Pixels:
            raise MemoryError("no more")

    with pytest.raises(MemoryError):
        scaling._at_once([KnownEngine(1.0), Broken(1.0)], [np.zeros((1, 8, 8, 3), np.uint8)], duration_s=0.05)
