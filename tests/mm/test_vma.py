"""The tree of areas, and the area found last, which is not searched for again."""

from __future__ import annotations

from typing import Any

PAGE, PAGES = 4096, 8


def spans(machine: Any, start: int, end: int) -> list[tuple[int, int]]:
    """The areas that touch [start, end)."""
    return [(vma.start, vma.end) for vma in machine.mm.vmas.overlapping(start, end)]


def test_the_area_found_last_is_the_one_that_holds_a_range_now(machine: Any) -> None:
    start = machine.run(machine.process.mmap(PAGES * PAGE))
    end, inner, outer = start + PAGES * PAGE, start + 2 * PAGE, start + 4 * PAGE
    assert spans(machine, start, end) == spans(machine, inner, outer) == [(start, end)]
    machine.run(machine.process.mprotect(inner, outer - inner, 1))
    assert spans(machine, inner, outer) == [(inner, outer)]
    assert spans(machine, inner, outer + PAGE) == [(inner, outer), (outer, end)]
    assert spans(machine, outer, end) == [(outer, end)]
    machine.run(machine.process.mprotect(inner, outer - inner, 3))
    assert spans(machine, start, end) == [(start, end)]
    machine.run(machine.process.munmap(inner, outer - inner))
    assert spans(machine, inner, outer) == []
    assert spans(machine, start, end) == [(start, inner), (outer, end)]
    assert spans(machine, inner, inner) == [] == spans(machine, end, end)
