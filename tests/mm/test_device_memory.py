"""Pages that a device uses alone: device-private memory, device-exclusive access (``migrate_device.c``)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import IntervalNotifier, NotifierRange
from nicemu.mm.device_memory import device_frame, make_device_exclusive, migrate_vma
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.notifier import Event
from nicemu.mm.page import PG_DEVICE_PRIVATE
from nicemu.timeline.host import Steps

PAGE = 4096


class Owner(IntervalNotifier):
    """A device's driver: skips what it asked for itself."""

    name = "owner"

    def __init__(self) -> None:
        self.zapped: list[Event] = []
        self.skipped: list[Event] = []

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.set_seq(cur_seq)
        (self.skipped if range.owner is self else self.zapped).append(range.event)
        yield from ()
        return True


def written(machine: Any, pages: int = 4) -> int:
    at = int(machine.run(machine.process.mmap(pages * PAGE)))
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, b"page %d" % page))
    machine.kinds()
    return at


@pytest.fixture
def in_device(machine: Any) -> tuple[Any, int, Owner]:
    """Four pages in a device's memory, and its driver."""
    at, owner = written(machine), Owner()
    machine.mm.intervals.insert(owner, at, 4 * PAGE)
    assert machine.run(migrate_vma(machine.mm, at, at + 4 * PAGE, owner)) == 4
    return machine, at, owner


def test_the_bytes_are_in_the_device(in_device: tuple[Any, int, Owner]) -> None:
    machine, at, _ = in_device
    for page in range(4):
        frame = device_frame(machine.mm, at + page * PAGE)
        assert frame and not machine.frame(at + page * PAGE)
        assert machine.host.pages.flags[frame] & PG_DEVICE_PRIVATE
        assert machine.frames.bytes_of(frame)[:6].tobytes() == b"page %d" % page
    machine.check_counts()


def test_the_owner_skips_the_collection(in_device: tuple[Any, int, Owner]) -> None:
    _, _, owner = in_device
    assert owner.skipped == [Event.MIGRATE] and owner.zapped == []


def test_another_subscriber_does_not(machine: Any) -> None:
    at, owner, other = written(machine), Owner(), Owner()
    machine.mm.intervals.insert(other, at, PAGE)
    machine.run(migrate_vma(machine.mm, at, at + PAGE, owner))
    assert other.zapped == [Event.MIGRATE]


def test_order(machine: Any) -> None:
    """All is collected in one notifier range; then each page moves, already unmapped."""
    at = written(machine, 2)
    machine.run(migrate_vma(machine.mm, at, at + 2 * PAGE, None))
    move = ["migrate", "migrated", "free"]
    assert machine.kinds() == ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", *move, *move]


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_touch_of_the_cpu_brings_it_back(in_device: tuple[Any, int, Owner], write: bool) -> None:
    machine, at, owner = in_device
    frame = device_frame(machine.mm, at)
    if write:
        machine.run(machine.process.write(at + 4, b"!"))
    assert machine.run(machine.process.read(at, 6)) == (b"page!0" if write else b"page 0")
    assert machine.frame(at) not in (0, frame) and owner.zapped == [Event.CLEAR]
    assert not device_frame(machine.mm, at) and device_frame(machine.mm, at + PAGE)
    machine.check_counts()


def test_another_device_brings_all_back(in_device: tuple[Any, int, Owner]) -> None:
    machine, at, _ = in_device
    machine.run(machine.mm.fault_in(at, 4, True))
    assert [machine.run(machine.process.read(at + page * PAGE, 6)) for page in range(4)] == [
        b"page %d" % page for page in range(4)
    ]
    machine.check_counts()


def test_two_threads_touch_it_at_once(in_device: tuple[Any, int, Owner]) -> None:
    machine, at, _ = in_device
    threads = [machine.scheduler.spawn(machine.process.read(at, 6), f"reader {i}", delay=150 * i) for i in range(6)]
    machine.timeline.advance(lambda: all(thread.finished for thread in threads))
    assert {thread.result for thread in threads} == {b"page 0"}
    machine.check_counts()


def test_reclaim_leaves_the_device_its_pages(in_device: tuple[Any, int, Owner]) -> None:
    machine, _, _ = in_device
    assert machine.run(machine.host.reclaim.shrink(4)) == 0


