"""Everything that our code uses of TensorRT, cuda-bindings and PyCUDA exists in the versions that boards have."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from tests.bindings import packages, pycuda_types
from tests.bindings.typed_copies import find_errors, list_files
from tests.conftest import ROOT

_CALIBRATION = {"BuilderFlag.INT8", "IBuilderConfig.int8_calibrator", "IBuilderConfig.set_calibration_profile"}
"""Used after `open_calibrator`, which raises EngineError for TensorRT 11 and newer."""
_BUILD_RTX = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "TensorRt.ComputeCapability",
    "TensorRt.DynamicShapesKernelSpecializationStrategy",
}
_RUN_RTX = {
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
}
"""Used for the flavour tensorrt-rtx only."""

TENSORRT = {
    "tensorrt-cu12-bindings==10.3.0": _BUILD_RTX | {"ICudaEngine.create_runtime_config"},  # JetPack 6.1 and 6.2
    "tensorrt-cu12-bindings==10.13.3.9": _BUILD_RTX | _RUN_RTX,  # JetPack 7.0 and 7.1
    "tensorrt-cu12-bindings==10.16.1.11": _BUILD_RTX | _RUN_RTX,  # JetPack 7.2
    "tensorrt-cu13-bindings==11.4.0.106": _BUILD_RTX | _RUN_RTX | _CALIBRATION,  # desktops and servers
}
"""Names that our code uses and that a version lacks, for each version: the code asks for them before it uses them."""
_PATHFINDER = "cuda-pathfinder==1.9.1"
CUDA_BINDINGS = [
    ("cuda-bindings==12.8.0",),
    ("cuda-bindings==12.9.10", _PATHFINDER),
    ("cuda-bindings==13.5.0", _PATHFINDER),
]
PYCUDA = ["pycuda==2024.1", "pycuda==2026.1"]  # the oldest that we accept and the newest


@pytest.fixture(scope="module")
def cache(pytestconfig: pytest.Config) -> Path:
    """Folder for packages, kept for the next run."""
    return pytestconfig.cache.mkdir("nvidia-packages")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the copies of our files; mypy is faster when it is used again."""
    return tmp_path_factory.mktemp("copies")


@functools.cache
def describe_module(module: str, name: str, folder: Path | None = None) -> str:
    """Return the stub file of a module, which a process of its own imports from `folder`."""
    stubs = _run("tests.bindings.module_types", module, name, folder=folder)
    assert folder is None or f"# {folder}/" in stubs, "another version was imported"
    return stubs


def describe_pycuda(cache: Path, requirement: str) -> str:
    return pycuda_types.describe(packages.unpack_sources(cache, requirement, *pycuda_types.SOURCES))


def _run(*arguments: str, folder: Path | None, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{folder or ''}{os.pathsep}{ROOT}", **variables}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("requirement", TENSORRT)
def test_tensorrt_lacks_nothing_else(requirement: str, cache: Path, copies: Path) -> None:
    folder = packages.install_tensorrt(cache, requirement)
    errors = find_errors(copies, describe_module("tensorrt", "TensorRt", folder))
    assert errors.keys() == TENSORRT[requirement], errors


def test_tensorrt_rtx_lacks_only_calibration(copies: Path) -> None:
    errors = find_errors(copies, describe_module("tensorrt_rtx", "TensorRt"))
    assert errors.keys() == _CALIBRATION, errors


@pytest.mark.parametrize("requirements", CUDA_BINDINGS, ids=lambda names: names[0])
def test_cuda_bindings_lack_nothing(requirements: tuple[str, ...], cache: Path, copies: Path) -> None:
    folder = packages.install(cache, *requirements)
    assert find_errors(copies, describe_module("cuda.bindings.driver", "Driver", folder)) == {}


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("requirements", CUDA_BINDINGS, ids=lambda names: names[0])
def test_our_calls_pass_through_cuda_bindings(
    requirements: tuple[str, ...], integrated: bool, cache: Path, tmp_path: Path
) -> None:
    packages.compile_library("stub_driver.c", tmp_path / "libcuda.so.1")
    folder = packages.install(cache, *requirements)
    environment = {"LD_LIBRARY_PATH": str(tmp_path), **({"INTEGRATED": "1"} if integrated else {})}
    used = _run("tests.bindings.use_driver", folder=folder, **environment)
    assert used.startswith(f"{folder}/")
    assert f"name='stand-in', compute_capability='8.7', integrated={integrated}, driver='12.6'" in used


@pytest.mark.parametrize("requirement", PYCUDA)
def test_pycuda_lacks_nothing(requirement: str, cache: Path, copies: Path) -> None:
    assert find_errors(copies, describe_pycuda(cache, requirement)) == {}


@pytest.mark.parametrize("requirement", TENSORRT)
def test_our_subclasses_work_with_the_real_module(requirement: str, cache: Path) -> None:
    folder = packages.install_tensorrt(cache, requirement)
    *calibrators, version = _run("tests.bindings.subclasses", folder=folder).splitlines()
    assert version == requirement.partition("==")[2]
    if TENSORRT[requirement] >= _CALIBRATION:
        assert all(line.startswith("no ") and "has no calibrators" in line for line in calibrators)
    else:
        assert calibrators == ["entropy", "minmax"]


def test_names_that_our_code_asks_for_exist_in_a_version(cache: Path) -> None:
    known = {*dir(onnxruntime), *dir(onnxruntime.InferenceSession)}
    known.update(re.findall(r"\w+", describe_module("tensorrt_rtx", "TensorRt")))
    for requirement in TENSORRT:
        folder = packages.install_tensorrt(cache, requirement)
        known.update(re.findall(r"\w+", describe_module("tensorrt", "TensorRt", folder)))
    files = [ROOT / name for name in list_files() if not name.startswith("benchmarks")]
    calls = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in calls if isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "hasattr"}]
    names = {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}
    assert {"STRONGLY_TYPED", "is_stream_capturable"} <= names
    assert names <= known


