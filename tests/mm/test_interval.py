"""Interval notifiers: the sequence protocol of odp.md 2.1."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from nicemu.mm import Event, IntervalNotifier, Mutex, NotifierRange, NotifierSubscriber
from nicemu.mm.notifier import invalidate_range_end, invalidate_range_start
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096
BASE = 0x4100_0000_0000


class Driver(IntervalNotifier):
    """Waits for its device under its mutex."""

    def __init__(self, machine: Any, name: str = "driver") -> None:
        self.name, self.machine = name, machine
        self.mutex = Mutex(machine.scheduler, "umem_mutex")
        self.seen: list[tuple[int, int]] = []

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        if not range.blockable:
            return False
        thread = self.machine.scheduler.current
        yield from self.mutex.acquire(thread)
        self.set_seq(cur_seq)
        yield Sleep(10_000)
        self.seen.append((range.start, range.end))
        self.mutex.release(thread)
        return True


def subscribed(machine: Any, start: int = BASE, pages: int = 4) -> Driver:
    driver = Driver(machine)
    machine.mm.intervals.insert(driver, start, pages * PAGE)
    return driver


def pair(machine: Any, start: int, pages: int, between: int = 0, blockable: bool = True) -> Steps[bool]:
    """One invalidation."""
    range = NotifierRange(machine.mm, start, start + pages * PAGE, Event.CLEAR, "test", blockable)
    ok = yield from invalidate_range_start(range)
    if ok:
        yield between
        yield from invalidate_range_end(range)
    return ok


def test_sequence_starts_at_two_and_a_quiet_subscription_never_waits(machine: Any) -> None:
    driver = subscribed(machine)
    assert (machine.mm.intervals.invalidate_seq, driver.invalidate_seq) == (2, 1)
    sequence = machine.run(driver.read_begin())
    assert not driver.read_retry(sequence)


def test_invalidation_of_the_range_makes_a_reader_retry(machine: Any) -> None:
    driver = subscribed(machine)
    sequence = machine.run(driver.read_begin())
    machine.run(pair(machine, BASE + PAGE, 1))
    assert driver.read_retry(sequence) and driver.seen == [(BASE + PAGE, BASE + 2 * PAGE)]
    assert machine.mm.intervals.invalidate_seq == 4 and driver.invalidate_seq == 3


def test_invalidation_elsewhere_does_not(machine: Any) -> None:
    driver = subscribed(machine)
    sequence = machine.run(driver.read_begin())
    for start in (BASE - PAGE, BASE + 4 * PAGE):
        machine.run(pair(machine, start, 1))
    assert not driver.read_retry(sequence) and not driver.seen


def test_reader_waits_for_the_end_of_the_last_active_range(machine: Any) -> None:
    driver = subscribed(machine)
    machine.scheduler.spawn(pair(machine, BASE, 1, between=50_000), "first")
    machine.scheduler.spawn(pair(machine, BASE + (1 << 30), 1, between=200_000), "second, elsewhere")

    def reader() -> Steps[int]:
        yield Sleep(20_000)
        yield from driver.read_begin()
        return int(machine.scheduler.clock())

    assert machine.run(reader()) == 200_000


def test_insert_during_an_invalidation_is_deferred_and_looks_colliding(machine: Any) -> None:
    subscribed(machine)
    late = Driver(machine, "late")
    machine.scheduler.spawn(pair(machine, BASE, 1, between=50_000), "invalidation")

    def inserter() -> Steps[tuple[int, int]]:
        yield Sleep(20_000)
        machine.mm.intervals.insert(late, BASE, PAGE)
        assert late not in list(machine.mm.intervals)
        sequence = yield from late.read_begin()
        return int(machine.scheduler.clock()), sequence

    time, sequence = machine.run(inserter())
    assert time == 60_000 and late in list(machine.mm.intervals) and not late.read_retry(sequence)
    assert not late.seen


def test_remove_waits_for_a_running_invalidation(machine: Any) -> None:
    driver = subscribed(machine)
    machine.scheduler.spawn(pair(machine, BASE, 1, between=50_000), "invalidation")

    def remover() -> Steps[int]:
        yield Sleep(20_000)
        yield from machine.mm.intervals.remove(driver)
        return int(machine.scheduler.clock())

    assert machine.run(remover()) == 60_000
    assert not list(machine.mm.intervals)


def test_nonblocking_invalidation_is_refused_and_undone(machine: Any) -> None:
    class Chain(NotifierSubscriber):
        calls: ClassVar[list[str]] = []

        def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
            self.calls.append("start")
            return True
            yield

    driver = subscribed(machine)
    machine.run(machine.mm.notifiers.register(Chain()))
    assert not machine.run(pair(machine, BASE, 1, blockable=False))
    assert machine.mm.intervals.active_invalidate_ranges == 0 and not machine.mm.intervals.writing
    assert not Chain.calls and not driver.seen
    assert machine.run(pair(machine, BASE, 1)) and Chain.calls == ["start"]


def test_fault_that_collides_with_dontneed_starts_over(machine: Any) -> None:
    """The race of odp.md 2.2: pages are looked up, taken away, and must not reach the device."""
    at = machine.run(machine.process.mmap(4 * PAGE))
    driver = subscribed(machine, at)
    rounds: list[int] = []

    def fault() -> Steps[int]:
        thread = machine.scheduler.current
        while True:
            sequence = yield from driver.read_begin()
            found = yield from machine.mm.fault_in(at, 1, True)
            rounds.append(int(found[0]))
            yield Sleep(5_000)
            yield from driver.mutex.acquire(thread)
            if not driver.read_retry(sequence):
                driver.mutex.release(thread)
                return int(found[0] >> 1)
            driver.mutex.release(thread)

    machine.scheduler.spawn(machine.process.madvise(at, PAGE, 4), "dontneed", delay=4_000)
    frame = machine.run(fault())
    assert len(rounds) > 1 and frame == machine.frame(at) and machine.world.frame[frame].generation == 1


@pytest.mark.parametrize("era", ["v3.6", "v3.7", "v6.12"])
def test_chain_callbacks_run_newest_first_and_unregister_releases(make_machine: Any, era: str) -> None:
    calls: list[str] = []

    class Client(NotifierSubscriber):
        def __init__(self, name: str) -> None:
            self.name = name

        def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
            calls.append(f"{self.name} start")
            return True
            yield

        def release(self, mm: Any) -> Steps[None]:
            calls.append(f"{self.name} release")
            return
            yield

    machine = make_machine(era)
    first, second = Client("first"), Client("second")
    machine.run(machine.mm.notifiers.register(first))
    machine.run(machine.mm.notifiers.register(second))
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.munmap(at, PAGE))
    machine.run(machine.mm.notifiers.unregister(second))
    assert calls == ["second start", "first start", "second release"]
    machine.run(machine.process.exit())
    assert calls[3:] == ["first release"]
