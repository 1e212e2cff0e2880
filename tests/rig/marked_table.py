"""Tables of the documentation that tests write: between two comments that name the table and its option of pytest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"


@dataclass(frozen=True)
class MarkedTable:
    """One table of a page."""

    page: Path
    title: str
    option: str
    """Option of pytest that writes the table, such as `--write-files`."""

    def read(self) -> str:
        """Return the text between the two comments."""
        return self.page.read_text().partition(self._begin)[2].partition(self._end)[0].strip()

    def write(self, table: str) -> None:
        """Replace the text between the two comments."""
        before, _, rest = self.page.read_text().partition(self._begin)
        self.page.write_text(f"{before}{self._begin}\n{table}\n{self._end}{rest.partition(self._end)[2]}")

    @property
    def _begin(self) -> str:
        return f"<!-- {self.title}: written by pytest {self.option} -->"

    @property
    def _end(self) -> str:
        return f"<!-- end of {self.title} -->"


def format_rows(rows: Iterable[Iterable[str]]) -> str:
    """Return rows of cells as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
