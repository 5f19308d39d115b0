"""How subscribers are called: order, blocking, nesting, what a callback may not do, young bits (odp.md section 2)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import Event, Mutex, NotifierRange, NotifierSubscriber
from nicemu.mm.lock_report import Kind
from nicemu.mm.notifier import invalidate_range_end, invalidate_range_start
from nicemu.timeline.host import Sleep, Steps
from nicemu.timeline.loop import Quiescent
from tests.mm.notifier_clients import BASE, PAGE, Client, Interval, Paired, insert, pair, register, warnings


@pytest.fixture
def calls() -> list[str]:
    return []


# Start, end, blocking -------------------------------------------------------------------------------------------------


def test_start_and_end_run_intervals_first(machine: Any, calls: list[str]) -> None:
    class Watches(Paired):
        def _say(self, what: str) -> Steps[None]:
            yield from super()._say(f"{what}, {machine.mm.intervals.active_invalidate_ranges} active")

    register(machine, Watches(calls))
    insert(machine, Interval(calls))
    machine.run(pair(machine))
    assert calls == ["interval CLEAR", "client start, 1 active", "client end, 0 active"]


def test_a_refused_start_is_undone_and_everybody_was_asked(machine: Any, calls: list[str]) -> None:
    register(machine, Paired(calls, "last"), Client(calls, "refuser", refuses=True), Paired(calls, "first"))
    insert(machine, Interval(calls))
    assert not machine.run(pair(machine, blockable=False))
    assert calls == ["interval CLEAR", "first start", "refuser start", "last start", "first end", "last end"]
    assert machine.mm.intervals.active_invalidate_ranges == 0 and not machine.mm.intervals.writing
    assert machine.host.reports == []


def test_a_start_that_can_fail_has_no_end(machine: Any, calls: list[str]) -> None:
    register(machine, Paired(calls, refuses=True))
    assert not machine.run(pair(machine, blockable=False))
    assert warnings(machine) == ["client refused, and has an invalidate_range_end"] and calls == ["client start"]


def test_a_blockable_start_must_succeed(machine: Any, calls: list[str]) -> None:
    register(machine, Client(calls, refuses=True))
    interval = insert(machine, Interval(calls))
    interval.refuses = True
    assert machine.run(pair(machine))
    assert len(warnings(machine)) == 2 and len(calls) == 2


def test_an_interval_that_refuses_ends_itself_and_stops_the_walk(machine: Any, calls: list[str]) -> None:
    register(machine, Client(calls))
    first, second = insert(machine, Interval(calls)), insert(machine, Interval(calls))
    first.refuses = True
    assert not machine.run(pair(machine, blockable=False))
    assert calls == ["interval CLEAR"] and machine.mm.intervals.active_invalidate_ranges == 0
    assert second.invalidate_seq == 1 and machine.host.reports == []


@pytest.mark.parametrize("kind", ["chain", "interval"])
def test_a_callback_that_may_not_block_and_sleeps_is_reported(machine: Any, calls: list[str], kind: str) -> None:
    def sleeps(_: Any) -> Steps[None]:
        yield Sleep(1_000)

    if kind == "chain":
        register(machine, Client(calls, ns=1_000))
    else:
        insert(machine, Interval(calls, sleeps))
    machine.run(pair(machine))
    assert machine.host.reports == []
    machine.run(pair(machine, blockable=False))
    (report,) = machine.host.reports
    assert (report.kind, report.operation, report.lock) == (Kind.ATOMIC_SLEEP, "test", "non_block_start")


def test_an_end_that_may_not_block_and_sleeps_is_reported(machine: Any, calls: list[str]) -> None:
    class SleepsAtTheEnd(NotifierSubscriber):
        def invalidate_range_end(self, mm: Any, start: int, end: int) -> Steps[None]:
            yield Sleep(1_000)

    register(machine, SleepsAtTheEnd())
    machine.run(pair(machine, blockable=False))
    assert [report.lock for report in machine.host.reports] == ["non_block_start"]


@pytest.mark.parametrize(("era", "expected"), [("v3.7", []), ("v6.12", ["mmu_notifier_invalidate_range_start"])])
def test_start_and_end_might_sleep_without_any_subscriber(make_machine: Any, era: str, expected: list[str]) -> None:
    machine = make_machine(era)

    def under_the_lock() -> Steps[None]:
        yield from machine.mm.page_table_lock.acquire(machine.scheduler.current)
        yield from pair(machine)
        machine.mm.page_table_lock.release(machine.scheduler.current)

    machine.run(under_the_lock())
    assert [report.sleeps_in for report in machine.host.reports] == expected


def test_ranges_nest_and_run_in_parallel(machine: Any, calls: list[str]) -> None:
    """A pair inside a pair of the same thread, and one of another thread that ends in between: count, not toggle."""
    interval = insert(machine, Interval(calls))
    intervals = machine.mm.intervals

    def outer() -> Steps[list[int]]:
        bounds = NotifierRange(machine.mm, BASE, BASE + PAGE, Event.CLEAR, "outer")
        seen = []
        yield from invalidate_range_start(bounds)
        yield 100
        seen.append(intervals.active_invalidate_ranges)
        yield from pair(machine)
        seen.append(intervals.active_invalidate_ranges)
        yield 100
        seen.append(intervals.active_invalidate_ranges)
        yield from invalidate_range_end(bounds)
        return seen

    machine.scheduler.spawn(pair(machine, between=150), "other")
    assert machine.run(outer()) == [2, 2, 1]
    assert intervals.invalidate_seq == 4 and interval.invalidate_seq == 3 and machine.host.reports == []


# Intervals: what a callback may not do --------------------------------------------------------------------------------


def test_remove_from_a_callback_is_reported_and_waits_for_itself(machine: Any, calls: list[str]) -> None:
    insert(machine, Interval(calls, lambda interval: machine.mm.intervals.remove(interval)))
    with pytest.raises(Quiescent, match="deadlock: program waits for mmu_notifier wait queue"):
        machine.run(pair(machine))
    (report,) = machine.host.reports
    assert (report.kind, report.lock) == (Kind.RECURSIVE, "mmu_notifier_invalidate_range_start")
    assert report.stacks[0].names[0] == "mmu_interval_notifier_remove"


@pytest.mark.parametrize("how", ["read_begin", "remove"])
def test_waiting_for_callbacks_with_their_lock_held_is_reported(machine: Any, calls: list[str], how: str) -> None:
    mutex = Mutex(machine.scheduler, "umem_mutex")

    def locks(_: Any) -> Steps[None]:
        yield from mutex.acquire(machine.scheduler.current)
        mutex.release(machine.scheduler.current)

    interval = insert(machine, Interval(calls, locks))

    def waits() -> Steps[None]:
        yield from mutex.acquire(machine.scheduler.current)
        yield from interval.read_begin() if how == "read_begin" else machine.mm.intervals.remove(interval)
        mutex.release(machine.scheduler.current)

    machine.run(pair(machine))
    machine.run(waits())
    (report,) = machine.host.reports
    assert (report.kind, report.lock) == (Kind.CIRCULAR, "mmu_notifier_invalidate_range_start")


def test_a_callback_that_does_not_set_the_sequence_is_reported(machine: Any, calls: list[str]) -> None:
    insert(machine, Interval(calls)).sets = False
    machine.run(pair(machine))
    assert warnings(machine) == ["interval did not set the sequence"]


def test_insert_before_the_deferred_list_is_done_can_be_taken_back(machine: Any, calls: list[str]) -> None:
    insert(machine, Interval(calls))
    late = Interval(calls)

    def during() -> Steps[int]:
        yield 10
        insert(machine, late)
        yield from machine.mm.intervals.remove(late)
        return int(machine.scheduler.clock())

    machine.scheduler.spawn(pair(machine, between=1_000), "invalidation")
    assert machine.run(during()) == 10
    machine.timeline.advance(lambda: False)
    assert late not in list(machine.mm.intervals)


def test_insert_during_an_invalidation_elsewhere_makes_the_sequence_odd(machine: Any, calls: list[str]) -> None:
    late = Interval(calls)

    def during() -> Steps[int]:
        yield 10
        insert(machine, late)
        assert late in list(machine.mm.intervals) and machine.mm.intervals.writing
        yield from late.read_begin()
        return int(machine.scheduler.clock())

    machine.scheduler.spawn(pair(machine, between=1_000), "invalidation")
    assert machine.run(during()) == 1_000


# Young bits -----------------------------------------------------------------------------------------------------------


class Young(NotifierSubscriber):
    """A page is young until somebody clears that."""

    def __init__(self, calls: list[str], name: str, young: bool) -> None:
        self.calls, self.name, self.young = calls, name, young

    def _clear(self, what: str) -> bool:
        self.calls.append(f"{self.name} {what}")
        was, self.young = self.young, False
        return was

    def clear_flush_young(self, mm: Any, address: int) -> bool:
        return self._clear("clear_flush_young")

    def clear_young(self, mm: Any, address: int) -> bool:
        return self._clear("clear_young")

    def test_young(self, mm: Any, address: int) -> bool:
        self.calls.append(f"{self.name} test_young")
        return self.young


@pytest.mark.parametrize("callback", ["clear_flush_young", "clear_young"])
def test_clearing_young_asks_everybody(machine: Any, calls: list[str], callback: str) -> None:
    register(machine, Young(calls, "a", True), Young(calls, "b", True))
    ask = getattr(machine.mm.notifiers, callback)
    assert [machine.run(ask(BASE)), machine.run(ask(BASE))] == [True, False]
    assert calls == [f"b {callback}", f"a {callback}"] * 2


def test_testing_young_stops_at_the_first_yes_and_clears_nothing(machine: Any, calls: list[str]) -> None:
    register(machine, Young(calls, "a", True), Young(calls, "b", True))
    assert machine.run(machine.mm.notifiers.test_young(BASE)) and machine.run(machine.mm.notifiers.test_young(BASE))
    assert calls == ["b test_young"] * 2


@pytest.mark.parametrize("era", ["v3.6", "v3.7", "v6.12"])
def test_reclaim_asks_for_young_bits_under_the_page_table_lock(make_machine: Any, era: str) -> None:
    class Sleepy(NotifierSubscriber):
        def clear_flush_young(self, mm: Any, address: int) -> Steps[bool]:
            yield Sleep(1)
            return True

    machine = make_machine(era)
    register(machine, Sleepy())
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"x"))
    machine.run(machine.host.reclaim.shrink(1))
    assert {report.lock for report in machine.host.reports} == {"page_table_lock"} and machine.frame(at)
