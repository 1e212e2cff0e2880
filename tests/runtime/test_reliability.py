"""docs/reliability.md and the tests name the same faults."""

from __future__ import annotations

from tests.rig.reliability import read_markers, read_page


def test_the_page_has_a_line_for_every_fault_of_the_tests() -> None:
    assert read_page() == [(row.part, row.fault, row.done) for row in read_markers()]
