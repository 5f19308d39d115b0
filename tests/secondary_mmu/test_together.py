"""Several subscribers at once: KVM, XPMEM and an RDMA-like mirror, and what each era reports of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nicemu.mm import Event, Fault, NotifierRange
from nicemu.mm.notifier import invalidate_range_end, invalidate_range_start
from nicemu.secondary_mmu import Kvm, Stale, Xpmem
from nicemu.timeline.host import Steps
from tests.mm.test_interleavings import PAGES, ChainMirror, IntervalMirror, RandomChooser, program

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
DONTNEED = 4


@pytest.fixture
def exported(machine: Any) -> tuple[Xpmem, int]:
    """An XPMEM client whose pages are all in use elsewhere, and their address."""
    return export(machine)


def export(machine: Any) -> tuple[Xpmem, int]:
    xpmem = Xpmem(machine.mm)
    machine.run(machine.mm.notifiers.register(xpmem))
    at = machine.run(machine.process.mmap(4 * PAGE))
    for page in range(4):
        machine.run(xpmem.access(at + page * PAGE, True))
    return xpmem, at


# XPMEM ----------------------------------------------------------------------------------------------------------------


def test_xpmem_recalls_what_is_zapped_and_sleeps_for_it(machine: Any, exported: tuple[Xpmem, int]) -> None:
    xpmem, at = exported
    began = machine.scheduler.clock()
    machine.run(machine.process.madvise(at, 2 * PAGE, DONTNEED))
    assert sorted(page - at // PAGE for page in xpmem.pages) == [2, 3]
    assert machine.scheduler.clock() - began >= 4 * xpmem.recall_ns and xpmem.check(settled=True) == []


def test_an_access_waits_for_the_end_of_the_range(machine: Any, exported: tuple[Xpmem, int]) -> None:
    xpmem, at = exported

    def range_in_progress() -> Steps[None]:
        bounds = NotifierRange(machine.mm, at, at + PAGE, Event.CLEAR, "test")
        yield from invalidate_range_start(bounds)
        yield 100_000
        yield from invalidate_range_end(bounds)

    def accesses() -> Steps[int]:
        yield 50_000
        yield from xpmem.access(at, False)
        return int(machine.scheduler.clock())

    machine.scheduler.spawn(range_in_progress(), "invalidation")
    began = machine.scheduler.clock()
    assert machine.run(accesses()) - began > 100_000 and machine.host.reports == []


def test_xpmem_spins_where_nobody_may_block(machine: Any, exported: tuple[Xpmem, int]) -> None:
    xpmem, at = exported

    def reap() -> Steps[bool]:
        bounds = NotifierRange(machine.mm, at, at + PAGE, Event.UNMAP, "oom_reap", blockable=False)
        ok = yield from invalidate_range_start(bounds)
        yield from invalidate_range_end(bounds)
        return ok

    assert machine.run(reap()) and len(xpmem.pages) == 3 and machine.host.reports == []


RANGES = {(name, "rcu_read_lock") for name in ("fork", "dontneed", "exit")}
LOCKED = {(name, "page_table_lock") for name in ("cow", "reclaim")}


@pytest.mark.parametrize(
    ("era", "expected"),
    [
        ("v3.6", RANGES | LOCKED), ("v3.6+srcu", LOCKED), ("v3.7-seed", {("cow", "page_table_lock")}),
        ("v3.7", set()), ("v6.12", set()),
    ],
)  # fmt: skip
def test_xpmem_may_subscribe_since_the_seed_series(make_machine: Any, era: str, expected: Any) -> None:
    machine = make_machine(era)
    xpmem, at = export(machine)
    child = machine.run(machine.process.fork())
    machine.run(machine.process.write(at, b"y"))
    machine.run(machine.host.reclaim.evict(machine.mm, at))
    machine.run(machine.process.madvise(at + PAGE, PAGE, DONTNEED))
    machine.run(child.exit())
    machine.run(machine.process.exit())
    assert xpmem.pages == {} and {(report.operation, report.lock) for report in machine.host.reports} == expected


# Together -------------------------------------------------------------------------------------------------------------


def accesses(mmu: Any, at: int, draw: random.Random, times: int) -> Steps[None]:
    """A guest, or another partition."""
    for _ in range(times):
        try:
            yield from mmu.access(at + draw.randrange(PAGES) * PAGE, draw.random() < 0.5)
        except Fault:
            yield 1_000
        yield draw.randrange(2_000)


def mirror_of(machine: Any, at: int) -> Any:
    if machine.host.discipline.interval:
        mirror: Any = IntervalMirror(machine, at)
        machine.mm.intervals.insert(mirror, at, PAGES * PAGE)
    else:
        mirror = ChainMirror(machine, at)
        machine.run(machine.mm.notifiers.register(mirror))
    return mirror


SLEEPS = {"v3.6": {"rcu_read_lock", "page_table_lock"}, "v3.6+srcu": {"page_table_lock"},
          "v3.7-seed": {"page_table_lock"}}  # fmt: skip


def run_together(machine: Any, seed: int, mmus: list[Any]) -> tuple[list[Stale], list[Any], Any]:
    """Everybody works on one mapping in a random order until something is stale; (what, children, mirror)."""
    machine.scheduler.chooser = RandomChooser(seed)
    at = machine.run(machine.process.mmap(PAGES * PAGE))
    mirror = mirror_of(machine, at)
    for mmu in mmus:
        machine.run(machine.mm.notifiers.register(mmu))
    children: list[Any] = []
    draws = [random.Random(seed * 10 + number) for number in range(4)]
    work = [mirror.faults(draws[0], 30), *(accesses(mmu, at, draws[1], 40) for mmu in mmus)]
    work += [program(machine, at, draw, 20, children) for draw in draws[2:]]
    threads = [machine.scheduler.spawn(steps, f"worker {number}") for number, steps in enumerate(work)]
    found: list[Stale] = []

    def look() -> bool:
        for mmu in mmus:
            found.extend(mmu.check())
        return bool(found)

    machine.timeline.advance(look)
    assert found or all(thread.finished for thread in threads), machine.timeline.who_waits()
    return found, children, mirror


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("era", ERAS)
def test_nobody_has_a_stale_translation_at_any_moment(make_machine: Any, era: str, seed: int) -> None:
    machine = make_machine(era, ram=40, swap=4096)
    mmus: list[Any] = [Kvm(machine.mm), Xpmem(machine.mm)]
    found, children, mirror = run_together(machine, seed, mmus)
    assert found == [] and [mmu.check(settled=True) for mmu in mmus] == [[], []]
    mirror.check()
    assert {report.lock for report in machine.host.reports} <= SLEEPS.get(era, set())
    assert all(report.subscriber != "kvm" for report in machine.host.reports)
    for process in (*children, machine.process):
        machine.run(process.exit())
    assert not mmus[0].sptes and not mmus[1].pages
