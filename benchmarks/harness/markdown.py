"""Markdown tables of the result pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; every row needs one cell for each column. Line breaks and `|` stay in their cell."""
    lines = [_format_row(columns), "|" + "---|" * len(columns)]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"expected {len(columns)} cells, got {len(row)}: {row}")
        lines.append(_format_row(row))
    return "\n".join(lines)


def join_lines(text: str) -> str:
    """Return a text on one line, so that it cannot begin a heading or a table."""
    return " ".join(text.split())


def format_number(value: float | None) -> str:
    """Return a number with three significant digits, or a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(join_lines(cell).replace('|', chr(92) + '|') for cell in cells)} |"
