"""Classes and functions of `pycuda.driver` as a stub file for mypy, read from its sources.

PyCUDA has no wheels, and building it takes minutes and CUDA's headers. Its C++ states all names that Python sees, in
statements such as `py::class_<...>("Event", ...).def("record", &cl::record, py::arg("stream")=py::object())`. So this
tells which names and keywords a version registers, not that it builds or works. An argument without a keyword is not
counted; results are those of PyCUDA's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.bindings.module_types import HEADER

SOURCES = ("pycuda/driver.py", "src/wrapper/wrap_cudadrv.cpp")
_ROOT = "PyCudaDriver"
_RESULTS = {
    "Device.retain_primary_context": f"{_ROOT}.Context",
    f"{_ROOT}.mem_alloc": f"{_ROOT}.DeviceAllocation",
    f"{_ROOT}.pagelocked_empty": f"{_ROOT}.PagelockedArray",
}
_PAGELOCKED_ARRAY = f"class PagelockedArray:\n        base: {_ROOT}.PagelockedHostAllocation"  # a NumPy array

_MEMBER = re.compile(r"\.(?=(?:def|DEF_SIMPLE_METHOD|staticmethod|add_property)\()")
"""Dot before a member in the chain of a class."""


def describe(sources: Path) -> str:
    """Return a stub file with the class `PyCudaDriver`, whose members are those of `pycuda.driver`."""
    python, cpp = ((sources / name).read_text() for name in SOURCES)
    assert "from pycuda._driver import *" in python
    text = cpp.partition("BOOST_PYTHON_MODULE")[2]
    classes: dict[str, list[str]] = {_ROOT: [_PAGELOCKED_ARRAY]}
    headers: dict[str, str] = {}
    names: dict[str, str] = {}
    """Names in Python of the classes of C++."""
    owner = cpp_name = ""
    for statement in re.sub(r"^\s*(#|//).*$", "", text, flags=re.MULTILINE).split(";"):
        if alias := re.search(r"typedef (\w+) cl$", statement):
            cpp_name = alias[1]
        elif exception := re.search(r"DECLARE_EXC\((\w+), (NULL|CudaError)", statement):
            base = "Exception" if exception[2] == "NULL" else "Error"
            classes[_ROOT].append(f"class {exception[1]}({base}): ...")
        elif constant := re.search(r'cls\.attr\("([A-Za-z]\w*)"\) =', statement):
            classes[owner].append(f"{constant[1]}: Untyped")
        elif "py::class_<" in statement or re.match(r"\s*wrp\s*\.", statement):
            head, *members = _MEMBER.split(statement)
            if name := re.search(r'py::class_<[^"]*"(\w+)"', head):
                owner = names[cpp_name] = name[1]
                bases = [f"{_ROOT}.{names[base]}" for base in re.findall(r"py::bases<(\w+)>", head)]
                headers[owner] = f"class {owner}({', '.join(bases)}):"
                init = [f'def("__init__", {head.partition("py::init<")[2]}'] if "py::init<" in head else []
                classes[owner] = []
                members = [*init, *members]
            classes[owner] += _describe_members(members, owner)
        elif function := re.search(r"(?:py::def|DEF_SIMPLE_FUNCTION)\(.*", statement, re.DOTALL):
            classes[_ROOT] += _describe_members([function[0], f'staticmethod("{_find_name(function[0])}")'], _ROOT)
    lines = classes.pop(_ROOT)
    for name, members in classes.items():
        lines += [headers[name], *(f"    {line}" for line in members), "    ..."]
    return "\n".join([HEADER, f"class {_ROOT}:", *(f"    {line}" for line in lines), ""])


def _describe_members(members: list[str], owner: str) -> Iterator[str]:
    """Yield the lines for members such as `def("push", context_push)`; the first of several with one name counts."""
    static = {_find_name(member) for member in members if member.startswith("staticmethod")}
    first = {_find_name(member): member for member in reversed(members) if not member.startswith("staticmethod")}
    for name, member in first.items():
        if member.startswith("add_property"):
            yield f"{name}: Untyped"
            continue
        default = " = ..." if "py::optional" in member else ""
        parameters = [
            f"{parameter}: Untyped{' = ...' if value else default}"
            for group, value in re.findall(r"py::args?\(([^)]*)\)(\s*=)?", member)
            for parameter in re.findall(r"\w+", group)
            if parameter != "self"
        ] or ["*arguments: Untyped"]
        if name in static:
            yield "@staticmethod"
        else:
            parameters.insert(0, "self")
        yield f"def {name}({', '.join(parameters)}) -> {_RESULTS.get(f'{owner}.{name}', 'Untyped')}: ..."


def _find_name(member: str) -> str:
    match = re.search(r'\(\s*"?(\w+)', member)
    assert match, member
    return match[1]
