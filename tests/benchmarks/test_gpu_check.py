"""The page of the GPU check, with stand-ins for the GPU and the builder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check import __main__ as gpu_check
from runtime.engines import BUNDLED
from runtime.sidecar import Sidecar, sidecar_path
from tests.conftest import without_gpu
from tests.standin import HostCuda, install_stand_in, write_plan


@without_gpu
def test_a_missing_gpu_is_an_engine_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_check.main(["--out", str(tmp_path)]) == 4
    assert "no NVIDIA driver is installed here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a machine with a GPU; return a folder with one engine in `engines`."""
    install_stand_in(monkeypatch)
    (tmp_path / "plans").mkdir()

    def build(content: bytes, spec: object, config: object, *, name: str, **_: Any) -> tuple[bytes, Sidecar]:
        plan = write_plan(tmp_path / "engines" / name, tmp_path / "plans")
        return plan.read_bytes(), Sidecar.from_json(sidecar_path(plan).read_text())

    monkeypatch.setattr(gpu_check, "build_plan", build)
    monkeypatch.setattr(gpu_check, "probe", lambda: HostCuda().device)
    monkeypatch.setattr(gpu_check, "FRAMES", 3)
    monkeypatch.setattr(gpu_check, "MIN_QUERIES", 8)
    monkeypatch.setattr(gpu_check, "run_tests", lambda: "passed: 12 passed")
    (tmp_path / "engines").mkdir()
    shutil.copy(BUNDLED.with_name("edge-s_fp32.onnx"), tmp_path / "engines")
    return tmp_path


def test_a_page_with_a_verdict(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engines", str(machine / "engines"), "--out", str(machine / "out"), "--duration", "0.3"]
    assert gpu_check.main(arguments) == 0
    page = capsys.readouterr().out
    assert page.startswith("# PASS")
    assert "| edge-s_fp32 | " in page
    assert (machine / "out" / "verdict.md").read_text() == page
    assert (machine / "out" / "edge-s_fp32.plan.json").exists()


def test_a_plan_with_other_output_fails(
    machine: Path, invert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_another(content: bytes, spec: object, config: object, *, name: str, **_: Any) -> tuple[bytes, Sidecar]:
        plan = write_plan(invert, machine / "plans")
        return plan.read_bytes(), Sidecar.from_json(sidecar_path(plan).read_text())

    monkeypatch.setattr(gpu_check, "build_plan", build_another)
    arguments = ["--engines", str(machine / "engines"), "--out", str(machine / "out"), "--duration", "0.1"]
    assert gpu_check.main(arguments) == 1
    assert capsys.readouterr().out.startswith("# FAIL: edge-s_fp32")


def test_failed_tests_fail_the_page(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "run_tests", lambda: "failed: 1 failed")
    arguments = ["--engines", str(machine / "engines"), "--out", str(machine / "out"), "--duration", "0.1"]
    assert gpu_check.main(arguments) == 1
    assert capsys.readouterr().out.startswith("# FAIL: the tests")
