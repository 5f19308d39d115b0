"""The lock validator: order from edges alone, stacks, reclaim recursion, interrupts, observers (lockdep.py)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import IntervalNotifier, Mutex, NotifierRange
from nicemu.mm.lock_report import Kind, Report
from nicemu.mm.lockdep import LockMap
from nicemu.mm.locks import HARDIRQ, NON_BLOCK, RCU_READ, RwSemaphore, SpinLock
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Sleep, Steps
from nicemu.timeline.loop import Quiescent

PAGE = 4096


def taken(machine: Any, *names: str) -> Steps[None]:
    """Take locks one inside the other: a name's first word says how."""
    thread = machine.scheduler.current
    locks = []
    for name in names:
        lock = machine.locks[name.split()[-1]]
        if name.startswith("read "):
            yield from lock.acquire_read(thread)
        elif name.startswith("write "):
            yield from lock.acquire_write(thread)
        elif name.startswith("try "):
            assert lock.try_acquire(thread)
        else:
            yield from lock.acquire(thread)
        locks.append(lock)
        yield 1
    for lock in reversed(locks):
        lock.release(thread)


@pytest.fixture
def locked(machine: Any) -> Any:
    """A machine with mutexes a, b, c, a spinlock s and a semaphore r."""
    scheduler = machine.scheduler
    machine.locks = {name: Mutex(scheduler, name) for name in "abc"}
    machine.locks |= {"s": SpinLock(scheduler, "s"), "r": RwSemaphore(scheduler, "r")}
    return machine


def orders(machine: Any, *sequences: tuple[str, ...]) -> list[Report]:
    """Each order in a thread of its own, one after another: nothing can deadlock."""
    for sequence in sequences:
        machine.run(taken(machine, *sequence), " then ".join(sequence))
    return list(machine.host.reports)


# Order ----------------------------------------------------------------------------------------------------------------


def test_the_same_order_twice_is_no_inversion(locked: Any) -> None:
    assert orders(locked, ("a", "b", "c"), ("a", "c"), ("b", "c"), ("a", "b")) == []


def test_inversion_is_reported_from_order_alone(locked: Any) -> None:
    (report,) = orders(locked, ("a", "b"), ("b", "a"))
    assert (report.kind, report.lock, report.cycle) == (Kind.CIRCULAR, "a", ("b", "a"))


def test_longer_circle_is_found(locked: Any) -> None:
    (report,) = orders(locked, ("a", "b"), ("b", "c"), ("c", "a"))
    assert report.cycle == ("c", "a", "b") and len(report.stacks) == 3


def test_an_inversion_is_reported_once(locked: Any) -> None:
    assert len(orders(locked, ("a", "b"), ("b", "a"), ("b", "a"), ("a", "b"))) == 1


def test_edges_come_from_what_is_held_after_an_unlock_out_of_order(locked: Any) -> None:
    def crosswise() -> Steps[None]:
        thread, locks = locked.scheduler.current, locked.locks
        yield from locks["a"].acquire(thread)
        yield from locks["b"].acquire(thread)
        locks["a"].release(thread)
        yield from locks["c"].acquire(thread)
        locks["b"].release(thread)
        locks["c"].release(thread)

    locked.run(crosswise())
    assert orders(locked, ("a", "c")) == []
    assert [report.cycle for report in orders(locked, ("c", "b"))] == [("c", "b")]


@pytest.mark.parametrize("mode", ["read", "write"])
def test_readers_count_for_a_waiting_writer_holds_them_back(locked: Any, mode: str) -> None:
    (report,) = orders(locked, (f"{mode} r", "a"), ("a", "read r"))
    assert report.cycle == ("a", "r") and report.held == ("a",) and report.stacks[0].names[0] == "down_read"


def test_a_trylock_waits_for_nobody(locked: Any) -> None:
    assert orders(locked, ("a", "b"), ("b", "try a")) == []


