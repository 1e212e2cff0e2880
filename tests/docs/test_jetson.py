"""Install commands of docs/jetson.md, resolved by pip for their boards."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYTHON_OF_JETPACK = {"6": "3.10", "7": "3.12"}
MAJOR_OF_JETPACK = {"6": {"numpy": "1", "cuda-bindings": "12"}, "7": {"cuda-bindings": "13"}}
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


@pytest.mark.parametrize("jetpack", PYTHON_OF_JETPACK)
def test_the_install_command_resolves_to_versions_that_jetpack_can_load(jetpack: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "jetson.md").read_text()
    (requirements,) = re.findall(rf"^\.venv/bin/pip install (.*?) +# JetPack {jetpack}$", page, re.MULTILINE)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    command += ["--target", str(tmp_path), "--only-binary=:all:", "--python-version", PYTHON_OF_JETPACK[jetpack]]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, *shlex.split(requirements)], capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip finds no packages: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    packages = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    versions = {package["name"]: package["version"] for package in packages}
    assert {"av", "numpy", "onnxruntime"} <= versions.keys()
    expected = MAJOR_OF_JETPACK[jetpack]
    assert {name: versions[name].split(".")[0] for name in expected} == expected
