"""Memory failure: a poisoned page is taken from everybody and never used again (``memory-failure.c``)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.mm import Fault
from nicemu.mm.madvise import MADV_HWPOISON, MADV_MERGEABLE, MADV_SOFT_OFFLINE
from nicemu.mm.page import EHWPOISON, PG_HWPOISON
from nicemu.mm.page_table import HWPOISON
from tests.mm.test_disciplines import Sleeper, SleepingInterval

PAGE = 4096
WORDS = b"the bytes of the page"
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")


def page_with_words(machine: Any) -> int:
    at = int(machine.run(machine.process.mmap(PAGE)))
    machine.run(machine.process.write(at, WORDS))
    machine.kinds()
    return at


def check_poisoned(machine: Any, frame: int) -> None:
    """Out of use: marked, one reference, never free."""
    pages = machine.host.pages
    assert pages.flags[frame] & PG_HWPOISON and pages.refcount[frame] == 1 and pages.mapcount[frame] == 0


def test_a_later_access_is_a_sigbus(machine: Any) -> None:
    at = page_with_words(machine)
    frame = machine.frame(at)
    assert machine.run(machine.host.memory_failure(frame)) == [machine.mm]
    assert machine.mm.page_table.get(at // PAGE) == frame << 12 | HWPOISON
    for access in (machine.process.read(at, 4), machine.process.write(at, b"x"), machine.mm.fault_in(at, 1, False)):
        with pytest.raises(Fault) as fault:
            machine.run(access)
        assert (fault.value.errno, fault.value.address) == (EHWPOISON, at)
    check_poisoned(machine, frame)


def test_a_bulk_fault_stops_at_the_page(machine: Any) -> None:
    at = int(machine.run(machine.process.mmap(8 * PAGE)))
    machine.run(machine.process.write(at + 5 * PAGE, WORDS))
    machine.run(machine.process.madvise(at + 5 * PAGE, PAGE, MADV_HWPOISON))
    with pytest.raises(Fault) as fault:
        machine.run(machine.mm.fault_in(at, 8, True))
    assert fault.value.address == at + 5 * PAGE


def test_the_frame_is_never_given_out_again(make_machine: Any) -> None:
    machine = make_machine(ram=64, swap=0)
    at = page_with_words(machine)
    frame = machine.frame(at)
    machine.run(machine.process.madvise(at, PAGE, MADV_HWPOISON))
    machine.run(machine.process.munmap(at, PAGE))
    check_poisoned(machine, frame)
    rest = machine.run(machine.process.mmap(63 * PAGE))
    machine.run(machine.mm.fault_in(rest, 63, True))
    with pytest.raises(Fault, match="out of memory"):
        page_with_words(machine)


def test_after_munmap_the_address_can_be_used(machine: Any) -> None:
    at = page_with_words(machine)
    machine.run(machine.process.madvise(at, PAGE, MADV_HWPOISON))
    machine.run(machine.process.mmap(PAGE, flags=0x32, address=at))
    assert machine.run(machine.process.read(at, 4)) == bytes(4)


def test_parent_and_child_lose_it(machine: Any) -> None:
    at = page_with_words(machine)
    child = machine.run(machine.process.fork())
    assert machine.run(machine.host.memory_failure(machine.frame(at))) == [machine.mm, child.mm]
    for process in (machine.process, child):
        with pytest.raises(Fault):
            machine.run(process.read(at, 4))


def test_every_user_of_a_ksm_page_loses_it(machine: Any) -> None:
    at = int(machine.run(machine.process.mmap(2 * PAGE)))
    machine.run(machine.process.write(at, b"x" * 2 * PAGE))
    machine.run(machine.process.madvise(at, 2 * PAGE, MADV_MERGEABLE))
    machine.run(machine.host.ksm_scan(4))
    frame = machine.frame(at)
    assert machine.frame(at + PAGE) == frame
    machine.run(machine.host.memory_failure(frame))
    assert machine.host.ksm.pages_shared == 0
    check_poisoned(machine, frame)


def test_a_child_of_a_poisoned_parent_inherits_the_loss(machine: Any) -> None:
    at = page_with_words(machine)
    machine.run(machine.process.madvise(at, PAGE, MADV_HWPOISON))
    child = machine.run(machine.process.fork())
    with pytest.raises(Fault):
        machine.run(child.read(at, 4))


def test_a_pinned_page_stays_with_the_device(machine: Any) -> None:
    at = page_with_words(machine)
    frames = machine.run(machine.mm.pin(at, 1, True)) >> 1
    assert machine.run(machine.host.memory_failure(int(frames[0]))) == []
    assert machine.frame(at) == frames[0] and machine.run(machine.process.read(at, 4)) == WORDS[:4]
    machine.mm.unpin(frames)
    machine.run(machine.process.munmap(at, PAGE))
    check_poisoned(machine, int(frames[0]))


def test_it_fails_only_once(machine: Any) -> None:
    frame = machine.frame(page_with_words(machine))
    machine.run(machine.host.memory_failure(frame))
    with pytest.raises(Fault) as fault:
        machine.run(machine.host.memory_failure(frame))
    assert fault.value.errno == EHWPOISON


def test_the_zero_page_cannot_be_taken(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    with pytest.raises(OSError) as error:
        machine.run(machine.process.madvise(at, PAGE, MADV_HWPOISON))
    assert error.value.errno == errno.EBUSY


def test_soft_offline_moves_the_bytes(machine: Any) -> None:
    at = page_with_words(machine)
    frame = machine.frame(at)
    machine.run(machine.process.madvise(at, PAGE, MADV_SOFT_OFFLINE))
    assert machine.frame(at) not in (0, frame) and machine.run(machine.process.read(at, len(WORDS))) == WORDS
    check_poisoned(machine, frame)


def test_soft_offline_of_a_pinned_page_is_busy(machine: Any) -> None:
    at = page_with_words(machine)
    frames = machine.run(machine.mm.pin(at, 1, True)) >> 1
    with pytest.raises(OSError) as error:
        machine.run(machine.process.madvise(at, PAGE, MADV_SOFT_OFFLINE))
    assert error.value.errno == errno.EBUSY and not machine.host.pages.flags[int(frames[0])] & PG_HWPOISON


def test_it_waits_for_a_migration(machine: Any) -> None:
    from nicemu.mm.migrate import migrate_page

    at = page_with_words(machine)
    frame = machine.frame(at)
    moving = machine.scheduler.spawn(migrate_page(machine.mm, at), "migration")
    failing = machine.scheduler.spawn(machine.host.memory_failure(frame), "machine check", delay=300)
    machine.timeline.advance(lambda: moving.finished and failing.finished)
    assert moving.finished and failing.finished, machine.timeline.who_waits()
    check_poisoned(machine, frame)
    assert machine.frame(at) == 0 or machine.run(machine.process.read(at, 4)) == WORDS[:4]


THREE = ["pte_clear", "tlb_flush", "notifier_page", "hwpoison"]


@pytest.mark.parametrize("era", ERAS)
def test_order_of_each_era(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    at = page_with_words(machine)
    machine.run(machine.host.memory_failure(machine.frame(at)))
    modern = ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", "hwpoison"]
    assert machine.kinds() == (modern if era == "v6.12" else THREE)


@pytest.mark.parametrize("era", ERAS)
def test_a_sleeping_subscriber_is_reported_where_reclaim_would(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = page_with_words(machine)
    if machine.host.discipline.interval:
        machine.mm.intervals.insert(SleepingInterval(), at, PAGE)
    machine.run(machine.host.memory_failure(machine.frame(at)))
    locked = {("memory_failure", "page_table_lock")} if era in ("v3.6", "v3.6+srcu") else set()
    assert {(report.operation, report.lock) for report in machine.host.reports} == locked
