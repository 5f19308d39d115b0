"""Subscribers that say what is called, and one invalidation, for the tests of the notifier API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicemu.mm import Event, IntervalNotifier, NotifierRange, NotifierSubscriber
from nicemu.mm.lock_report import Kind
from nicemu.mm.notifier import invalidate_range_end, invalidate_range_start
from nicemu.timeline.host import Sleep, Steps

PAGE, BASE = 4096, 1 << 40


class Client(NotifierSubscriber):
    """Says what is called; ``refuses`` a start that may not block; sleeps ``ns`` in each callback."""

    def __init__(self, calls: list[str], name: str = "client", refuses: bool = False, ns: int = 0) -> None:
        self.calls, self.name, self.refuses, self.ns = calls, name, refuses, ns

    def _say(self, what: str) -> Steps[None]:
        self.calls.append(f"{self.name} {what}")
        if self.ns:
            yield Sleep(self.ns)

    def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
        yield from self._say("start")
        return not self.refuses

    def release(self, mm: Any) -> Steps[None]:
        yield from self._say("release")


class Paired(Client):
    """With an end."""

    def invalidate_range_end(self, mm: Any, start: int, end: int) -> Steps[None]:
        yield from self._say("end")


class Interval(IntervalNotifier):
    """An interval that says what is called, and does ``work(self)`` in its callback."""

    def __init__(self, calls: list[str], work: Callable[[Any], Steps[None]] | None = None) -> None:
        self.calls, self.work, self.refuses, self.sets = calls, work, False, True

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.calls.append(f"interval {range.event.name}")
        if self.refuses:
            return False
        if self.sets:
            self.set_seq(cur_seq)
        if self.work is not None:
            yield from self.work(self)
        return True


def register(machine: Any, *clients: NotifierSubscriber) -> None:
    for client in clients:
        machine.run(machine.mm.notifiers.register(client))


def insert(machine: Any, interval: Interval) -> Interval:
    machine.mm.intervals.insert(interval, BASE, PAGE)
    return interval


def pair(machine: Any, blockable: bool = True, between: int = 0) -> Steps[bool]:
    """One invalidation of the page."""
    machine.scheduler.current.context.append("test")
    bounds = NotifierRange(machine.mm, BASE, BASE + PAGE, Event.CLEAR, "test", blockable)
    ok = yield from invalidate_range_start(bounds)
    if ok:
        yield between
        yield from invalidate_range_end(bounds)
    return ok


def warnings(machine: Any) -> list[str]:
    assert all(report.kind == Kind.WARNING for report in machine.host.reports)
    return [report.text for report in machine.host.reports]
