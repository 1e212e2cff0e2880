"""docs/reliability.md and the tests name the same faults."""

from __future__ import annotations

from tests.rig.reliability import rows, written


def test_the_page_has_a_line_for_every_fault_that_is_tried() -> None:
    assert written() == [(row.part, row.fault, row.done) for row in rows()]
