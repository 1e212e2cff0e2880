"""Libraries that are missing or do not load: one line and an exit code in every command, and hints that work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import libraries
from runtime.libraries import install_hint
from tests.conftest import ROOT

LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"
NO_TORCH = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
TORCH_LINE = "error: torch cannot be imported (No module named 'torch'); pip install 'torch>=2.11'\n"
PROJECT = (ROOT / "pyproject.toml").read_text()


def run_python(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.parametrize(
    "module", ["runtime.video", "runtime.batch", "runtime.install", "train", "export", "benchmarks"]
)
def test_a_command_without_libgl_ends_with_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({LIBGL!r})")
    done = run_python(["-m", module, "--help"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: OpenCV cannot be loaded ({LIBGL}); ")
    assert "libgl1" in line
    assert "opencv-python-headless" in line


def test_a_console_script_without_libgl_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({LIBGL!r})")
    script = tmp_path / "deblur"
    script.write_text("from runtime.video import run_and_exit\nrun_and_exit()\n")
    done = run_python([str(script), "--help"], tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_program_gets_an_import_error_that_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({LIBGL!r})")
    code = "try:\n import runtime\nexcept ImportError as error:\n print(error)"
    assert "libgl1" in run_python(["-c", code], tmp_path).stdout


@pytest.mark.parametrize("module", ["train", "train.evaluate", "train.synthetic", "benchmarks.peers"])
def test_a_command_without_torch_ends_with_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(NO_TORCH)
    done = run_python(["-m", module, "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (2, TORCH_LINE)


def test_a_missing_library_while_a_command_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(NO_TORCH)
    done = run_python(["-m", "export", str(ROOT / "runtime" / "models" / "edge-s"), "--out", "out"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith(TORCH_LINE)


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ZeroDivisionError")
    done = run_python(["-m", "runtime.video", "--help"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


@pytest.mark.parametrize(("extra", "modules"), libraries._EXTRAS.items())
def test_the_requirements_are_those_of_the_project(extra: str, modules: dict[str, str]) -> None:
    listed = re.search(rf"^{extra or 'dependencies'} = (\[.*?\])(?: #.*)?$", PROJECT, re.MULTILINE | re.DOTALL)
    assert listed
    assert set(modules.values()) <= set(re.findall(r'"([^";]+)', listed[1]))


def test_hints_name_no_package_that_is_not_published() -> None:
    assert install_hint("tritonclient", "PIL") == "pip install 'tritonclient[grpc]>=2.50' 'pillow>=10'"
    for package in ("runtime", "train", "export", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            assert "install 'deblur-toolkit" not in path.read_text(), path


def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    """The telemetry forks the process, and a fork that hangs keeps the pipes of the process open."""
    pytest.importorskip("openvino")
    (tmp_path / "openvino_telemetry.py").write_text('raise SystemExit("telemetry was imported")')
    code = "from runtime.libraries import import_openvino as load; print(load().__name__, load() is load())"
    done = run_python(["-c", code], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "openvino True\n", "")
    assert run_python(["-c", "import openvino"], tmp_path).stderr == "telemetry was imported\n"
