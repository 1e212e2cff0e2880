"""NVIDIA's packages, from the package index into a folder each, so that several versions lie side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def install(cache: Path, *requirements: str) -> Path:
    """Install wheels without their dependencies into a folder of `cache` and return it; skips where pip cannot."""
    folder = cache / f"{sys.implementation.cache_tag}-{'-'.join(requirements)}"
    if not folder.exists():
        partial = _empty_folder(cache / "partial")
        _run_pip("install", "--no-deps", "--only-binary=:all:", "--target", str(partial), *requirements)
        partial.rename(folder)
    return folder


def install_tensorrt(cache: Path, requirement: str) -> Path:
    """Install TensorRT's Python module under its usual name, with stubs in place of its libraries."""
    folder = install(cache, requirement)
    package = folder / "tensorrt"
    if not package.exists():
        bindings = folder / "tensorrt_bindings"
        major = requirement.partition("==")[2].partition(".")[0]
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            # The module looks for its libraries next to itself.
            compile_library("stub_libraries.c", bindings / f"lib{name}.so.{major}")
        bindings.rename(package)
    return folder


def unpack_sources(cache: Path, requirement: str, *names: str) -> Path:
    """Return a folder with some source files of a package that has no wheels; skips where pip cannot download them."""
    folder = cache / requirement
    if not folder.exists():
        partial = _empty_folder(cache / "partial")
        _run_pip("download", "--no-deps", "--no-build-isolation", "--no-binary=:all:", "-d", str(partial), requirement)
        (archive,) = partial.glob("*.tar.gz")
        with tarfile.open(archive) as content:
            for member in content:
                name = member.name.partition("/")[2]
                if name in names:
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content.extractfile(member).read())
        partial.rename(folder)
    return folder


def compile_library(source: str, library: Path) -> None:
    """Compile a file of this folder; skips where there is no compiler."""
    if not shutil.which("gcc") and not os.environ.get("CI"):
        pytest.skip("no gcc, which compiles the stubs of NVIDIA's libraries")
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{library.name}",
        "-o",
        library,
        Path(__file__).with_name(source),
    ]
    subprocess.run(command, check=True)


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run_pip(*arguments: str) -> None:
    done = subprocess.run([*_PIP, *arguments], capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip cannot download {arguments[-1]}: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
