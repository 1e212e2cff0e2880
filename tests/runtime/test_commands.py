"""Modules that the runtime starts or names in a hint: they exist, and `runtime/commands.py` alone names them."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from runtime import commands
from tests.conftest import ROOT

OTHER_PACKAGES = "benchmarks|export|train"
IN_TEXT = re.compile(rf"-m ({OTHER_PACKAGES})\b")
WHOLE = re.compile(rf"({OTHER_PACKAGES})(\.\w+)*")
MODULES = {name: value for name, value in vars(commands).items() if name.isupper()}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_module_can_be_run(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:  # `python -m` runs the __main__ of a package
        assert find_spec(f"{module}.__main__") is not None


def module_names(source: str) -> Iterator[int]:
    """Yield the lines where a string names a module of another package, in a text or alone after "-m"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and IN_TEXT.search(node.value):
            yield node.lineno
        if isinstance(node, ast.List | ast.Tuple):
            texts = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            for option, module in itertools.pairwise(texts):
                if option == "-m" and isinstance(module, str) and WHOLE.fullmatch(module):
                    yield node.lineno


@pytest.mark.parametrize(
    "source", ['["-m", "export.plan"]', '("-m", "train")', '"python -m export"', 'f"{x} -m benchmarks.power"']
)
def test_search_finds_module_names(source: str) -> None:
    assert list(module_names(source)) == [1]


def test_no_other_file_of_the_runtime_names_such_a_module() -> None:
    runtime = ROOT / "runtime"
    places = [
        f"{path.relative_to(runtime)}:{line}"
        for path in sorted(runtime.rglob("*.py"))
        for line in module_names(Path(path).read_text())
    ]
    assert places == []
