"""Classes, members, arguments and results of a module of NVIDIA, as a stub file for mypy.

As a script, it imports a module, which is compiled code, and prints a class that stands for the module. It takes the
signatures from the docstrings that pybind11 (TensorRT) and Cython (cuda-bindings) make. Arguments have no types, and
results only if they are classes of the module.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

HEADER = "from typing import Any as Untyped, overload\nnothing: Untyped"  # a module may have a member called Any
_INDENT = "    "


def describe(module: ModuleType, name: str) -> str:
    """Return a stub file with a class `name` whose members are those of the module."""
    classes = {key for key, value in vars(module).items() if inspect.isclass(value)}
    return "\n".join([HEADER, *_describe_class(name, module, name, classes), ""])


def _describe_class(name: str, owner: Any, root: str, classes: set[str]) -> Iterator[str]:
    """Yield a class with the members of a class or module, also inherited ones; `classes`: those that results name."""
    yield f"class {name}:"
    for member in sorted({member for level in getattr(owner, "__mro__", [owner]) for member in vars(level)}):
        is_inherited = member in vars(object) and member != "__init__"
        if member.isidentifier() and not keyword.iskeyword(member) and not is_inherited:
            value = inspect.getattr_static(owner, member)
            yield from (_INDENT + line for line in _describe_member(member, value, root, classes))
    yield _INDENT + "..."


def _describe_member(name: str, value: Any, root: str, classes: set[str]) -> Iterator[str]:
    if inspect.isclass(value):
        yield from _describe_class(name, value, root, classes)
    elif isinstance(value, property):
        yield "@property"
        yield f"def {name}(self) -> {_find_result(value.fget.__doc__ or '', root, classes)}: ..."
        if value.fset:
            yield f"@{name}.setter"
            yield f"def {name}(self, value: Untyped) -> None: ..."
    elif callable(value) or isinstance(value, staticmethod):
        yield from _describe_function(name, value.__doc__ or "", root, classes)
    else:
        kind = type(value).__name__
        yield f"{name}: {f'{root}.{kind}' if kind in classes else 'Untyped'}"


def _describe_function(name: str, documentation: str, root: str, classes: set[str]) -> Iterator[str]:
    signatures = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\)( -> .*)?$", documentation, re.MULTILINE)
    signatures = [signature for signature in signatures if signature[0] != "*args, **kwargs"]
    if not signatures and name == "__init__":  # with a variable of this name, mypy would not look at the class
        yield "def __init__(self, *arguments: Untyped, **options: Untyped) -> None: ..."
    elif not signatures:
        yield f"{name}: Untyped"
    for arguments, result in signatures:
        parameters = _strip_types(arguments)
        if parameters[:1] != ["self: Untyped"]:
            yield "@staticmethod"
        if len(signatures) > 1:
            yield "@overload"
        kind = (_find_result if result else _find_results)(result or documentation, root, classes)
        yield f"def {name}({', '.join(parameters)}) -> {kind}: ..."


def _strip_types(arguments: str) -> list[str]:
    """Return arguments without types, such as `flags: int = 0` or, from Cython, `unsigned int Flags=0`."""
    parameters: list[str] = []
    default = " = ..."
    for argument in reversed(_split(arguments)):
        declaration, _, value = argument.partition("=")
        name = declaration.split(":")[0].split()[-1]
        if name in {"/", "*"}:
            parameters.insert(0, name)
            continue
        if not value:
            default = ""  # pybind11 accepts defaults before an argument without one, where they have no effect
        parameters.insert(0, f"{name}{'_' * keyword.iskeyword(name)}: Untyped{default}")
    return parameters


def _split(arguments: str) -> list[str]:
    """Split arguments at the commas outside brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _find_result(signature: str, root: str, classes: set[str]) -> str:
    """Return the class behind the arrow, which may have the name of C++: `nvonnxparser::IParserError`."""
    kind = signature.rpartition("-> ")[2].split("\n")[0].strip()
    if kind == "None":
        return kind
    last = re.split(r"\.|::", kind)[-1]
    return next((f"{root}.{name}" for name in (last, last.removeprefix("I")) if name in classes), "Untyped")


def _find_results(documentation: str, root: str, classes: set[str]) -> str:
    """Return the tuple that a function of cuda-bindings returns; its docstring has one value a line."""
    section = re.search(r"^( *)Returns\n *-+\n((?:\1.*\n|\n)*?)(?:\n|\Z)", documentation, re.MULTILINE)
    if not section:
        return "Untyped"
    values = re.findall(rf"^{section[1]}(\w+)", section[2], re.MULTILINE)
    return f"tuple[{', '.join(f'{root}.{value}' if value in classes else 'Untyped' for value in values)}]"


if __name__ == "__main__":
    imported = importlib.import_module(sys.argv[1])
    print(f"# {imported.__file__}\n{describe(imported, sys.argv[2])}")
