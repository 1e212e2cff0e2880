"""The table in docs/reliability.md, made of what the tests themselves measured.

A test is marked `@pytest.mark.fault(PART, FAULT, done=WHAT_WAS_DONE)` and calls the fixture `survived` with what
happened. `pytest --write-reliability` writes the table, in the order of the files and of the tests in them.
"""

from __future__ import annotations

import ast
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by make reliability -->", "<!-- until here -->"
PARTS = ("Files", "Live sources", "Publishing")
_HEAD = ("fault", "what was done", "what happened", "exit", "frames lost")


@dataclass(frozen=True)
class Row:
    """What a marker says."""

    part: str
    fault: str
    done: str = ""


@dataclass
class Outcome:
    """What the tests of one fault measured; parameters of one test each add theirs."""

    happened: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, happened: str, code: int | None, lost: int | str | None) -> None:
        for seen, value in ((self.happened, happened), (self.codes, code), (self.lost, lost)):
            if value is not None and str(value) not in seen:
                seen.append(str(value))


def rows(tests: Path = ROOT / "tests" / "runtime") -> list[Row]:
    """All markers, read from the source, so that it does not matter which tests run."""
    found = [row for path in sorted(tests.glob("test_*.py")) for row in _markers(ast.parse(path.read_text()))]
    return sorted(dict.fromkeys(found), key=lambda row: PARTS.index(row.part))


def _markers(tree: ast.Module) -> Iterator[Row]:
    every = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [call for call in every if ast.unparse(call.func).endswith("mark.fault")]
    for call in sorted(calls, key=lambda call: call.lineno):
        named = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        yield Row(*(ast.literal_eval(value) for value in call.args), **named)


def tables(outcomes: dict[Row, Outcome]) -> str:
    """Markdown, a table for each part, of all faults."""
    expected = rows()
    packages = ", ".join(f"{name} {version(name)}" for name in ("av", "opencv-python", "onnxruntime"))
    lines = [BEGIN, f"Python {platform.python_version()}, {packages}, {platform.system()} {platform.machine()}.", ""]
    for part in PARTS:
        lines += [f"### {part}", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
        for row in expected:
            if row.part == part:
                of = outcomes[row]
                lines.append(_line([row.fault, row.done, *map("; ".join, (of.happened, of.codes, of.lost))]))
        lines.append("")
    return "\n".join([*lines[:-1], END])


def write(outcomes: dict[Row, Outcome]) -> str:
    """Bring the page up to date; or leave it, and say which faults were not tried."""
    if missing := [f"{row.part}: {row.fault}" for row in rows() if row not in outcomes]:
        return f"not tried in this run: {'; '.join(missing)}"
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + tables(outcomes) + rest.partition(END)[2])
    return ""


def written() -> list[tuple[str, str, str]]:
    """Part, fault and what was done, of every line that stands in the page."""
    found, part = [], ""
    for line in PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("### "):
            part = line.removeprefix("### ")
        elif line.startswith("| ") and not line.startswith(("| fault |", "| --- ")):
            fault, done = line.split(" | ")[:2]
            found.append((part, fault.removeprefix("| "), done))
    return found


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