def test_what_is_taken_under_a_trylock_depends_on_what_was_held_before_too(locked: Any) -> None:
    assert orders(locked, ("a", "try b", "c")) == []
    assert {report.cycle for report in orders(locked, ("c", "a"))} == {("c", "a")}
    assert ("c", "b") in {report.cycle for report in orders(locked, ("c", "b"))}


def test_trylock_fails_if_the_lock_is_held(locked: Any) -> None:
    def tries() -> Steps[tuple[bool, bool]]:
        thread, (mutex, semaphore) = locked.scheduler.current, (locked.locks["a"], locked.locks["r"])
        yield from mutex.acquire(thread)
        yield from semaphore.acquire_write(thread)
        return mutex.try_acquire(thread), semaphore.try_acquire_read(thread)

    assert locked.run(tries()) == (False, False)


def test_full_text_has_both_stacks_and_the_locks_held(locked: Any) -> None:
    def first_way(machine: Any) -> Steps[None]:
        yield from taken(machine, "a", "b")

    def other_way(machine: Any) -> Steps[None]:
        machine.scheduler.current.context.append("munmap")
        yield from taken(machine, "b", "a")

    locked.run(first_way(locked), "one")
    locked.run(other_way(locked), "two")
    (report,) = locked.host.reports
    assert report.full().splitlines() == [
        "WARNING: possible circular locking dependency detected",
        "two: mutex_lock of a while b is held (b > a > b)",
        "during: munmap",
        "1 locks held by two:",
        " #0: b",
        "-> #0 b, then a, first by two:",
        "  mutex_lock", "  taken", "  other_way",
        "-> #1 a, then b, first by one:",
        "  mutex_lock", "  taken", "  first_way",
    ]  # fmt: skip
    assert str(report) == (
        "WARNING: possible circular locking dependency detected: mutex_lock of a while b is held (b > a > b) "
        "(munmap; 1 times)"
    )


# Recursion ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "s"])
def test_a_lock_taken_twice_is_reported_and_then_waited_for(locked: Any, name: str) -> None:
    with pytest.raises(Quiescent, match=f"deadlock: program waits for {name}"):
        locked.run(taken(locked, name, name))
    (report,) = locked.host.reports
    assert (report.kind, report.lock) == (Kind.RECURSIVE, name)


def test_a_second_lock_of_the_class_is_recursion_as_well(locked: Any) -> None:
    locked.locks["other"] = Mutex(locked.scheduler, "a")
    (report,) = orders(locked, ("a", "b", "other"))
    assert (report.kind, report.lock, report.held) == (Kind.RECURSIVE, "a", ("a", "b"))


def test_a_reader_that_reads_again_is_reported_and_goes_on(locked: Any) -> None:
    (report,) = orders(locked, ("read r", "read r"))
    assert (report.kind, report.held) == (Kind.RECURSIVE, ("r (read)",))


# Sleep ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [RCU_READ, NON_BLOCK, HARDIRQ], ids=str)
def test_sleep_in_an_atomic_section_is_reported(machine: Any, section: Any) -> None:
    def sleeps() -> Steps[None]:
        section.enter(machine.scheduler.current)
        yield 5
        yield Sleep(1)
        section.exit(machine.scheduler.current)
        yield Sleep(1)

    machine.run(sleeps())
    (report,) = machine.host.reports
    assert (report.kind, report.lock, report.count) == (Kind.ATOMIC_SLEEP, section.name, 1)


def test_of_several_reasons_the_spinlock_is_named(locked: Any) -> None:
    def sleeps() -> Steps[None]:
        RCU_READ.enter(locked.scheduler.current)
        yield from locked.locks["s"].acquire(locked.scheduler.current)
        HARDIRQ.enter(locked.scheduler.current)
        yield Sleep(1)

    locked.run(sleeps())
    assert [report.lock for report in locked.host.reports] == ["s"]


