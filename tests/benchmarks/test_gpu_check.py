"""The GPU check without a GPU, and with stand-ins for the GPU and TensorRT in its child processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import child, preflight, processes, suite
from benchmarks.gpu_check.catalogue import list_steps
from benchmarks.gpu_check.runner import run_step
from benchmarks.gpu_check.steps import NotRunError, Report, Step, StepResult
from benchmarks.gpu_check.verdict import Verdict
from runtime.engines import BUNDLED
from tests.conftest import ROOT, without_gpu, write_engine
from tests.rig import with_gpu

COPY = [helper.make_node("Identity", ["x0"], ["y"])]
TRTEXEC = "#!/bin/sh\necho '[I] GPU Compute Time: min = 1 ms, max = 9 ms, mean = 5 ms, median = {} ms, percentile'\n"
TEGRASTATS = """#!/bin/sh
while echo 'RAM 2000/7620MB (lfb 4x4MB) GR3D_FREQ 50%@[306] cpu@40C tj@41C VDD_IN 5000mW/5000mW'; do sleep 0.1; done
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the children stand-ins for a GPU, TensorRT and trtexec; return a folder with one engine in `engines`."""
    monkeypatch.setattr(processes, "PYTHON", (*processes.PYTHON, with_gpu.__file__))
    for name in ("engines", "bin", "logs", "plans"):
        (tmp_path / name).mkdir()
    write_engine(tmp_path / "engines" / "copy.onnx", nodes=COPY)
    for name, script in (("trtexec", TRTEXEC.format("1000")), ("tegrastats", TEGRASTATS)):
        tool = tmp_path / "bin" / name
        tool.write_text(script)
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def run_check(folder: Path) -> int:
    arguments = ["--engines", str(folder / "engines"), "--out", str(folder / "out"), "--duration", "0.01"]
    return command.main(arguments)


def read_steps(out: Path) -> dict[str, Any]:
    content = json.loads((out / "verdict.json").read_text())
    return {step["name"]: step for step in content["steps"]}


# The whole command


@without_gpu
def test_without_a_gpu_it_runs_to_the_end_and_says_at_each_step_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    page = (tmp_path / "verdict.md").read_text()
    assert page == done.stdout
    assert page.startswith("# NOT RUN: no NVIDIA driver is installed here (libcuda.so.1)")
    steps = read_steps(tmp_path)
    first, second, *others = steps.values()
    assert (first["status"], second["status"]) == ("passed", "passed")
    assert first["facts"]["modules"]["numpy"]["version"] == np.__version__
    assert {"edge-s_fp16", "edge-s_fp32"} <= {engine["name"] for engine in second["facts"]["engines"]}
    assert len(others) > 30
    for step in others:
        assert step["status"] == "not run"
        assert "no NVIDIA driver is installed here" in step["reason"]
        assert step["name"] in page
    assert str(preflight.ARGUS_SOCKET) in steps["30 frames of a CSI camera"]["reason"]
    assert "/usr/src/tensorrt/bin" in steps["trtexec with the same engine: at most 10 % faster"]["reason"]
    with tarfile.open(tmp_path / "gpu-check.tar.gz") as archive:
        names = archive.getnames()
    assert {"gpu-check/verdict.md", "gpu-check/verdict.json"} <= set(names)
    assert f"gpu-check/logs/{first['log']}" in names


def test_a_machine_on_which_all_steps_pass(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_check(machine)
    steps = read_steps(machine / "out")
    assert {name: step["reason"] for name, step in steps.items() if step["status"] == "failed"} == {}
    page = capsys.readouterr().out
    assert page.startswith("# PASS\n")
    assert code == 0
    assert {name for name, step in steps.items() if step["status"] == "not run"} == {
        "30 frames of a CSI camera",
        "tests for a GPU: pytest -m gpu",
        *(f"ONNX Runtime with provider {provider}" for provider in ("cuda", "tensorrt", "trt-rtx")),
    }
    output = steps["copy, any size: output against the CPU"]["facts"]
    assert (output["has_graph"], output["graph_equals_plain"], output["worst_db"]) == (True, True, 99.0)
    assert "1 x 333x217" in output["sizes"]
    assert output["sizes"][0] == output["sizes"][-1]
    assert "5 x 640x360" in steps["copy, two frames a call: output against the CPU"]["facts"]["sizes"]
    layers = steps["copy, one size: list its layers"]["facts"]
    assert layers["layer_types"] == {"FP32": 1, "FP16": 1}
    speed = steps["copy, any size: speed"]["facts"]
    assert speed["size"] == "1280x720"
    assert 0 < speed["compute_p50_ms"] <= speed["compute_p99_ms"]
    assert speed["throughput_fps"] > 0
    for name, message in (
        ("plan of another TensorRT version", "plan was built by tensorrt 0.0.1"),
        ("plan that its sidecar does not describe", "SHA-256 differs"),
        ("half a plan given to TensorRT", "tensorrt cannot load the plan"),
    ):
        assert message in steps[f"{name}: one clear error"]["facts"]["message"]
    assert "not enough GPU memory" in steps["GPU memory full: one clear error"]["facts"]["message"]
    video = steps["video for 0.12 s, from decoder to encoder"]["facts"]
    assert video["frames"] >= 300
    assert video["sampler"] == "tegrastats"
    assert video["power"]["meters"][0]["mean_w"] == pytest.approx(5)
    assert "- tegrastats (module): 5.0 W, " in page
    assert ", GPU at 306 MHz, at least 306 MHz, up to 41 degrees Celsius" in page
    assert "Fastest: **" in page
    with tarfile.open(machine / "out" / "gpu-check.tar.gz") as archive:
        names = archive.getnames()
    assert "gpu-check/logs/copy_one_size_build_the_plan.log" in names
    assert "gpu-check/logs/stream_samples.txt" in names
    assert "gpu-check/plans/copy_static.layers.json" in names
    assert not [name for name in names if name.endswith((".plan", ".mp4"))]


def test_an_engine_that_dies_fails_and_the_others_still_run(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", "copy_static.plan:signal")
    parts = ("size: build the plan", "size: output against the CPU", "size: speed")
    monkeypatch.setattr(
        command, "list_steps", lambda *words: [step for step in list_steps(*words) if step.name.endswith(parts)]
    )
    assert run_check(machine) == 1
    page = capsys.readouterr().out
    assert page.startswith("# FAIL: copy, one size: output against the CPU; copy, one size: speed\n")
    steps = read_steps(machine / "out")
    assert "died of SIGSEGV" in steps["copy, one size: speed"]["reason"]
    assert steps["copy, any size: speed"]["status"] == "passed"


def test_opencv_that_does_not_load_is_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("# FAIL: machine, drivers and Python modules: OpenCV does not work with the NumPy")
    assert "engines for a GPU | not run: OpenCV does not work" in done.stdout


def test_a_check_that_is_interrupted_leaves_a_page_and_an_archive(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(step: Step, logs: Path) -> StepResult:
        if "output" in step.name:
            raise KeyboardInterrupt
        return run_step(step, logs)

    monkeypatch.setattr(command, "run_step", run)
    run_check(machine)
    page = (machine / "out" / "verdict.md").read_text()
    assert page.startswith("# NOT FINISHED: 4 of 29 steps done, stopped in: copy, one size: output against the CPU\n")
    assert (machine / "out" / "gpu-check.tar.gz").exists()


def test_a_folder_without_engines_and_one_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "engines").mkdir()
    assert run_check(tmp_path) == 1
    assert "no engines for a GPU in" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert command.main(["--out", str(tmp_path / "file" / "out")]) == 6
    assert capsys.readouterr().err.startswith("error: cannot write output (Not a directory)")


def test_a_damaged_engine_does_not_hide_the_others(machine: Path) -> None:
    (machine / "engines" / "broken.onnx").write_bytes(b"no engine")
    listing = Step(name="engines", function="engine:list_engines", arguments={"folder": str(machine / "engines")})
    result = run_step(listing, machine / "logs")
    assert result.status == "failed"
    assert "broken.onnx" in result.reason
    assert [engine["name"] for engine in result.facts["engines"]] == ["copy"]


# One process


def run_speed(folder: Path, **settings: Any) -> StepResult:
    plan, onnx = folder / "plans" / "copy_static.plan", folder / "engines" / "copy.onnx"
    build = {"onnx": str(onnx), "plan": str(plan), "kind": "static"}
    assert run_step(Step(name="build", function="engine:build_plan", arguments=build), folder / "logs").reason == ""
    speed = {"plan": str(plan), "kind": "static", "duration_s": 0.01}
    step = Step(name="speed", function="engine:measure_speed", arguments=speed, **settings)
    return run_step(step, folder / "logs")


def test_an_engine_for_planes_gets_planes(machine: Path) -> None:
    """Odd sizes become even; engines for planes come last, so that the steps with one plan are of an engine for BGR."""
    onnx, plan = machine / "engines" / "a_yuv420.onnx", machine / "plans" / "a_yuv420_dynamic.plan"
    write_engine(onnx, nodes=COPY, shape=("n", "rows", "w"))
    listed = run_step(
        Step(name="list", function="engine:list_engines", arguments={"folder": str(onnx.parent)}), machine / "logs"
    )
    assert [engine["name"] for engine in listed.facts["engines"]] == ["copy", "a_yuv420"]
    both = {"onnx": str(onnx), "plan": str(plan), "kind": "dynamic"}
    speed = {"plan": str(plan), "kind": "dynamic", "duration_s": 0.01}
    results = [
        run_step(Step(name=name, function=f"engine:{name}", arguments=arguments), machine / "logs")
        for name, arguments in (("build_plan", both), ("compare_output", both), ("measure_speed", speed))
    ]
    assert [result.reason for result in results] == ["", "", ""]
    assert "1 x 332x216" in results[1].facts["sizes"]


def test_the_log_of_a_build_holds_every_word_of_the_builder(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = BUNDLED.with_name("edge-s_fp16.onnx")
    arguments = {"onnx": str(engine), "plan": str(tmp_path / "edge-s.plan"), "kind": "static"}
    result = run_step(Step(name="build", function="engine:build_plan", arguments=arguments), tmp_path)
    assert (result.status, result.reason) == ("passed", "")
    assert result.facts["build_s"] > 0
    assert "LayerType: correlation" in (tmp_path / "build.log").read_text()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("signal", r"the process died of SIGSEGV, in execute_async_v3 \(with_gpu.py, line \d+\)"),
        ("exception", "RuntimeError: the stand-in failed"),
        ("exit", "the process ended with code 3: .*"),
        ("late", "the process died of SIGSEGV, at the end of the process"),
    ],
)
def test_every_end_of_a_process_becomes_a_line(
    machine: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str
) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", f"measure_speed:{kind}")
    result = run_speed(machine)
    assert result.status == "failed"
    assert re.fullmatch(reason, result.reason)
    assert (machine / "logs" / result.log).stat().st_size > 100


def test_a_step_may_find_that_it_cannot_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_tests(report: Report) -> None:
        raise NotRunError("the plan fits into memory")

    monkeypatch.setattr(suite, "run_tests", run_tests)
    assert child.main(["suite:run_tests", "{}", str(tmp_path / "facts.json")]) == 0
    outcome = json.loads((tmp_path / "facts.json").read_text())
    assert (outcome["status"], outcome["reason"]) == ("not run", "the plan fits into memory")


def test_a_process_that_hangs_is_ended(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", "measure_speed:hang")
    result = run_speed(machine, limit_s=4)
    assert result.status == "failed"
    assert result.reason.startswith("it took longer than 4 s, ")
    assert "Fatal Python error: Aborted" in (machine / "logs" / result.log).read_text()


def test_other_output_fails_with_the_agreement(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_speed(machine)
    monkeypatch.setenv("STAND_IN_FAULT", "compare_output:black")
    both = {"onnx": str(machine / "engines" / "copy.onnx"), "plan": str(machine / "plans" / "copy_static.plan")}
    step = Step(name="output", function="engine:compare_output", arguments={**both, "kind": "static"})
    result = run_step(step, machine / "logs")
    assert result.status == "failed"
    assert "dB between plan and CPU at 1 x 640x360, at least 35 dB are required" in result.reason
    assert result.facts["worst_db"] < 35


def test_a_process_that_does_not_start_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (str(tmp_path / "python"),))
    result = run_step(Step(name="step", function="suite:run_tests"), tmp_path)
    assert (result.status, result.reason) == ("failed", "the process does not start (No such file or directory)")


def test_facts_survive_a_process_that_is_killed(tmp_path: Path) -> None:
    report = Report(tmp_path / "facts.json")
    report.add(first=1)
    report.add(second=2)
    assert json.loads((tmp_path / "facts.json").read_text())["facts"] == {"first": 1, "second": 2}


def test_a_step_for_information_never_decides(tmp_path: Path) -> None:
    def judge(**result: Any) -> str:
        verdict = Verdict(tmp_path, is_finished=True)
        verdict.add(StepResult(name="step", **result))
        return verdict.headline

    assert judge(status="failed", reason="slow", weight="information") == "PASS"
    assert judge(status="not run", reason="no camera", weight="optional") == "PASS"
    assert judge(status="failed", reason="slow", weight="optional") == "FAIL: step: slow"
    assert judge(status="not run", reason="no driver", weight="required") == "NOT RUN: no driver"


def test_trtexec_that_is_much_faster_fails(machine: Path) -> None:
    run_speed(machine)
    tool = machine / "bin" / "trtexec"
    tool.write_text(TRTEXEC.format("0.0001"))
    paths = {"onnx": str(machine / "engines" / "copy.onnx"), "plan": str(machine / "plans" / "copy_static.plan")}
    step = Step(name="trtexec", function="trtexec:compare", arguments={"trtexec": str(tool), **paths})
    result = run_step(step, machine / "logs")
    assert result.status == "failed"
    assert "trtexec 0.000 ms for the same engine" in result.reason
    assert "--stronglyTyped --useCudaGraph" in result.facts["command"]
    assert "--shapes=x0:1x360x640x3" in result.facts["command"]
