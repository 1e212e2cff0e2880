"""Tables of docs/files.md, written from what a test measures of real files."""

from __future__ import annotations

from collections.abc import Callable

from tests.rig.marked_table import DOCS, MarkedTable, format_rows
from tests.rig.traits import Result, Trait

TABLES = {kind: MarkedTable(DOCS / "files.md", kind, "--write-files") for kind in ("videos", "images")}


def format_table(traits: list[Trait], suffixes: tuple[str, ...], restore: Callable[[str, str], Result]) -> str:
    """Return a table with a row for each trait and a column for each suffix of an output.

    `restore` runs a source by its name into an output with a suffix.
    """
    results = {(trait.source, suffix): restore(trait.source, suffix) for trait in traits for suffix in suffixes}
    cells = [[trait.name, *(trait.describe(results[trait.source, end]) for end in suffixes)] for trait in traits]
    return format_rows([["", *suffixes], ["---"] * (1 + len(suffixes)), *cells])
