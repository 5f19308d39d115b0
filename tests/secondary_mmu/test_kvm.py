"""The KVM-like secondary MMU: retry, change_pte, young bits, and a lock that sleeps or does not."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.mm import Event, Fault, Mutex, NotifierRange
from nicemu.mm.locks import SpinLock
from nicemu.mm.notifier import invalidate_range_end, invalidate_range_start
from nicemu.mm.page_table import ACCESSED, PRESENT, WRITE, pte
from nicemu.secondary_mmu import Kvm
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
DONTNEED = 4


def guest(machine: Any, pages: int = 4, mmu_lock: type[Mutex] = SpinLock) -> tuple[Kvm, int]:
    """A virtual machine that has accessed its pages, and their address."""
    kvm = Kvm(machine.mm, mmu_lock)
    machine.run(machine.mm.notifiers.register(kvm))
    at = machine.run(machine.process.mmap(pages * PAGE))
    for page in range(pages):
        machine.run(kvm.access(at + page * PAGE, True))
    return kvm, at


def frames(machine: Any, kvm: Kvm, at: int, pages: int = 4) -> list[bool]:
    """Which of the pages have an spte; each is what the page table says."""
    assert kvm.check(settled=True) == []
    return [at // PAGE + page in kvm.sptes for page in range(pages)]


def test_the_guest_reaches_what_the_program_has(machine: Any) -> None:
    kvm, at = guest(machine)
    assert machine.run(kvm.access(at, False)) == machine.frame(at)
    assert machine.run(kvm.access(at, True)) == machine.frame(at)


def test_a_write_to_a_page_shared_after_fork_breaks_cow(machine: Any) -> None:
    kvm, at = guest(machine)
    before = machine.frame(at)
    machine.run(machine.process.fork())
    assert kvm.sptes == {}
    assert machine.run(kvm.access(at, False)) == before
    assert machine.run(kvm.access(at, True)) == machine.frame(at) != before


def test_the_guest_has_no_page_that_the_program_has_not(machine: Any) -> None:
    kvm, at = guest(machine)
    machine.run(machine.process.munmap(at, 4 * PAGE))
    with pytest.raises(Fault):
        machine.run(kvm.access(at, True))


@pytest.mark.parametrize("era", ERAS)
def test_what_is_zapped_is_unmapped_and_nothing_else(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    kvm, at = guest(machine)
    machine.run(machine.process.madvise(at + PAGE, PAGE, DONTNEED))
    machine.run(machine.host.reclaim.evict(machine.mm, at + 3 * PAGE))
    assert frames(machine, kvm, at) == [True, False, True, False]


@pytest.mark.parametrize(("era", "waits"), [("v3.7", True), ("v6.12", False)])
def test_a_range_elsewhere_delays_a_fault_in_3x_only(make_machine: Any, era: str, waits: bool) -> None:
    machine = make_machine(era)
    kvm, at = guest(machine)

    def elsewhere() -> Steps[None]:
        bounds = NotifierRange(machine.mm, at + PAGE, at + 2 * PAGE, Event.CLEAR, "test")
        yield from invalidate_range_start(bounds)
        yield 50_000
        yield from invalidate_range_end(bounds)

    def faults() -> Steps[int]:
        yield 1_000
        began = machine.scheduler.clock()
        yield from kvm.page_fault(at, False)
        return int(machine.scheduler.clock() - began)

    machine.scheduler.spawn(elsewhere(), "invalidation")
    assert (machine.run(faults()) > 40_000) == waits and kvm.retries == waits


def test_a_fault_that_meets_an_invalidation_starts_over(machine: Any) -> None:
    kvm, at = guest(machine)
    machine.run(machine.process.madvise(at, PAGE, DONTNEED))

    def meanwhile() -> Steps[None]:
        yield machine.host.costs.fault_ns + 10  # mapped for the guest, not yet in its table
        bounds = NotifierRange(machine.mm, at, at + PAGE, Event.CLEAR, "test")
        yield from invalidate_range_start(bounds)
        yield Sleep(10_000)
        yield from invalidate_range_end(bounds)

    machine.scheduler.spawn(meanwhile(), "invalidation")
    machine.run(kvm.access(at, True))
    assert kvm.retries > 0 and machine.scheduler.clock() > 10_000
    assert kvm.check(settled=True) == []


@pytest.mark.parametrize("era", ["v3.7", "v6.12"])
@pytest.mark.parametrize("looks", [True, False])
def test_check_finds_the_page_of_a_guest_that_does_not_look_at_the_sequence(
    make_machine: Any, era: str, looks: bool
) -> None:
    """The callback is first in the queue for mmu_lock, the fault, frame in hand, is second."""
    machine = make_machine(era)
    kvm, at = guest(machine)
    if not looks:
        kvm.mmu_retry = lambda seq, address: False  # type: ignore[method-assign]

    def holds_the_lock() -> Steps[None]:
        yield from kvm.mmu_lock.acquire(machine.scheduler.current)
        yield 20_000
        kvm.mmu_lock.release(machine.scheduler.current)

    machine.scheduler.spawn(holds_the_lock(), "other virtual CPU")
    machine.scheduler.spawn(machine.process.madvise(at, PAGE, DONTNEED), "madvise", delay=1)
    machine.scheduler.spawn(kvm.page_fault(at, False), "virtual CPU", delay=2)
    machine.timeline.advance(lambda: False)
    assert [(item.page, item.why) for item in kvm.check()] == ([] if looks else [(at // PAGE, "freed")])
    assert kvm.retries == looks


@pytest.mark.parametrize("writable", [True, False])
def test_change_pte_drops_a_writable_page_and_replaces_a_read_only_one(make_machine: Any, writable: bool) -> None:
    machine = make_machine("v3.7-seed")
    kvm, at = guest(machine)
    entry = pte(machine.frame(at + PAGE), PRESENT | (WRITE if writable else 0))
    machine.run(machine.mm.notifiers.change_pte(at, entry, True))
    spte = kvm.sptes.get(at // PAGE)
    assert (spte is None) if writable else (spte.frame == machine.frame(at + PAGE) and not spte.writable)


def test_young_bits_of_the_guest_keep_a_page(machine: Any) -> None:
    """Reclaim takes the page that the guest left alone."""
    kvm, at = guest(machine, pages=2)
    mm, notifiers = machine.mm, machine.mm.notifiers
    for address in (at, at + PAGE):
        assert machine.run(notifiers.test_young(address)) and machine.run(notifiers.clear_flush_young(address))
        assert not machine.run(notifiers.test_young(address))
        mm.page_table.set(address // PAGE, mm.page_table.get(address // PAGE) & ~ACCESSED)
    machine.run(kvm.access(at, False))
    assert machine.run(notifiers.test_young(at)) and not machine.run(notifiers.clear_young(at + PAGE))
    machine.run(machine.host.reclaim.shrink(1))
    assert machine.frame(at) and not machine.frame(at + PAGE)


def everything(machine: Any, kvm: Kvm, at: int) -> set[tuple[str, str]]:
    """(operation, lock) of the reports of each operation on the guest's memory."""
    process = machine.process
    child = machine.run(process.fork())
    machine.run(process.write(at, b"y"))
    machine.run(machine.host.reclaim.shrink(1))
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.run(process.madvise(at + PAGE, PAGE, DONTNEED))
    machine.run(process.mprotect(at + 2 * PAGE, PAGE, 1))
    machine.run(process.munmap(at, 4 * PAGE))
    machine.run(child.exit())
    machine.run(process.exit())
    assert kvm.sptes == {}
    return {(report.operation, report.lock) for report in machine.host.reports}


