"""A subscriber that sleeps is reported; what an era has and has not got. Where each call site is: odp.md 1.2-1.5,
``test_notifier_orders.py``."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import IntervalNotifier, NotifierRange, NotifierSubscriber
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096


class Sleeper(NotifierSubscriber):
    """A driver that waits for its device, as the 2014 RDMA driver does: no change_pte."""

    name = "sleeper"

    def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
        yield Sleep(1000)
        return True

    def invalidate_page(self, mm: Any, address: int) -> Steps[None]:
        yield Sleep(1000)

    def release(self, mm: Any) -> Steps[None]:
        yield Sleep(1000)


class SleepingInterval(IntervalNotifier):
    name = "sleeper"

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        yield Sleep(1000)
        self.set_seq(cur_seq)
        return True


def test_report_says_what_happened(make_machine: Any) -> None:
    machine = make_machine("v3.6")
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.read(at, 1))
    machine.run(machine.process.write(at, b"y"))
    (report,) = machine.host.reports
    assert str(report).startswith(
        "BUG: sleeping function called from invalid context: sleeper sleeps in sleep during cow, "
        "page_table_lock held (fault > cow > notifier:sleeper"
    )


def test_repeated_sleeps_are_counted(make_machine: Any) -> None:
    machine = make_machine("v3.6")
    machine.run(machine.mm.notifiers.register(Sleeper()))
    at = machine.run(machine.process.mmap(PAGE))
    for _ in range(3):
        machine.run(machine.process.madvise(at, PAGE, 4))
    assert [(report.operation, report.count) for report in machine.host.reports] == [("dontneed", 3)]


def test_interval_notifiers_do_not_exist_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    with pytest.raises(RuntimeError, match=r"v3\.7 has no interval notifiers"):
        machine.mm.intervals.insert(SleepingInterval(), PAGE, PAGE)


def test_unknown_discipline_is_named(make_machine: Any) -> None:
    with pytest.raises(ValueError, match=r"'v9' is unknown: one of v3\.6, "):
        make_machine("v9")
