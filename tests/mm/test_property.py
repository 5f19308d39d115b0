"""Any order of map, unmap, protect, move, discard, fork, reclaim and access gives the contents of a dict of pages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PAGE = 4096
AREAS, PAGES = 3, 24
"""Slots for mappings, pages of each."""

span = st.tuples(st.integers(0, AREAS - 1), st.integers(0, PAGES - 1), st.integers(1, PAGES))
step = st.one_of(
    st.tuples(st.just("mmap"), span),
    st.tuples(st.just("munmap"), span),
    st.tuples(st.just("protect"), span),
    st.tuples(st.just("unprotect"), span),
    st.tuples(st.just("discard"), span),
    st.tuples(st.just("pageout"), span),
    st.tuples(st.just("write"), span),
    st.tuples(st.just("write"), span),
    st.tuples(st.just("read"), span),
    st.tuples(st.just("move"), span),
    st.tuples(st.just("fork"), span),
    st.tuples(st.just("shrink"), span),
)


class Reference:
    """What memory should hold: page -> (byte, writable), per area."""

    def __init__(self) -> None:
        self.areas: list[dict[int, tuple[int, bool]]] = [{} for _ in range(AREAS)]
        self.at = [0] * AREAS
        self.region = [0] * AREAS
        self.children: list[Any] = []

    def foreign(self, machine: Any, area: int, start: int, length: int) -> bool:
        """Has another mapping taken addresses that the area gave up?"""
        inside = machine.mm.vmas.overlapping(start, start + length)
        return any(vma.region.number != self.region[area] for vma in inside)


def apply(machine: Any, model: Reference, what: str, area: int, first: int, count: int, byte: int) -> None:
    """One step on both."""
    process, pages = machine.process, model.areas[area]
    numbers = range(first, min(first + count, PAGES))
    at, length = model.at[area] + first * PAGE, len(numbers) * PAGE
    whole = all(page in pages for page in numbers)
    if what == "mmap":
        for page in pages:
            machine.run(process.munmap(model.at[area] + page * PAGE, PAGE))
        model.at[area] = machine.run(process.mmap(PAGES * PAGE))
        model.region[area] = machine.mm.vmas.find(model.at[area]).region.number
        model.areas[area] = dict.fromkeys(range(PAGES), (0, True))
    elif not model.at[area] or model.foreign(machine, area, at, length):
        return
    elif what == "munmap":
        machine.run(process.munmap(at, length))
        for page in numbers:
            pages.pop(page, None)
    elif what in ("protect", "unprotect"):
        steps = process.mprotect(at, length, 3 if what == "unprotect" else 1)
        if whole:
            machine.run(steps)
            pages.update({page: (pages[page][0], what == "unprotect") for page in numbers})
        else:
            with pytest.raises(OSError):
                machine.run(steps)
    elif what == "discard":
        steps = process.madvise(at, length, 4)
        if whole:
            machine.run(steps)
        else:
            with pytest.raises(OSError):
                machine.run(steps)
        pages.update({page: (0, pages[page][1]) for page in numbers if page in pages})
    elif what == "pageout":
        machine.run(process.madvise(at, length, 21))
    elif what == "write":
        for page in numbers:
            if pages.get(page, (0, False))[1]:
                machine.run(process.write(model.at[area] + page * PAGE + byte, bytes([byte])))
                pages[page] = (byte, True)
            else:
                with pytest.raises(OSError):
                    machine.run(process.write(model.at[area] + page * PAGE, b"x"))
    elif what == "move":
        if len(pages) == PAGES and len({writable for _, writable in pages.values()}) == 1:
            machine.run(process.mmap(PAGE))  # in the way
            model.at[area] = machine.run(process.mremap(model.at[area], PAGES * PAGE, (PAGES + 1) * PAGE))
            machine.run(process.munmap(model.at[area] + PAGES * PAGE, PAGE))
    elif what == "fork":
        child = machine.run(process.fork())
        for page in numbers:
            if pages.get(page, (0, False))[1]:
                machine.run(child.write(model.at[area] + page * PAGE, b"\xff" * 16))
        machine.check_counts(machine.mm, child.mm, *(other.mm for other in model.children))
        if byte % 2:
            machine.run(child.exit())
        else:
            model.children.append(child)
    elif what == "shrink":
        machine.run(machine.host.reclaim.shrink(count))


@pytest.mark.parametrize("era", ["v3.6", "v6.12"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=40))
def test_contents_survive_any_order(make_machine: Any, era: str, steps: list[tuple[str, tuple[int, int, int]]]) -> None:
    machine, model = make_machine(era, ram=48, swap=4096), Reference()
    for number, (what, (area, first, count)) in enumerate(steps):
        byte = 1 + number % 200
        apply(machine, model, what, area, first, count, byte)
    for area, pages in enumerate(model.areas):
        for page in range(PAGES) if model.at[area] else ():
            at = model.at[area] + page * PAGE
            if page in pages:
                data = machine.run(machine.process.read(at, PAGE))
                byte = pages[page][0]
                assert data[byte] == byte if byte else not any(data)
            elif not model.foreign(machine, area, at, PAGE):
                with pytest.raises(OSError):
                    machine.run(machine.process.read(at, 1))
    assert machine.frames.peak <= 48
    for process in (machine.process, *model.children):
        machine.run(process.exit())
    assert machine.frames.allocated == bool(machine.host.zero_frame) and machine.host.swap.used == 0


def test_same_steps_same_history(make_machine: Any) -> None:
    """Time, events and frame ids are a function of the steps."""

    def history() -> tuple[int, list[Any]]:
        machine = make_machine(ram=48, swap=4096)
        model = Reference()
        for number in range(60):
            what = ("mmap", "write", "pageout", "read", "fork", "discard", "write", "protect", "unprotect")[number % 9]
            apply(machine, model, what, number % AREAS, number * 7 % PAGES, 1 + number * 5 % PAGES, 1 + number)
        return machine.scheduler.clock(), machine.events

    assert history() == history()
