"""Huge pages under operations that run at the same time, in seeded random order, with a device that holds translations.

As ``test_interleavings``; the device looks at pages on both sides of the border between two huge pages.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from nicemu.mm.khugepaged import khugepaged_scan
from nicemu.mm.migrate import migrate_page
from nicemu.timeline.host import Steps
from tests.mm.huge_machines import ERAS, HUGE_SIZE, MADV_COLLAPSE, MAP_HUGETLB, PAGE, aligned, is_huge
from tests.mm.huge_machines import PAGES as HUGE_PAGES
from tests.mm.test_interleavings import PAGES, ChainMirror, IntervalMirror, RandomChooser

LOCKS = {"v3.6": {"rcu_read_lock", "page_table_lock"}, "v3.6+srcu": {"page_table_lock"},
         "v3.7-seed": {"page_table_lock"}}  # fmt: skip
WINDOW = (HUGE_PAGES - PAGES // 2) * PAGE
"""Where the pages that the device and the programs use begin, from the first of two huge pages on."""


def mirror_of(machine: Any, base: int) -> Any:
    if machine.host.discipline.interval:
        mirror: Any = IntervalMirror(machine, base)
        machine.mm.intervals.insert(mirror, base, PAGES * PAGE)
    else:
        mirror = ChainMirror(machine, base)
        machine.run(machine.mm.notifiers.register(mirror))
    return mirror


def no_stamp_is_missed(mirror: Any) -> None:
    """At any moment: what the device holds was neither freed nor stamped since it was stored."""
    for page, (frame, generation, stamp, write) in mirror.held.items():
        row, stamps = mirror.machine.world.frame[frame], mirror.machine.world.frame_stamp[frame]
        where = f"page {page}, frame {frame}, taken by {mirror.machine.frames.operation_name(stamps.operation)}"
        assert row.generation == generation, f"freed: {where}"
        assert stamp >= max(stamps.invalidated, stamps.protected if write else 0), f"stale: {where}"


class Program:
    """One thread. It alone writes the pages of its parity, and knows what they hold."""

    def __init__(self, machine: Any, at: int, draw: random.Random, parity: int, mirror: Any,
                 children: list[Any]) -> None:  # fmt: skip
        self.machine, self.at, self.draw, self.parity = machine, at, draw, parity
        self.children, self.mirror = children, mirror
        self.pages: dict[int, bytes] = {}

    def run(self, operations: tuple[str, ...], times: int) -> Steps[None]:
        for _ in range(times):
            page = self.draw.randrange(PAGES // 2) * 2 + self.parity
            half = self.at + self.draw.randrange(2) * HUGE_SIZE
            try:
                yield from getattr(self, self.draw.choice(operations))(page, half)
            except OSError as error:
                assert "out of memory" not in str(error)  # protected or unmapped by the other thread, or SIGBUS
            yield self.draw.randrange(3000)
            no_stamp_is_missed(self.mirror)

    def where(self, page: int) -> int:
        return self.at + WINDOW + page * PAGE

    def write(self, page: int, half: int) -> Steps[None]:
        data = self.draw.randbytes(16)
        yield from self.machine.process.write(self.where(page), data)
        self.pages[page] = data

    def read(self, page: int, half: int) -> Steps[None]:
        data = yield from self.machine.process.read(self.where(page), 16)
        assert data == self.pages.get(page, bytes(16)), f"page {page}"

    def drop(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.madvise(self.where(page), PAGE, 4)
        self.pages[page] = bytes(16)

    def pageout(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.madvise(half, HUGE_SIZE, 21)

    def evict(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.host.reclaim.evict(self.machine.mm, self.where(page))

    def shrink(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.host.reclaim.shrink(40)

    def migrate(self, page: int, half: int) -> Steps[None]:
        yield from migrate_page(self.machine.mm, self.where(page))

    def scan(self, page: int, half: int) -> Steps[None]:
        yield from khugepaged_scan(self.machine.mm, self.at, self.at + 2 * HUGE_SIZE)

    def collapse(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.madvise(half, HUGE_SIZE, MADV_COLLAPSE)

    def protect(self, page: int, half: int) -> Steps[None]:
        start, length = (half, HUGE_SIZE) if page % 3 else (self.where(page), 3 * PAGE)
        yield from self.machine.process.mprotect(start, length, 1)
        yield from self.machine.process.mprotect(start, length, 3)

    def fork(self, page: int, half: int) -> Steps[None]:
        if len(self.children) < 3:
            self.children.append((yield from self.machine.process.fork()))

    def child(self, page: int, half: int) -> Steps[None]:
        """A child writes, drops half of it, or ends."""
        if self.children:
            child = self.draw.choice(self.children)
            if not child.mm.users:
                return
            yield from child.write(self.where(page), b"child")
            if self.draw.random() < 0.3:
                yield from child.madvise(half, HUGE_SIZE, 4)

    # With these what a page holds depends on the order of the threads

    def drop_half(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.madvise(half, HUGE_SIZE, 4)

    def remap(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.munmap(half, HUGE_SIZE)
        yield from self.machine.process.mmap(HUGE_SIZE, flags=0x32, address=half)

    def move(self, page: int, half: int) -> Steps[None]:
        """Away, somewhere aligned or not, and back."""
        to = self.at + (8 + self.draw.randrange(2)) * HUGE_SIZE + self.draw.randrange(2) * PAGE
        yield from self.machine.process.mremap(half, HUGE_SIZE, HUGE_SIZE, 3, to)
        yield self.draw.randrange(2000)
        yield from self.machine.process.mremap(to, HUGE_SIZE, HUGE_SIZE, 3, half)

    def poke(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.write(self.where(page), b"poke")

    def peek(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.read(self.where(page), 4)

    def remap_hugetlb(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.munmap(half, HUGE_SIZE)
        yield from self.machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB | 0x10, address=half)

    def protect_half(self, page: int, half: int) -> Steps[None]:
        yield from self.machine.process.mprotect(half, HUGE_SIZE, 1)
        yield from self.machine.process.mprotect(half, HUGE_SIZE, 3)


EXACT = ("write",) * 4 + (
    "read", "read", "drop", "pageout", "evict", "shrink", "migrate", "scan", "scan", "collapse", "protect", "fork",
    "child",
)  # fmt: skip
ROUGH = ("poke",) * 4 + (
    "peek", "drop_half", "drop_half", "remap", "remap", "move", "pageout", "evict", "migrate", "scan", "collapse",
    "protect", "fork", "child",
)  # fmt: skip
HUGETLB = ("poke", "poke", "peek", "drop_half", "remap_hugetlb", "protect_half", "child")


def go(machine: Any, seed: int, at: int, operations: tuple[str, ...], times: int) -> list[Program]:
    """Two threads of fault work and two of the program to their end; then the checks that hold for all."""
    mirror = mirror_of(machine, at + WINDOW)
    children: list[Any] = []
    programs = [Program(machine, at, random.Random(seed * 10 + i), i, mirror, children) for i in (0, 1)]
    spawn = machine.scheduler.spawn
    threads = [spawn(mirror.faults(random.Random(seed * 10 + i), 40), f"fault work {i}") for i in (2, 3)]
    threads += [spawn(p.run(operations, times), f"program {p.parity}") for p in programs]
    machine.timeline.advance(lambda: False)
    assert all(thread.finished for thread in threads), [str(t.waits_for) for t in threads]
    mirror.check()
    machine.check_counts(machine.mm, *(child.mm for child in children))
    machine.children = children
    locks = {report.lock for report in machine.host.reports}
    assert locks <= LOCKS.get(machine.host.discipline.name, set())
    return programs


def two_thps(machine: Any) -> int:
    machine.host.transparent_hugepage = "always"
    at = aligned(machine, 2 * HUGE_SIZE)
    for half in (at, at + HUGE_SIZE):
        machine.run(machine.process.write(half, b"\0"))
        assert is_huge(machine.mm, half)
    return at


def finish(machine: Any) -> None:
    for process in (*machine.children, machine.process):
        machine.run(process.exit())
    rest = machine.frames.allocated - bool(machine.host.zero_frame) - machine.host.hugetlb.parked
    assert rest == 0 and machine.host.swap.used == 0 and not machine.host.compound_mapcount


@pytest.mark.parametrize("ram", [1700, 6000])
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(3))
def test_bytes_stay_exact(make_machine: Any, era: str, seed: int, ram: int) -> None:
    machine = make_machine(era, ram=ram, swap=1 << 14)
    machine.scheduler.chooser = RandomChooser(seed)
    programs = go(machine, seed, two_thps(machine), EXACT, 30)
    for program in programs:
        for page, data in program.pages.items():
            assert machine.run(machine.process.read(program.where(page), 16)) == data
    finish(machine)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(4))
def test_no_stale_translation(make_machine: Any, era: str, seed: int) -> None:
    machine = make_machine(era, ram=6000, swap=1 << 14)
    machine.scheduler.chooser = RandomChooser(seed)
    go(machine, seed, two_thps(machine), ROUGH, 30)
    finish(machine)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(4))
def test_no_stale_translation_of_hugetlb_memory(make_machine: Any, era: str, seed: int) -> None:
    """fork in 6.12 only: that of 3.x leaves devices with write translations (the gap of odp.md 1.3)."""
    machine = make_machine(era, ram=6 * HUGE_PAGES, swap=1 << 14)
    machine.host.hugetlb.set_nr_hugepages(HUGE_PAGES, 4)
    machine.scheduler.chooser = RandomChooser(seed)
    at = machine.run(machine.process.mmap(2 * HUGE_SIZE, flags=MAP_HUGETLB))
    go(machine, seed, at, HUGETLB + ("fork", "child") * (era == "v6.12"), 30)
    finish(machine)


def test_fork_of_3x_leaves_a_device_with_a_write_translation(make_machine: Any) -> None:
    machine = make_machine("v3.7", ram=6 * HUGE_PAGES)
    machine.host.hugetlb.set_nr_hugepages(HUGE_PAGES, 2)
    at = machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB))
    mirror = mirror_of(machine, at)
    machine.run(mirror.faults(random.Random(1), 5))
    machine.run(machine.process.fork())
    with pytest.raises(AssertionError, match=r"write-protected: page .* taken by hugetlb_fork"):
        mirror.check()
