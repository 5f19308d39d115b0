"""A subscriber that sleeps is reported, per era, with the lock that is held where it is called (odp.md 1.2-1.5)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import IntervalNotifier, NotifierRange, NotifierSubscriber
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096
RANGE_OPERATIONS = {"munmap", "dontneed", "mprotect", "mremap", "fork", "exit"}
PAGE_OPERATIONS = {"cow", "reclaim"}


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


def every_operation(machine: Any) -> set[tuple[str, str]]:
    """Run each operation once on memory that a sleeping subscriber mirrors; (operation, lock) of the reports."""
    process, mm = machine.process, machine.mm
    machine.run(mm.notifiers.register(Sleeper()))
    at = machine.run(process.mmap(16 * PAGE))
    if machine.host.discipline.interval:
        mm.intervals.insert(SleepingInterval(), at, 64 * PAGE)
    machine.run(process.write(at, b"x" * 16 * PAGE))
    child = machine.run(process.fork())
    machine.run(process.write(at, b"y"))  # breaks COW
    machine.run(machine.host.reclaim.evict(mm, at))
    machine.run(process.madvise(at + PAGE, PAGE, 4))
    machine.run(process.mprotect(at + 2 * PAGE, PAGE, 1))
    other = machine.run(process.mmap(PAGE))  # in the way of growing
    moved = machine.run(process.mremap(at + 4 * PAGE, 12 * PAGE, 20 * PAGE))
    machine.run(process.munmap(moved, 20 * PAGE))
    machine.run(child.exit())
    machine.run(process.exit())
    assert other and all(report.subscriber == "sleeper" for report in machine.host.reports)
    return {(report.operation, report.lock) for report in machine.host.reports}


def under(lock: str, operations: set[str]) -> set[tuple[str, str]]:
    return {(operation, lock) for operation in operations}


@pytest.mark.parametrize(
    ("era", "expected"),
    [
        ("v3.6", under("rcu_read_lock", RANGE_OPERATIONS) | under("page_table_lock", PAGE_OPERATIONS)),
        ("v3.6+srcu", under("page_table_lock", PAGE_OPERATIONS)),
        ("v3.7-seed", under("page_table_lock", {"cow"})),
        ("v3.7", set()),
        ("v6.12", set()),
    ],
)
def test_reports_of_each_era(make_machine: Any, era: str, expected: set[tuple[str, str]]) -> None:
    assert every_operation(make_machine(era)) == expected


def test_report_says_what_happened(make_machine: Any) -> None:
    machine = make_machine("v3.6")
    every_operation(machine)
    report = next(report for report in machine.host.reports if report.operation == "cow")
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


def test_seed_hole_is_closed_for_a_client_with_change_pte(make_machine: Any) -> None:
    class Kvm(Sleeper):
        changed = 0

        def change_pte(self, mm: Any, address: int, pte: int) -> None:
            Kvm.changed += 1

    machine = make_machine("v3.7-seed")
    machine.run(machine.mm.notifiers.register(Kvm()))
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"x"))
    machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"y"))
    assert Kvm.changed == 1 and not machine.host.reports


def test_interval_notifiers_do_not_exist_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    with pytest.raises(RuntimeError, match=r"v3\.7 has no interval notifiers"):
        machine.mm.intervals.insert(SleepingInterval(), PAGE, PAGE)


def test_unknown_discipline_is_named(make_machine: Any) -> None:
    with pytest.raises(ValueError, match=r"'v9' is unknown: one of v3\.6, "):
        make_machine("v9")