@pytest.mark.parametrize("era", ERAS)
def test_with_a_spinlock_no_callback_sleeps_in_any_era(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    kvm, at = guest(machine)
    assert everything(machine, kvm, at) == set()


RANGES = {(name, "rcu_read_lock") for name in ("fork", "dontneed", "mprotect", "munmap", "exit")}
PAGES = {(name, "page_table_lock") for name in ("cow", "reclaim")}


@pytest.mark.parametrize(
    ("era", "expected"),
    [
        ("v3.6", RANGES | PAGES),
        ("v3.6+srcu", PAGES),
        ("v3.7-seed", {("cow", "page_table_lock")}),
        ("v3.7", {("cow", "page_table_lock")}),  # change_pte stays under the lock
        ("v6.12", set()),
    ],
)
def test_with_a_mutex_it_is_what_the_seed_series_allows(make_machine: Any, era: str, expected: Any) -> None:
    machine = make_machine(era)
    kvm, at = guest(machine, mmu_lock=Mutex)
    assert everything(machine, kvm, at) == expected | {("", "page_table_lock")}  # young bits, in every era


def test_check_names_what_is_stale(machine: Any) -> None:
    kvm, at = guest(machine)
    machine.mm.notifiers.subscribers.clear()  # nobody tells it any more
    machine.run(machine.process.madvise(at, PAGE, DONTNEED))
    machine.run(machine.process.mprotect(at + PAGE, PAGE, 1))
    assert [(item.page - at // PAGE, item.why, item.operation) for item in kvm.check()] == [
        (0, "freed", "dontneed"), (1, "write-protected", "mprotect"),
    ]  # fmt: skip


@pytest.mark.parametrize("mmu_lock", [SpinLock, Mutex])
def test_a_range_that_may_not_block_makes_nobody_sleep(machine: Any, mmu_lock: type[Mutex]) -> None:
    kvm, at = guest(machine, mmu_lock=mmu_lock)

    def reap() -> Steps[bool]:
        bounds = NotifierRange(machine.mm, at, at + PAGE, Event.UNMAP, "oom_reap", blockable=False)
        ok = yield from invalidate_range_start(bounds)
        yield from invalidate_range_end(bounds)
        return ok

    assert machine.run(reap()) and frames(machine, kvm, at) == [False, True, True, True]
    assert machine.host.reports == []