def test_report_of_a_sleep_shows_where_and_where_the_lock_was_taken(machine: Any) -> None:
    def sleepy_callback() -> Steps[None]:
        yield Sleep(1)

    def zap_pte_range() -> Steps[None]:
        yield from machine.mm.page_table_lock.acquire(machine.scheduler.current)
        yield from sleepy_callback()
        machine.mm.page_table_lock.release(machine.scheduler.current)

    machine.run(zap_pte_range())
    (report,) = machine.host.reports
    assert [stack.names for stack in report.stacks] == [
        ("wait for sleep", "sleepy_callback", "zap_pte_range"), ("spin_lock", "zap_pte_range"),
    ]  # fmt: skip
    assert report.held == ("page_table_lock",)


def test_allocation_under_a_spinlock_is_a_sleep_though_there_is_memory(machine: Any) -> None:
    def allocates() -> Steps[None]:
        yield from machine.mm.page_table_lock.acquire(machine.scheduler.current)
        yield from machine.host.alloc_pages(FrameKind.MODEL, 1)
        machine.mm.page_table_lock.release(machine.scheduler.current)

    machine.run(allocates())
    assert [(r.kind, r.lock, r.sleeps_in) for r in machine.host.reports] == [
        (Kind.ATOMIC_SLEEP, "page_table_lock", "alloc_pages")
    ]


# Reclaim recursion (odp.md section 2, row lockdep) --------------------------------------------------------------------


class Driver(IntervalNotifier):
    """Does ``work()`` in its callback, under its mutex."""

    name = "driver"

    def __init__(self, machine: Any) -> None:
        self.machine, self.mutex = machine, Mutex(machine.scheduler, "umem_mutex")
        self.allocates = False

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        thread = self.machine.scheduler.current
        yield from self.mutex.acquire(thread)
        self.set_seq(cur_seq)
        if self.allocates:
            yield from self.machine.host.alloc_pages(FrameKind.MODEL, 1)
        self.mutex.release(thread)
        return True


@pytest.fixture
def driver(machine: Any) -> Driver:
    """Watches the pages of a mapping that was written."""
    subscriber = Driver(machine)
    at = subscriber.at = machine.run(machine.process.mmap(4 * PAGE))  # type: ignore[attr-defined]
    machine.mm.intervals.insert(subscriber, at, 4 * PAGE)
    machine.run(machine.process.write(at, bytes(4 * PAGE)))
    return subscriber


def dontneed(machine: Any, driver: Any) -> None:
    machine.run(machine.process.madvise(driver.at, PAGE, 4), "madvise")


def test_a_quiet_driver_is_not_reported(machine: Any, driver: Driver) -> None:
    dontneed(machine, driver)
    machine.run(machine.host.reclaim.evict(machine.mm, driver.at + PAGE))  # type: ignore[attr-defined]
    assert machine.host.reports == []


def test_a_callback_that_allocates_is_reported_without_reclaim(machine: Any, driver: Driver) -> None:
    driver.allocates = True
    dontneed(machine, driver)
    (report,) = machine.host.reports
    assert (report.kind, report.lock, report.subscriber) == (Kind.CIRCULAR, "fs_reclaim", "driver")
    assert machine.host.counters["allocstall"] == 0


@pytest.mark.parametrize("callback_first", [True, False])
def test_an_allocation_under_the_callbacks_lock_is_reported(machine: Any, driver: Driver, callback_first: bool) -> None:
    def allocates() -> Steps[None]:
        yield from driver.mutex.acquire(machine.scheduler.current)
        yield from machine.host.alloc_pages(FrameKind.MODEL, 1)
        driver.mutex.release(machine.scheduler.current)

    steps = [lambda: dontneed(machine, driver), lambda: machine.run(allocates())]
    for step in steps if callback_first else reversed(steps):
        step()
    (report,) = machine.host.reports
    assert report.kind == Kind.CIRCULAR
    assert set(report.cycle) == {"umem_mutex", "fs_reclaim", "mmu_notifier_invalidate_range_start"}


