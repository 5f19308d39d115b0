"""The swap cache: a shared slot is read once, a page that was only read needs no second write (``swap.py``)."""

from __future__ import annotations

from typing import Any

PAGE = 4096


def swapped(machine: Any, pages: int = 1) -> int:
    """Model memory that was written and then reclaimed."""
    at: int = machine.run(machine.process.mmap(pages * PAGE))
    machine.run(machine.process.write(at, b"word" * (pages * PAGE // 4)))
    machine.run(machine.process.madvise(at, pages * PAGE, 21))
    assert machine.host.swap.used == pages
    return at


def evict(machine: Any, at: int) -> bool:
    return bool(machine.run(machine.host.reclaim.evict(machine.mm, at)))


def test_two_users_of_a_slot_share_the_page_that_one_of_them_read(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"word"))
    child = machine.run(machine.process.fork())
    assert evict(machine, at)
    assert machine.run(child.read(at, 4)) == machine.run(machine.process.read(at, 4)) == b"word"
    assert machine.host.counters["pswpin"] == 1 and child.mm.page_table.get(at // PAGE) >> 12 == machine.frame(at)
    machine.check_counts(machine.mm, child.mm)
    machine.run(machine.process.write(at, b"W"))
    assert machine.run(child.read(at, 4)) == b"word"
    machine.run(child.exit())
    assert machine.host.swap.used == 0
    machine.check_counts()


def test_faults_at_the_same_time_read_the_slot_once(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"word"))
    child = machine.run(machine.process.fork())
    assert evict(machine, at)
    faults = [machine.scheduler.spawn(p.read(at, 4), "reader") for p in (machine.process, child, child)]
    machine.timeline.advance(lambda: all(fault.finished for fault in faults))
    assert [fault.result for fault in faults] == [b"word"] * 3 and machine.host.counters["pswpin"] == 1
    machine.check_counts(machine.mm, child.mm)


def test_a_page_that_was_only_read_is_dropped_without_a_write(machine: Any) -> None:
    at = swapped(machine)
    assert machine.run(machine.process.read(at, 4)) == b"word" and machine.host.swap.used == 1
    before = machine.scheduler.clock()
    assert evict(machine, at)
    assert machine.host.counters["pswpout"] == 1
    assert machine.scheduler.clock() - before < machine.host.costs.swap_write_ns
    assert machine.run(machine.process.read(at, 4)) == b"word"


def test_many_pages_are_kept_too(machine: Any) -> None:
    at = swapped(machine, 20)
    machine.run(machine.mm.fault_in(at, 20, False))
    machine.run(machine.process.madvise(at, 20 * PAGE, 21))
    assert machine.host.counters["pswpout"] == 20 and machine.frames.allocated == 0
    assert machine.run(machine.process.read(at + 19 * PAGE, 4)) == b"word"


def test_a_write_takes_the_page_out_of_the_cache(machine: Any) -> None:
    at = swapped(machine)
    machine.run(machine.process.read(at, 4))
    machine.run(machine.process.write(at, b"W"))
    assert machine.host.swap.used == 0 and not machine.host.swap.cache
    assert evict(machine, at) and machine.host.counters["pswpout"] == 2
    assert machine.run(machine.process.read(at, 4)) == b"Word"


def test_a_write_fault_on_a_slot_of_ones_own_frees_it(machine: Any) -> None:
    at = swapped(machine)
    machine.run(machine.process.write(at, b"W"))
    assert machine.host.swap.used == 0 and machine.run(machine.process.read(at, 4)) == b"Word"


def test_a_freed_page_gives_its_slot_back(machine: Any) -> None:
    at = swapped(machine)
    machine.run(machine.process.read(at, 4))
    machine.run(machine.process.munmap(at, PAGE))
    assert machine.host.swap.used == 0 and not machine.host.swap.cache and machine.frames.allocated == 0


def test_swap_that_is_half_full_keeps_no_slot_for_a_clean_page(make_machine: Any) -> None:
    machine = make_machine(swap=3)
    at = swapped(machine, 2)
    machine.run(machine.process.read(at, 4))
    assert machine.host.swap.used == 1 and not machine.host.swap.cache


def test_a_migrated_page_leaves_the_cache(machine: Any) -> None:
    from nicemu.mm.migrate import migrate_page

    at = swapped(machine)
    machine.run(machine.process.read(at, 4))
    assert machine.run(migrate_page(machine.mm, at)) and machine.host.swap.used == 0
    assert evict(machine, at) and machine.run(machine.process.read(at, 4)) == b"word"
    machine.check_counts()
