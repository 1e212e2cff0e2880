"""Who may know whom, tried and not just agreed."""

from __future__ import annotations

import subprocess
import sys

from importlinter.cli import lint_imports

from tests.conftest import ROOT


def test_rooms_import_only_what_they_may() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_runtime_loads_without_the_workshop() -> None:
    code = """
import sys, runtime.video
found = {'torch', 'onnx', 'train', 'export', 'tensorrt', 'pycuda'} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