def test_a_fault_under_the_callbacks_lock_is_an_inversion(machine: Any, driver: Driver) -> None:
    """Never take mmap_lock or fault while holding umem_mutex (odp.md 2.2)."""

    def faults() -> Steps[None]:
        yield from driver.mutex.acquire(machine.scheduler.current)
        yield from machine.mm.fault_in(driver.at, 1, True)  # type: ignore[attr-defined]
        driver.mutex.release(machine.scheduler.current)

    dontneed(machine, driver)
    machine.run(faults())
    (report,) = machine.host.reports
    assert (report.kind, report.operation, report.lock) == (Kind.CIRCULAR, "fault", "mmap_lock")


def test_kswapd_reclaims_inside_the_map(make_machine: Any) -> None:
    machine = make_machine(ram=128, kswapd=True)
    names: set[str] = set()
    machine.host.lockdep.observer = lambda kind, lock, thread: (
        names.update(str(entry) for entry in thread.held) if thread.name == "kswapd" else None
    )
    at = machine.run(machine.process.mmap(200 * PAGE))
    machine.run(machine.process.write(at, bytes(200 * PAGE)))
    assert "fs_reclaim" in names and machine.host.reports == []


# SRCU -----------------------------------------------------------------------------------------------------------------


def test_a_grace_period_under_a_lock_that_readers_take_is_an_inversion(machine: Any) -> None:
    mutex = Mutex(machine.scheduler, "umem_mutex")

    def reader() -> Steps[None]:
        index = machine.host.srcu.enter(machine.scheduler.current)
        yield from mutex.acquire(machine.scheduler.current)
        mutex.release(machine.scheduler.current)
        machine.host.srcu.exit(index)

    def waits() -> Steps[None]:
        yield from mutex.acquire(machine.scheduler.current)
        yield from machine.host.srcu.synchronize(machine.scheduler.current)
        mutex.release(machine.scheduler.current)

    machine.run(reader())
    machine.run(waits())
    (report,) = machine.host.reports
    assert (report.kind, report.lock, report.cycle) == (Kind.CIRCULAR, "srcu", ("umem_mutex", "srcu"))


# Observer -------------------------------------------------------------------------------------------------------------


def test_observer_hears_of_every_lock_and_unlock(locked: Any) -> None:
    heard: list[tuple[str, str, str]] = []
    locked.host.lockdep.observer = lambda kind, lock, thread: heard.append((kind, lock.name, thread.name))
    locked.run(taken(locked, "read r", "a", "s"), "user")
    assert heard == [
        ("lock", "r", "user"), ("lock", "a", "user"), ("lock", "s", "user"),
        ("unlock", "s", "user"), ("unlock", "a", "user"), ("unlock", "r", "user"),
    ]  # fmt: skip


def test_the_order_that_is_meant_holds_in_reclaim_and_faults(make_machine: Any) -> None:
    """mmap_lock > fs_reclaim > notifier and page_table_lock: every edge points down."""
    machine = make_machine(ram=40)
    at = machine.run(machine.process.mmap(100 * PAGE))
    machine.run(machine.process.write(at, bytes(100 * PAGE)))
    classes = machine.host.lockdep.classes
    below = {name: {to.name for to in found.after} for name, found in classes.items()}
    assert below["mmap_lock"] >= {"fs_reclaim", "page_table_lock"}
    assert "mmu_notifier_invalidate_range_start" in below["fs_reclaim"] and below["page_table_lock"] == set()
    assert machine.host.reports == []


def test_a_map_is_a_class_without_a_lock(locked: Any) -> None:
    lock_map = LockMap(locked.host.lockdep, "fake")

    def inside() -> Steps[None]:
        lock_map.enter(locked.scheduler.current)
        yield from taken(locked, "a")
        lock_map.exit(locked.scheduler.current)

    def outside() -> Steps[None]:
        yield from locked.locks["a"].acquire(locked.scheduler.current)
        lock_map.enter(locked.scheduler.current)
        lock_map.exit(locked.scheduler.current)
        locked.locks["a"].release(locked.scheduler.current)

    locked.run(inside())
    locked.run(outside())
    assert [report.lock for report in locked.host.reports] == ["fake"]
