"""Tables of docs/reliability.md, written from the results that the tests record.

A test has the marker `@pytest.mark.fault(PART, FAULT, done=CAUSE)`, where the cause is what the test does to the run,
and calls the fixture `survived` with the result. `pytest --write-reliability` writes the tables, in the order of the
test files and of the tests in them.
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
    """Arguments of a marker: part of the page, name of the fault, and what the test does."""

    part: str
    fault: str
    done: str = ""


@dataclass
class Outcome:
    """Results of one fault: sentences, exit codes and lost frames. Each parameter set of a test adds its own."""

    happened: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, happened: str, code: int | None, lost: int | str | None) -> None:
        """Add a result, unless it was recorded before."""
        for values, value in ((self.happened, happened), (self.codes, code), (self.lost, lost)):
            if value is not None and str(value) not in values:
                values.append(str(value))


def read_markers(tests: Path = ROOT / "tests" / "runtime") -> list[Row]:
    """Return the rows of all markers, read from the source of the tests: not all of them need to run."""
    rows = [row for path in sorted(tests.glob("test_*.py")) for row in _markers(ast.parse(path.read_text()))]
    return sorted(dict.fromkeys(rows), key=lambda row: PARTS.index(row.part))


def _markers(tree: ast.Module) -> Iterator[Row]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    markers = [call for call in calls if ast.unparse(call.func).endswith("mark.fault")]
    for marker in sorted(markers, key=lambda call: call.lineno):
        keywords = {word.arg: ast.literal_eval(word.value) for word in marker.keywords}
        yield Row(*(ast.literal_eval(value) for value in marker.args), **keywords)


def format_tables(outcomes: dict[Row, Outcome]) -> str:
    """Return all faults and their outcomes as Markdown, with one table for each part."""
    rows = read_markers()
    packages = ", ".join(f"{name} {version(name)}" for name in ("av", "opencv-python", "onnxruntime"))
    lines = [BEGIN, f"Python {platform.python_version()}, {packages}, {platform.system()} {platform.machine()}.", ""]
    for part in PARTS:
        lines += [f"### {part}", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
        for row in rows:
            if row.part == part:
                outcome = outcomes[row]
                cells = map("; ".join, (outcome.happened, outcome.codes, outcome.lost))
                lines.append(_line([row.fault, row.done, *cells]))
        lines.append("")
    return "\n".join([*lines[:-1], END])


def write_page(outcomes: dict[Row, Outcome]) -> str:
    """Update the page and return an empty string; with faults that were not tried, leave it and return their names."""
    if missing := [f"{row.part}: {row.fault}" for row in read_markers() if row not in outcomes]:
        return f"not tried in this run: {'; '.join(missing)}"
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + format_tables(outcomes) + rest.partition(END)[2])
    return ""


def read_page() -> list[tuple[str, str, str]]:
    """Return part, fault and cause of each line of the page."""
    lines, part = [], ""
    for line in PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("### "):
            part = line.removeprefix("### ")
        elif line.startswith("| ") and not line.startswith(("| fault |", "| --- ")):
            fault, done = line.split(" | ")[:2]
            lines.append((part, fault.removeprefix("| "), done))
    return lines


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
