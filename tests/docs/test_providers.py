"""Install commands of docs/providers.md, resolved by pip for a desktop with Linux."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.engines import PROVIDERS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "providers.md").read_text()
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")


@pytest.mark.parametrize(
    ("package", "majors"),
    [
        ("onnxruntime-gpu", {"nvidia-cudnn-cu13": "9", "nvidia-cublas": "13", "cuda-bindings": "13"}),
        ("onnxruntime-ep-nv-tensorrt-rtx-cu12", {"onnxruntime": "1"}),
    ],
)
def test_the_install_command_resolves(package: str, majors: dict[str, str], tmp_path: Path) -> None:
    (requirements,) = re.findall(rf"^\.venv/bin/pip install (.*'{package}.*)$", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    command += ["--target", str(tmp_path), "--only-binary=:all:", "--python-version", "3.11"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, *shlex.split(requirements)], capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip finds no packages: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    versions = {item["name"]: item["version"] for item in packages}
    assert {name: versions[name].split(".")[0] for name in majors} == majors
    if "onnxruntime" in versions:
        assert tuple(map(int, versions["onnxruntime"].split(".")[:2])) >= (1, 24)


def test_the_page_has_every_provider() -> None:
    table = re.findall(r"^\| `([a-z][a-z-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(table) == sorted(PROVIDERS)
