"""khugepaged and MADV_COLLAPSE: what is collapsed, in which order, and what waits for it (odp.md 1.3)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nicemu.mm.khugepaged import khugepaged_scan
from nicemu.mm.page_table import ACCESSED
from tests.mm.huge_machines import (
    CLEAR,
    END,
    ERAS,
    FLUSH,
    FREE,
    HUGE_SIZE,
    MADV_COLLAPSE,
    MADV_NOHUGEPAGE,
    MADV_PAGEOUT,
    PAGE,
    PAGES,
    SET,
    START,
    Watcher,
    aligned,
    fill,
    holds,
    is_huge,
    is_writable,
    under_lock,
    watch,
)


def small(machine: Any, pages: int = PAGES) -> int:
    """Address of 2 MiB with small pages at its beginning, which khugepaged may collapse; the log is empty."""
    at = aligned(machine)
    fill(machine, at, pages)
    machine.host.transparent_hugepage = "always"
    machine.kinds()
    return at


def scan(machine: Any, at: int, length: int = HUGE_SIZE) -> int:
    return int(machine.run(khugepaged_scan(machine.mm, at, at + length), "khugepaged"))


@pytest.mark.parametrize("era", ERAS)
def test_order_of_a_collapse(make_machine: Any, era: str) -> None:
    """The range ends before the old pages are freed and before the new entry is there."""
    machine = make_machine(era, ram=8192)
    at = small(machine)
    assert scan(machine, at) == 1
    assert machine.kinds() == [START, CLEAR, FLUSH, END, *[FREE] * PAGES, SET]
    assert is_huge(machine.mm, at) and is_writable(machine.mm, at) and holds(machine, machine.process, at)
    assert machine.host.counters["thp_collapse_alloc"] == 1
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_locks_of_a_collapse(make_machine: Any, era: str) -> None:
    """mmap_lock for write and the anon_vma lock around both callbacks; the page-table lock too in v3.6 only."""
    machine = make_machine(era, ram=8192)
    at = small(machine)
    vma = machine.mm.vmas.find(at)
    locks = machine.mm.mmap_lock, vma.anon_vma.lock
    watcher = watch(machine, lambda: all(lock.writer is not None for lock in locks))
    scan(machine, at)
    locked = era.startswith("v3.6")
    assert under_lock(watcher) == [("start", locked), ("end", locked)]
    assert all(held for _, _, held in watcher.seen) and not any(lock.writer for lock in locks)


@pytest.mark.parametrize("era", ERAS)
def test_a_fault_cannot_fill_the_hole_after_the_end(make_machine: Any, era: str) -> None:
    """A driver that faults as soon as the range has ended gets the new page."""
    machine = make_machine(era, ram=8192)
    machine.host.costs = SimpleNamespace(**vars(machine.host.costs) | {"copy_page_ns": 10_000})
    at = small(machine)
    old, found = machine.frame(at), []

    def fault() -> Any:
        found.extend((yield from machine.mm.fault_in(at, 1, True)).tolist())

    class Eager(Watcher):
        def invalidate_range_end(self, mm: Any, start: int, end: int) -> Any:
            machine.scheduler.spawn(fault(), "fault")
            return
            yield

    machine.run(machine.mm.notifiers.register(Eager()))
    scan(machine, at)
    machine.timeline.advance(lambda: bool(found))
    assert [entry >> 1 for entry in found] == [machine.frame(at)] != [old]


def test_few_pages_are_enough_and_the_rest_is_zero(make_machine: Any) -> None:
    machine = make_machine("v6.12", ram=8192)
    at = small(machine, 1)
    assert scan(machine, at) == 1
    assert machine.run(machine.process.read(at, HUGE_SIZE)) == b"\1\1" + bytes(HUGE_SIZE - 2)


def pin_a_page(machine: Any, at: int) -> None:
    machine.run(machine.mm.pin(at + PAGE, 1, True))


def page_out(machine: Any, at: int) -> None:
    machine.run(machine.process.madvise(at, PAGE, MADV_PAGEOUT))


def forbid(machine: Any, at: int) -> None:
    machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_NOHUGEPAGE))


def switch_off(machine: Any, at: int) -> None:
    machine.host.transparent_hugepage = "never"


def age(machine: Any, at: int) -> None:
    machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES)[:] &= ~ACCESSED


def lock_a_page(machine: Any, at: int) -> None:
    machine.host.reclaim.isolate(machine.frame(at))


@pytest.mark.parametrize("why", [pin_a_page, page_out, forbid, switch_off, age, lock_a_page])
@pytest.mark.parametrize("era", ["v3.7", "v6.12"])
def test_what_is_not_collapsed(make_machine: Any, era: str, why: Any) -> None:
    """Pinned, in swap, not wanted, not used lately, in the hands of reclaim: nothing happens, nobody is notified."""
    machine = make_machine(era, ram=8192)
    at = small(machine)
    why(machine, at)
    machine.kinds()
    assert scan(machine, at) == 0 and not is_huge(machine.mm, at)
    assert machine.kinds() == [] and holds(machine, machine.process, at)


@pytest.mark.parametrize(("era", "collapsed"), [("v3.7", 0), ("v6.12", 1)])
def test_shared_pages_are_copied_in_6_12_only(make_machine: Any, era: str, collapsed: int) -> None:
    machine = make_machine(era, ram=8192)
    at = small(machine, 10)
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"\1\1"))  # a page that is writable
    assert scan(machine, at) == collapsed
    machine.run(machine.process.write(at + PAGE, b"new"))
    assert holds(machine, child, at, 10)
    machine.check_counts(machine.mm, child.mm)


def test_a_page_taken_while_the_range_is_invalidated_is_put_back(make_machine: Any) -> None:
    """Isolation fails after the entries were taken out: they come back as they were."""
    machine = make_machine("v6.12", ram=8192)
    at = small(machine)
    before = machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES).copy()

    class Late(Watcher):
        def invalidate_range_end(self, mm: Any, start: int, end: int) -> Any:
            machine.host.reclaim.isolate(before[300] >> 12)
            return
            yield

    machine.run(machine.mm.notifiers.register(Late()))
    assert scan(machine, at) == 0
    assert machine.kinds() == [START, CLEAR, FLUSH, END]
    assert (machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES) == before).all()
    assert holds(machine, machine.process, at)


def test_madvise_collapse_ignores_the_switch_and_the_age(make_machine: Any) -> None:
    machine = make_machine("v6.12", ram=8192)
    at = small(machine)
    switch_off(machine, at)
    age(machine, at)
    machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_COLLAPSE))
    assert is_huge(machine.mm, at)
    machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_COLLAPSE))  # is huge already: no error


@pytest.mark.parametrize(
    ("why", "ram", "message"),
    [(forbid, 8192, "Invalid argument"), (pin_a_page, 8192, "temporarily unavailable"),
     (lambda machine, at: machine.run(machine.mm.pin(at + PAGE, PAGES - 1, True)), 8192, "temporarily"),
     (lambda machine, at: None, PAGES + 20, "Cannot allocate")],
)  # fmt: skip
def test_errno_of_madvise_collapse(make_machine: Any, why: Any, ram: int, message: str) -> None:
    machine = make_machine("v6.12", ram=ram)
    machine.host.swap._next = machine.host.swap.pages + 1  # swap is full
    at = small(machine)
    why(machine, at)
    with pytest.raises(OSError, match=message):
        machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_COLLAPSE))
    assert not is_huge(machine.mm, at)


def test_madvise_collapse_is_unknown_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7", ram=8192)
    at = small(machine)
    with pytest.raises(OSError, match="Invalid argument"):
        machine.run(machine.process.madvise(at, HUGE_SIZE, MADV_COLLAPSE))


@pytest.mark.parametrize("era", ERAS)
def test_exit_waits_for_a_collapse(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = small(machine)
    machine.scheduler.spawn(khugepaged_scan(machine.mm, at, at + HUGE_SIZE), "khugepaged")
    machine.run(machine.process.exit())
    machine.timeline.advance(lambda: False)
    assert machine.frames.allocated == 0