def test_a_child_shares_them(in_device: tuple[Any, int, Owner]) -> None:
    machine, at, _ = in_device
    child = machine.run(machine.process.fork())
    machine.check_counts(machine.mm, child.mm)
    machine.run(machine.process.write(at, b"mine"))
    assert machine.run(child.read(at, 6)) == b"page 0"
    machine.check_counts(machine.mm, child.mm)


def test_munmap_frees_them(in_device: tuple[Any, int, Owner]) -> None:
    machine, at, _ = in_device
    machine.run(machine.process.munmap(at, 4 * PAGE))
    assert machine.frames.allocated == 0


def test_pinned_and_shared_pages_stay(machine: Any) -> None:
    at = written(machine)
    machine.run(machine.mm.pin(at, 1, True))
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at + PAGE, b"mine"))
    assert machine.run(migrate_vma(machine.mm, at, at + 4 * PAGE, None)) == 1
    assert device_frame(machine.mm, at + PAGE)
    machine.check_counts(machine.mm, child.mm)


def test_without_memory_the_pages_stay(make_machine: Any) -> None:
    machine = make_machine(ram=8, swap=0)
    at = written(machine, 8)
    assert machine.run(migrate_vma(machine.mm, at, at + 8 * PAGE, None)) == 0
    assert [machine.run(machine.process.read(at + page * PAGE, 6)) for page in range(8)] == [
        b"page %d" % page for page in range(8)
    ]
    assert not machine.host.migrations
    machine.check_counts()


def test_a_write_during_the_migration_waits(machine: Any) -> None:
    at = written(machine, 1)
    for delay in range(0, 3000, 101):
        moving = machine.scheduler.spawn(migrate_vma(machine.mm, at, at + PAGE, None), "migrate")
        writing = machine.scheduler.spawn(machine.process.write(at, b"%04d" % delay), "writer", delay=delay)
        machine.timeline.advance(lambda a=moving, b=writing: a.finished and b.finished)
        assert moving.finished and writing.finished, machine.timeline.who_waits()
        assert machine.run(machine.process.read(at, 4)) == b"%04d" % delay
        machine.check_counts()


# Exclusive access


@pytest.fixture
def exclusive(machine: Any) -> tuple[Any, int, Owner]:
    """A page that only the device may use."""
    at, owner = written(machine), Owner()
    machine.mm.intervals.insert(owner, at, 4 * PAGE)
    assert machine.run(make_device_exclusive(machine.mm, at, owner))
    return machine, at, owner


def test_the_frame_stays_and_only_the_device_has_it(exclusive: tuple[Any, int, Owner]) -> None:
    machine, at, owner = exclusive
    assert device_frame(machine.mm, at) and not machine.frame(at) and owner.skipped == [Event.EXCLUSIVE]
    machine.check_counts()


def test_a_touch_ends_it_and_tells_the_device(exclusive: tuple[Any, int, Owner]) -> None:
    machine, at, owner = exclusive
    frame = device_frame(machine.mm, at)
    assert machine.run(machine.process.read(at, 6)) == b"page 0"
    assert machine.frame(at) == frame and owner.zapped == [Event.EXCLUSIVE]
    machine.check_counts()


def test_exclusive_order(machine: Any) -> None:
    at = written(machine)
    machine.run(make_device_exclusive(machine.mm, at, None))
    order = ["notifier_start", "pte_clear", "tlb_flush", "pte_set", "notifier_end"]
    assert machine.kinds() == order
    machine.run(machine.process.read(at, 1))
    assert machine.kinds() == order


def test_fork_ends_it(exclusive: tuple[Any, int, Owner]) -> None:
    machine, at, _ = exclusive
    child = machine.run(machine.process.fork())
    assert machine.frame(at) and not device_frame(child.mm, at)
    assert machine.run(child.read(at, 6)) == b"page 0"
    machine.check_counts(machine.mm, child.mm)


def test_reclaim_may_take_it(exclusive: tuple[Any, int, Owner]) -> None:
    machine, at, _ = exclusive
    assert machine.run(machine.host.reclaim.shrink(4)) == 4
    assert machine.run(machine.process.read(at, 6)) == b"page 0"
    machine.check_counts()


@pytest.mark.parametrize("operation", ["private", "exclusive"])
def test_devices_are_not_in_3x(make_machine: Any, operation: str) -> None:
    machine = make_machine("v3.7")
    at = written(machine)
    private = operation == "private"
    with pytest.raises(NotInThisKernel):
        machine.run(migrate_vma(machine.mm, at, at + PAGE, None) if private
                    else make_device_exclusive(machine.mm, at, None))  # fmt: skip
    assert machine.kinds() == []
