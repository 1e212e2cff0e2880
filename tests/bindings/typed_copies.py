"""Copies of our files, in which each `Any` that holds an object of NVIDIA has its class instead, checked by mypy."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

from tests.conftest import ROOT

_FUTURE = "from __future__ import annotations"
_USES_GPU = re.compile(r"import_tensorrt|import tensorrt\b|runtime\.engines\.cuda")
_HOLDS = {
    "import_tensorrt": "type[TensorRt]",
    "module": "type[TensorRt]",
    "trt": "type[TensorRt]",
    "records": "TensorRt.ILogger.Severity",
    "_runtime": "TensorRt.Runtime",
    "_engine": "TensorRt.ICudaEngine",
    "engine": "TensorRt.ICudaEngine",
    "_create_context": "TensorRt.IExecutionContext",
    "context": "TensorRt.IExecutionContext",
    "builder": "TensorRt.Builder",
    "settings": "TensorRt.IBuilderConfig",
    "_create_settings": "TensorRt.IBuilderConfig, TensorRt.ITimingCache",
    "_set_timing_cache": "TensorRt.ITimingCache",
    "_list_known_capabilities": "TensorRt.ComputeCapability",
    "PyCuda.driver": "type[PyCudaDriver]",
    "PyCuda._streams": "PyCudaDriver.Stream",
    "PyCuda._ends": "PyCudaDriver.Event",
    "_PyCudaBuffer.driver": "type[PyCudaDriver]",
    "driver": "type[Driver]",
    "result": "Driver.CUresult",
    # These stay: handles without attributes, classes of our own, which subclasses.py tries, ONNX Runtime's binding, and
    # options of the command line.
    **dict.fromkeys(("_check", "_ends", "capture", "end", "graph", "start"), "Any"),
    **dict.fromkeys(("create_logger", "log", "open_calibrator", "severity"), "Any"),
    **dict.fromkeys(("binding", "common", "_read_network_options"), "Any"),
}
"""Class of the object in each `Any` of runtime/ and export/, by the name of the argument, attribute or function."""
_MYPY = (sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=skip", "--explicit-package-bases")
_MYPY += ("--check-untyped-defs", "--no-error-summary", "--hide-error-context")
_ERROR = re.compile(r"(?P<place>[\w/]+\.py:\d+): error: (?P<message>.*)  \[(?P<code>[\w-]+)\]")
_COUNTED = {
    **dict.fromkeys(("attr-defined", "call-arg", "misc", "union-attr"), '(?!(Item )?"None" )'),
    "call-overload": r'No overload variant of "\w+" of ',  # not `bytes`: mypy does not know buffers
    "name-defined": r'Name "(Driver|PyCudaDriver|TensorRt)\.',
}
"""Errors of mypy that count, by code and message; types of arguments and results are known in part only."""
_MISSING = re.compile(r'"(?:type\[)?(\w+)\]?" has no attribute "(\w+)"')
_UNKNOWN = re.compile(r'Name "([\w.]+)" is not defined')


def list_files() -> list[str]:
    """Return the paths of all files that use the GPU, relative to the repository."""
    paths = (path for package in ("benchmarks", "export", "runtime") for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in paths if _USES_GPU.search(path.read_text()))


def find_errors(folder: Path, stubs: str, changed: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Return what a vendor's module lacks of what our files use, such as `BuilderFlag.INT8`, with the places.

    `stubs`: stub file of this module. `changed`: other contents of some files. An error that is not about a missing
    attribute is the message of mypy.
    """
    files = list_files()
    root = re.findall(r"^class (\w+):$", stubs, re.MULTILINE)[-1]
    _write(folder / "vendor.pyi", stubs)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / name, _replace_any(name, (changed or {}).get(name) or (ROOT / name).read_text(), root))
    command = [*_MYPY, "--cache-dir", folder / "cache", *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    errors: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        match = _ERROR.fullmatch(line)
        if match and match["code"] in _COUNTED and re.match(_COUNTED[match["code"]], match["message"]):
            lacks = _MISSING.search(match["message"]) or _UNKNOWN.search(match["message"])
            errors.setdefault(".".join(lacks.groups()) if lacks else match["message"], []).append(match["place"])
    return errors


def _write(path: Path, text: str) -> None:
    """Write a file with a time that depends on its content, because mypy takes equal size and second for equal."""
    path.write_text(text)
    os.utime(path, (zlib.crc32(text.encode()),) * 2)


def _replace_any(name: str, source: str, root: str) -> str:
    """Return a file with the types of `_HOLDS` that are in the class `root`, on the same lines.

    Benchmarks keep no object of NVIDIA in an `Any`, but many results.
    """
    lines = source.splitlines()
    finder = _AnyFinder()
    finder.visit(ast.parse("" if name.startswith("benchmarks") else source))
    edits: list[tuple[ast.Name, str]] = []
    for owner, annotated, nodes in finder.found:
        kinds = _HOLDS.get(f"{owner}.{annotated}") or _HOLDS.get(annotated)
        assert kinds, f"{name}:{nodes[0].lineno}: add what {annotated} is to _HOLDS in {Path(__file__).name}"
        edits += zip(nodes, kinds.split(", "), strict=True)
    for node, kind in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
        if re.search(rf"\b{root}\b", kind):
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.col_offset] + kind + line[node.end_col_offset :]
    text = "\n".join(lines)
    assert _FUTURE in text, name
    text = text.replace(_FUTURE, f"{_FUTURE}; from vendor import {root}, nothing", 1)
    text = re.sub(r"\bis (not )?None\b", r"is \1nothing", text)  # mypy would skip what follows: results are never None
    return re.sub(r"import tensorrt\b", "from vendor import TensorRt as tensorrt", text) if root == "TensorRt" else text


class _AnyFinder(ast.NodeVisitor):
    """Finder of annotations with `Any`: the class around it, the name that is annotated, and each `Any` in it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, list[ast.Name]]] = []
        self._class = ""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._class = self._class, node.name
        self.generic_visit(node)
        self._class = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._add(node.name, node.returns)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        self._add(node.arg, node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._add(ast.unparse(node.target).removeprefix("self."), node.annotation)
        self.generic_visit(node)

    def _add(self, name: str, annotation: ast.expr | None) -> None:
        nodes = [node for node in ast.walk(annotation or ast.Pass()) if isinstance(node, ast.Name) and node.id == "Any"]
        if nodes:
            self.found.append((self._class, name, sorted(nodes, key=lambda node: node.col_offset)))
