"""Modelled locks: order of owners, spinning, might_sleep."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm.locks import Mutex, RwSemaphore, SpinLock
from nicemu.timeline.host import Sleep, Steps


def log_of(machine: Any, acquire: Any, release: Any, holds: list[int]) -> list[str]:
    """Threads 0.. start one after another, and hold the lock for so many ns."""
    order: list[str] = []

    def user(number: int, ns: int) -> Steps[None]:
        thread = machine.scheduler.current
        yield number
        yield from acquire(number, thread)
        order.append(f"{number} takes at {machine.scheduler.clock()}")
        yield ns
        release(thread)

    threads = [machine.scheduler.spawn(user(number, ns), f"user {number}") for number, ns in enumerate(holds)]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    return order


@pytest.mark.parametrize("kind", ["mutex", "spinlock"])
def test_first_come_first_served(machine: Any, kind: str) -> None:
    spin = SpinLock(machine.scheduler, "s")
    lock = Mutex(machine.scheduler, "m") if kind == "mutex" else spin
    order = log_of(machine, lambda _, thread: lock.acquire(thread), lock.release, [100, 50, 10])
    assert order == ["0 takes at 0", "1 takes at 100", "2 takes at 150"]
    assert not machine.host.reports


def test_writer_holds_back_later_readers(machine: Any) -> None:
    lock = RwSemaphore(machine.scheduler, "mmap_lock")

    def acquire(number: int, thread: Any) -> Steps[None]:
        return lock.acquire_write(thread) if number == 2 else lock.acquire_read(thread)

    order = log_of(machine, acquire, lock.release, [100, 100, 50, 10, 10])
    assert order == ["0 takes at 0", "1 takes at 1", "2 takes at 101", "3 takes at 151", "4 takes at 151"]


@pytest.mark.parametrize("how", ["mutex", "semaphore", "sleep"])
def test_sleeping_under_a_spinlock_is_reported(machine: Any, how: str) -> None:
    spin = SpinLock(machine.scheduler, "page_table_lock")

    def bad() -> Steps[None]:
        thread = machine.scheduler.current
        thread.context.append("test")
        yield from spin.acquire(thread)
        yield 10  # CPU time is fine
        if how == "mutex":
            yield from Mutex(machine.scheduler, "umem_mutex").acquire(thread)
        elif how == "semaphore":
            yield from machine.mm.mmap_lock.acquire_read(thread)
        else:
            yield Sleep(1)
        spin.release(thread)

    machine.run(bad())
    (report,) = machine.host.reports
    expected = {"mutex": "umem_mutex", "semaphore": "mmap_lock", "sleep": "sleep"}[how]
    assert (report.operation, report.lock, report.subscriber) == ("test", "page_table_lock", "")
    assert report.sleeps_in == expected


def test_spinning_for_a_spinlock_is_no_sleep(machine: Any) -> None:
    outer = SpinLock(machine.scheduler, "outer")
    inner = SpinLock(machine.scheduler, "inner")

    def both() -> Steps[None]:
        thread = machine.scheduler.current
        yield 1
        yield from outer.acquire(thread)
        yield from inner.acquire(thread)
        inner.release(thread)
        outer.release(thread)

    def holder() -> Steps[None]:
        thread = machine.scheduler.current
        yield from inner.acquire(thread)
        yield 100
        inner.release(thread)

    machine.scheduler.spawn(holder(), "holder")
    machine.run(both())
    assert not machine.host.reports


def test_a_trylock_loop_waits_its_turn_without_sleep(machine: Any) -> None:
    mutex, spin = Mutex(machine.scheduler, "m"), SpinLock(machine.scheduler, "s")

    def holder() -> Steps[None]:
        yield from mutex.acquire(machine.scheduler.current)
        yield 100
        mutex.release(machine.scheduler.current)

    def spins() -> Steps[int]:
        thread = machine.scheduler.current
        yield 1
        yield from spin.acquire(thread)
        yield from mutex.spin_acquire(thread)
        mutex.release(thread)
        spin.release(thread)
        return int(machine.scheduler.clock())

    machine.scheduler.spawn(holder(), "holder")
    assert machine.run(spins()) == 100 and not machine.host.reports


@pytest.mark.parametrize("kind", [Mutex, SpinLock])
def test_a_free_lock_is_had_in_the_call(machine: Any, kind: type[Mutex]) -> None:
    lock = kind(machine.scheduler, "l")

    def user() -> Steps[None]:
        thread = machine.scheduler.current
        assert tuple(lock.acquire(thread)) == () and lock.owner is thread and thread.held == [lock]
        yield 0
        lock.release(thread)
        assert not thread.held and not thread.atomic and lock.owner is None

    machine.run(user())


def test_where_threads_are_preempted_a_free_lock_lets_others_go_first(machine: Any) -> None:
    semaphore, mutex = RwSemaphore(machine.scheduler, "s"), Mutex(machine.scheduler, "m")
    machine.host.lockdep.preempts = True

    def user() -> Steps[None]:
        thread = machine.scheduler.current
        for lock, acquire in ((mutex, mutex.acquire), (semaphore, semaphore.acquire_read)):
            steps = acquire(thread)
            assert next(iter(steps)) == 0 and not thread.held
            yield from steps
            assert thread.held == [lock]
            lock.release(thread)

    machine.run(user())


def test_a_short_section_passes_a_lock_that_nobody_has_once_the_validator_has_seen_it(machine: Any) -> None:
    lock, heard = SpinLock(machine.scheduler, "page_table_lock of its own"), []

    def looks() -> Steps[list[bool]]:
        thread = machine.scheduler.current
        passed = [lock.passes(thread)]
        yield from lock.acquire(thread)
        passed.append(lock.passes(thread))
        lock.release(thread)
        passed.append(lock.passes(thread))
        assert not thread.held and not thread.atomic
        outer = Mutex(machine.scheduler, "outer")
        yield from outer.acquire(thread)
        passed.append(lock.passes(thread))  # not seen under this one
        outer.release(thread)
        machine.host.lockdep.preempts = True
        passed.append(lock.passes(thread))
        machine.host.lockdep.preempts = False
        machine.host.lockdep.observer = lambda *what: heard.append(what)
        passed.append(lock.passes(thread))
        return passed

    assert machine.run(looks()) == [False, False, True, False, False, False]
