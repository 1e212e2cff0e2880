"""Odd numbers in the options of training, export and benchmarks: refused by the parser, in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.gpu_check.__main__ import main as check_gpu
from benchmarks.latency.__main__ import main as measure_latency
from benchmarks.peers.__main__ import main as compare_peers
from benchmarks.scaling import main as measure_scaling
from export.__main__ import main as export
from export.triton import main as write_triton
from train.exposures import main as make_exposures

Main = Callable[[list[str]], int]
TINY = "1e-400"
HUGE = "9" * 30


@pytest.mark.parametrize(
    ("main", "arguments", "numbers"),
    [
        (export, ["RUN", "--out", "out", "--budget-db"], ["nan", "inf", "-1", "x"]),
        (export, ["RUN", "--out", "out", "--fp16-budget-db"], ["nan", "-0.1"]),
        (export, ["RUN", "--out", "out", "--batch"], ["0", "-1", HUGE]),
        (export, ["RUN", "--out", "out", "--workspace-mib"], ["0", "-1", HUGE]),
        (export, ["RUN", "--out", "out", "--dla"], ["-1", HUGE]),
        (write_triton, ["a.onnx", "--out", "out", "--instances"], ["0", HUGE]),
        (write_triton, ["a.onnx", "--out", "out", "--batch"], ["-1", HUGE]),
        (write_triton, ["a.onnx", "--out", "out", "--delay-us"], ["-1", HUGE]),
        (make_exposures, ["--source", "a.mp4", "--out", "out", "--lengths"], ["4", "1", f"{HUGE}9"]),
        (make_exposures, ["--source", "a.mp4", "--out", "out", "--stride"], ["0", HUGE]),
        (measure_latency, ["--min-duration"], ["nan", "inf", "-1"]),
        (measure_latency, ["--min-queries"], ["0", HUGE]),
        (measure_latency, ["--warm-up"], ["nan", "-1"]),
        (measure_latency, ["--rate"], ["nan", "0", "inf", TINY]),
        (measure_scaling, ["--threads"], ["0", HUGE]),
        (measure_scaling, ["--streams"], ["0", HUGE]),
        (measure_scaling, ["--min-queries"], ["0"]),
        (measure_scaling, ["--min-duration"], ["nan", "-1"]),
        (compare_peers, ["--duration"], ["nan", "0", "inf"]),
        (compare_peers, ["--threads"], ["0", HUGE]),
        (check_gpu, ["--duration"], ["nan", "-1"]),
    ],
)
def test_odd_numbers_are_refused(
    main: Main, arguments: list[str], numbers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in numbers:
        with pytest.raises(SystemExit) as ending:
            main([*arguments, number])
        assert ending.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: argument {arguments[-1]}: ")
        assert len(line) < 200
