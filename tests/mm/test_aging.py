"""Aging: page_idle, DAMON and MGLRU look at accessed bits and ask the notifier chain, never interval notifiers."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import IntervalNotifier, NotifierRange, NotifierSubscriber
from nicemu.mm.aging import damon_mkold, damon_young, mglru_age, page_idle_get, page_idle_set
from nicemu.mm.rmap import page_referenced
from nicemu.timeline.host import Steps

PAGE = 4096


class SecondaryMmu(NotifierSubscriber):
    """A guest's page table with accessed bits of its own."""

    name = "secondary"

    def __init__(self) -> None:
        self.young: set[int] = set()
        self.calls: list[str] = []
        self.locks: list[str] = []
        self.machine: Any = None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.locks.append(self.machine.mm.page_table_lock.owner is not None)

    def clear_flush_young(self, mm: Any, address: int) -> bool:
        self._note("clear_flush_young")
        return self.clear_bit(address)

    def clear_young(self, mm: Any, address: int) -> bool:
        self._note("clear_young")
        return self.clear_bit(address)

    def test_young(self, mm: Any, address: int) -> bool:
        self._note("test_young")
        return address in self.young

    def clear_bit(self, address: int) -> bool:
        was = address in self.young
        self.young.discard(address)
        return was


class Device(IntervalNotifier):
    name = "device"
    called = 0

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.called += 1
        self.set_seq(cur_seq)
        yield from ()
        return True


@pytest.fixture
def mirrored(machine: Any) -> tuple[Any, int, SecondaryMmu, Device]:
    """Four written pages that a secondary MMU and an on-demand paging device mirror."""
    at = int(machine.run(machine.process.mmap(4 * PAGE)))
    machine.run(machine.process.write(at, b"x" * 4 * PAGE))
    guest, device = SecondaryMmu(), Device()
    guest.machine = machine
    machine.run(machine.mm.notifiers.register(guest))
    machine.mm.intervals.insert(device, at, 4 * PAGE)
    machine.kinds()
    return machine, at, guest, device


def test_an_idle_page_stays_idle_until_the_cpu_uses_it(mirrored: Any) -> None:
    machine, at, _, _ = mirrored
    frame = machine.frame(at)
    machine.run(page_idle_set(machine.host, frame))
    assert machine.run(page_idle_get(machine.host, frame))
    machine.run(machine.process.read(at, 1))
    assert not machine.run(page_idle_get(machine.host, frame))


def test_a_guest_that_uses_it_keeps_it_from_being_idle(mirrored: Any) -> None:
    machine, at, guest, _ = mirrored
    frame = machine.frame(at)
    machine.run(page_idle_set(machine.host, frame))
    guest.young.add(at)
    assert not machine.run(page_idle_get(machine.host, frame)) and guest.calls == ["clear_young"] * 2


def test_reclaim_looking_at_it_does_not_hide_a_use(mirrored: Any) -> None:
    machine, at, _, _ = mirrored
    frame = machine.frame(at)
    machine.run(page_idle_set(machine.host, frame))
    machine.run(machine.process.read(at, 1))
    assert machine.run(page_referenced(machine.host, frame))
    assert not machine.run(page_idle_get(machine.host, frame))


def test_damon_sees_use_of_cpu_and_guest(mirrored: Any) -> None:
    machine, at, guest, _ = mirrored
    machine.run(damon_mkold(machine.mm, at))
    assert not machine.run(damon_young(machine.mm, at))
    guest.young.add(at)
    assert machine.run(damon_young(machine.mm, at)) and at in guest.young
    guest.young.clear()
    machine.run(machine.process.read(at, 1))
    assert machine.run(damon_young(machine.mm, at))


def test_mglru_makes_used_pages_young(mirrored: Any) -> None:
    machine, at, guest, _ = mirrored
    machine.run(mglru_age(machine.mm, at, at + 4 * PAGE))
    machine.run(machine.process.read(at, 1))
    assert machine.run(mglru_age(machine.mm, at, at + 4 * PAGE)) == 1 and guest.calls == []
    machine.run(machine.host.reclaim.shrink(3))
    assert machine.frame(at) and not any(machine.frame(at + page * PAGE) for page in (1, 2, 3))


def test_young_callbacks_run_under_the_page_table_lock_and_never_reach_interval_notifiers(mirrored: Any) -> None:
    machine, at, guest, device = mirrored
    frame = machine.frame(at)
    for steps in (page_idle_set(machine.host, frame), page_idle_get(machine.host, frame),
                  damon_mkold(machine.mm, at), damon_young(machine.mm, at), page_referenced(machine.host, frame),
                  mglru_age(machine.mm, at, at + PAGE)):  # fmt: skip
        machine.run(steps)
    assert guest.calls and all(guest.locks) and set(guest.calls) == {"clear_young", "test_young", "clear_flush_young"}
    assert device.called == 0 and machine.kinds() == []


def test_what_only_a_device_uses_looks_idle(mirrored: Any) -> None:
    """The device's translation was made before; its accesses set no bit."""
    machine, at, _, _ = mirrored
    frame = int(machine.run(machine.mm.fault_in(at, 1, True))[0]) >> 1
    machine.run(page_idle_set(machine.host, frame))
    assert machine.frames.bytes_of(frame)[0] == ord("x")  # the device reads
    assert machine.run(page_idle_get(machine.host, frame))