_ENGINE, _BUILDER, _DRIVERS = "runtime/engines/tensorrt.py", "export/plan/builder.py", "runtime/engines/cuda_drivers.py"
MISTAKES = [
    ("tensorrt_rtx", _ENGINE, ".deserialize_cuda_engine(", ".deserialise_cuda_engine("),
    ("tensorrt_rtx", _ENGINE, ".TensorIOMode.INPUT", ".TensorIOMode.IN"),
    ("tensorrt_rtx", _ENGINE, ".get_tensor_name(index)", ".get_tensor_name(number=index)"),
    ("tensorrt_rtx", _ENGINE, ".create_execution_context(", ".create_context("),
    ("tensorrt_rtx", _BUILDER, "ignore_mismatch=False", "ignore=False"),
    ("tensorrt_rtx", _BUILDER, ".get_error(0).desc()", ".get_error(0).text()"),
    ("tensorrt_rtx", _BUILDER, ".profiling_verbosity =", ".verbosity ="),
    ("tensorrt_rtx", _BUILDER, "{trt.__version__} cannot build", "{trt.version} cannot build"),
    ("cuda-bindings", _DRIVERS, "MODE_THREAD_LOCAL", "MODE_THREAD"),
    ("cuda-bindings", _DRIVERS, ".cuGraphInstantiate(graph, 0)", ".cuGraphInstantiate(graph)"),
    ("cuda-bindings", _DRIVERS, "status, graph = driver.cuStreamEndCapture", "graph, = driver.cuStreamEndCapture"),
    ("cuda-bindings", _DRIVERS, ".cuMemFree(", ".cuMemoryFree("),
    ("pycuda", _DRIVERS, "mem_flags=", "flags="),
    ("pycuda", _DRIVERS, ".base.get_device_pointer(", ".base.get_pointer("),
    ("pycuda", _DRIVERS, ".time_till(", ".time_to("),
    ("pycuda", _DRIVERS, "self._driver.MemoryError", "self._driver.OutOfMemoryError"),
]
"""Module, file, a part of one of its lines, and what is wrong in its place."""


@pytest.mark.parametrize(("module", "name", "right", "wrong"), MISTAKES)
def test_a_planted_mistake_is_found(module: str, name: str, right: str, wrong: str, cache: Path, copies: Path) -> None:
    if module == "tensorrt_rtx":
        stubs = describe_module("tensorrt_rtx", "TensorRt")
    elif module == "pycuda":
        stubs = describe_pycuda(cache, PYCUDA[-1])
    else:
        stubs = describe_module("cuda.bindings.driver", "Driver", packages.install(cache, *CUDA_BINDINGS[-1]))
    before, planted, after = (ROOT / name).read_text().partition(right)
    assert planted
    errors = find_errors(copies, stubs, {name: before + wrong + after})
    assert f"{name}:{before.count(chr(10)) + 1}" in {place for places in errors.values() for place in places}


def test_each_any_must_be_declared(copies: Path) -> None:
    changed = {_ENGINE: f"{(ROOT / _ENGINE).read_text()}\n\ndef show(inspector: Any) -> None: ...\n"}
    with pytest.raises(AssertionError, match=r"add what inspector is to _HOLDS in typed_copies\.py"):
        find_errors(copies, "class TensorRt:\n    ...", changed)
