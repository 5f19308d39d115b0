"""MADV_FREE, WILLNEED, POPULATE, COLD and mlock, with Linux's errno."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm import Fault
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.madvise import (
    MADV_COLD,
    MADV_FREE,
    MADV_HWPOISON,
    MADV_MERGEABLE,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_WILLNEED,
)  # fmt: skip
from nicemu.mm.page import PG_LAZYFREE
from nicemu.mm.page_table import DIRTY, WRITE
from tests.mm.test_disciplines import Sleeper

PAGE = 4096
PAGEOUT, DONTNEED = 21, 4


def written(machine: Any, pages: int = 2) -> int:
    at = int(machine.run(machine.process.mmap(pages * PAGE)))
    machine.run(machine.process.write(at, b"x" * pages * PAGE))
    machine.kinds()
    return at


def advise(machine: Any, at: int, pages: int, advice: int) -> None:
    machine.run(machine.process.madvise(at, pages * PAGE, advice))


def error_of(machine: Any, at: int, pages: int, advice: int) -> int:
    with pytest.raises(OSError) as error:
        advise(machine, at, pages, advice)
    return int(error.value.errno or 0)


# MADV_FREE


def test_free_order(machine: Any) -> None:
    """``range_start``, entries cleaned, ``range_end``, then the TLB flush (mmu_gather)."""
    at = written(machine)
    advise(machine, at, 2, MADV_FREE)
    assert machine.kinds() == ["notifier_start", "pte_protect", "notifier_end", "tlb_flush"]
    assert not machine.mm.page_table.get(at // PAGE) & DIRTY


def test_reclaim_drops_a_clean_page_without_swap(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_FREE)
    machine.kinds()
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.kinds() == ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", "free"]
    assert machine.host.counters["pswpout"] == 0 and machine.host.counters["pglazyfreed"] == 1
    assert machine.run(machine.process.read(at, 4)) == bytes(4)
    machine.check_counts()


def test_a_write_in_between_keeps_the_page(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_FREE)
    machine.run(machine.process.write(at, b"again"))
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert not machine.host.pages.flags[machine.frame(at)] & PG_LAZYFREE
    assert machine.run(machine.host.reclaim.evict(machine.mm, at)) and machine.host.counters["pswpout"] == 1
    assert machine.run(machine.process.read(at, 6)) == b"againx"
    machine.check_counts()


def test_a_device_write_fault_in_between_keeps_the_page(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_FREE)
    machine.run(machine.mm.fault_in(at, 1, True))
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.read(at, 1)) == b"x"


def test_a_read_in_between_does_not(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_FREE)
    assert machine.run(machine.process.read(at, 1)) == b"x"
    assert machine.run(machine.host.reclaim.evict(machine.mm, at)) and machine.host.counters["pswpout"] == 0


def test_free_drops_what_is_in_swap(machine: Any) -> None:
    at = written(machine)
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    advise(machine, at, 1, MADV_FREE)
    assert machine.host.swap.used == 0 and machine.run(machine.process.read(at, 1)) == b"\0"


def test_a_page_that_a_child_maps_is_not_marked(machine: Any) -> None:
    at = written(machine)
    machine.run(machine.process.fork())
    advise(machine, at, 2, MADV_FREE)
    assert not machine.host.pages.flags[machine.frame(at)] & PG_LAZYFREE


def test_a_page_forked_after_free_is_dropped_from_both_or_neither(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_FREE)
    child = machine.run(machine.process.fork())
    assert machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.process.read(at, 1)) == machine.run(child.read(at, 1)) == b"\0"
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD, MADV_POPULATE_READ, MADV_POPULATE_WRITE])
def test_later_advice_is_not_in_3x(make_machine: Any, advice: int) -> None:
    machine = make_machine("v3.7")
    at = written(machine)
    with pytest.raises(NotInThisKernel):
        advise(machine, at, 1, advice)
    assert machine.kinds() == []


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD, DONTNEED])
def test_locked_memory_is_refused(machine: Any, advice: int) -> None:
    at = written(machine)
    machine.run(machine.process.mlock(at, PAGE))
    assert error_of(machine, at, 1, advice) == errno.EINVAL


@pytest.mark.parametrize(
    "advice", [MADV_FREE, MADV_COLD, MADV_WILLNEED, MADV_MERGEABLE, MADV_POPULATE_READ, MADV_POPULATE_WRITE]
)
def test_holes_are_enomem_and_the_rest_is_done(machine: Any, advice: int) -> None:
    at = written(machine, 3)
    machine.run(machine.process.munmap(at + PAGE, PAGE))
    assert error_of(machine, at, 3, advice) == errno.ENOMEM


# WILLNEED, POPULATE, COLD


def test_willneed_reads_swapped_pages(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 2, PAGEOUT)
    advise(machine, at, 2, MADV_WILLNEED)
    assert machine.frame(at) and machine.frame(at + PAGE)


@pytest.mark.parametrize(("advice", "bit"), [(MADV_POPULATE_READ, 0), (MADV_POPULATE_WRITE, WRITE)])
def test_populate_faults_every_page_in(machine: Any, advice: int, bit: int) -> None:
    at = machine.run(machine.process.mmap(8 * PAGE))
    advise(machine, at, 8, advice)
    entries = [machine.mm.page_table.get(at // PAGE + page) for page in range(8)]
    assert all(entry & 1 and entry & WRITE == bit for entry in entries)


def test_populate_where_it_may_not_write(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE, prot=1))
    assert error_of(machine, at, 1, MADV_POPULATE_WRITE) == errno.EINVAL


def test_populate_meets_a_poisoned_page(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 1, MADV_HWPOISON)
    assert error_of(machine, at, 2, MADV_POPULATE_READ) == 133


def test_cold_pages_go_first(machine: Any) -> None:
    at = written(machine, 64)
    advise(machine, at + 40 * PAGE, 2, MADV_COLD)
    machine.run(machine.host.reclaim.shrink(2))
    assert [machine.frame(at + page * PAGE) == 0 for page in (39, 40, 41, 42)] == [False, True, True, False]
    machine.check_counts()


def test_cold_asks_no_subscriber(machine: Any) -> None:
    at = written(machine)
    advise(machine, at, 2, MADV_COLD)
    assert machine.kinds() == []


def test_advice_on_part_of_a_page_is_einval(machine: Any) -> None:
    at = written(machine)
    with pytest.raises(OSError) as error:
        machine.run(machine.process.madvise(at + 1, PAGE, MADV_FREE))
    assert error.value.errno == errno.EINVAL


# mlock


def test_mlock_populates_and_reclaim_leaves_it(machine: Any) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.mlock(at, 4 * PAGE))
    assert machine.mm.locked_vm == 4 and all(machine.frame(at + page * PAGE) for page in range(4))
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert machine.run(machine.host.reclaim.shrink(4)) == 0
    machine.run(machine.process.munlock(at, 4 * PAGE))
    assert machine.mm.locked_vm == 0 and machine.run(machine.host.reclaim.shrink(4)) == 4
    machine.check_counts()


def test_a_child_inherits_no_lock_and_the_page_stays_locked_by_its_parent(machine: Any) -> None:
    at = written(machine)
    machine.run(machine.process.mlock(at, 2 * PAGE))
    child = machine.run(machine.process.fork())
    assert child.mm.locked_vm == 0 and not machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.run(machine.process.munmap(at, 2 * PAGE))
    assert machine.mm.locked_vm == 0 and machine.run(machine.host.reclaim.evict(child.mm, at))


def test_mlock_of_a_hole_locks_the_rest(machine: Any) -> None:
    at = written(machine, 3)
    machine.run(machine.process.munmap(at + PAGE, PAGE))
    with pytest.raises(OSError) as error:
        machine.run(machine.process.mlock(at, 3 * PAGE))
    assert error.value.errno == errno.ENOMEM and machine.mm.locked_vm == 2


def test_mlock_without_memory_is_eagain(make_machine: Any) -> None:
    machine = make_machine(ram=32, swap=0)
    at = machine.run(machine.process.mmap(64 * PAGE))
    with pytest.raises(OSError) as error:
        machine.run(machine.process.mlock(at, 64 * PAGE))
    assert error.value.errno == errno.EAGAIN and not isinstance(error.value, Fault)


def test_a_locked_page_still_moves(machine: Any) -> None:
    from nicemu.mm.migrate import migrate_page

    at = written(machine)
    machine.run(machine.process.mlock(at, 2 * PAGE))
    assert machine.run(migrate_page(machine.mm, at))
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))


def test_a_sleeping_subscriber_is_nothing_new(machine: Any) -> None:
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = written(machine)
    advise(machine, at, 2, MADV_FREE)
    assert machine.host.reports == []
