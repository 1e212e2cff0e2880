"""Tables of docs/files.md, written from what a test measures of real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.rig.traits import Result, Trait

PAGE = Path(__file__).parent.parent.parent / "docs" / "files.md"


def format_table(traits: list[Trait], suffixes: tuple[str, ...], restore: Callable[[str, str], Result]) -> str:
    """Return a table with a row for each trait and a column for each suffix of an output.

    `restore` runs a source by its name into an output with a suffix.
    """
    results = {(trait.source, suffix): restore(trait.source, suffix) for trait in traits for suffix in suffixes}
    cells = [[trait.name, *(trait.describe(results[trait.source, end]) for end in suffixes)] for trait in traits]
    rows = [["", *suffixes], ["---"] * (1 + len(suffixes)), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_table(title: str) -> str:
    """Return the table of the page that is named in its markers."""
    begin, end = _markers(title)
    return PAGE.read_text().partition(begin)[2].partition(end)[0].strip()


def write_table(title: str, table: str) -> None:
    """Replace the table of the page that is named in its markers."""
    begin, end = _markers(title)
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")


def _markers(title: str) -> tuple[str, str]:
    return f"<!-- {title}: written by pytest --write-files -->", f"<!-- end of {title} -->"
