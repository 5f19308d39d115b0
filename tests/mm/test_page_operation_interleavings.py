"""The page operations at the same time as faults of a device that writes, in seeded random order.

Three kinds of pages: those where anything happens; those that one CPU thread writes; those that only the device writes,
through translations it holds. The last two are verified byte for byte: no operation may lose a write. Afterwards no
translation that the device holds is stale, counts are right and nothing leaks.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from nicemu.mm.aging import damon_mkold, mglru_age, page_idle_get, page_idle_set
from nicemu.mm.compaction import compact_block
from nicemu.mm.device_memory import make_device_exclusive, migrate_vma
from nicemu.mm.madvise import (
    MADV_COLD,
    MADV_FREE,
    MADV_MERGEABLE,
    MADV_POPULATE_WRITE,
    MADV_SOFT_OFFLINE,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
)
from nicemu.mm.migrate import migrate_page
from nicemu.mm.numa import Numa, change_prot_numa
from nicemu.mm.page import PG_HWPOISON, PG_KSM
from nicemu.mm.soft_dirty import clear_refs
from nicemu.mm.userfaultfd import pagemap_scan
from nicemu.timeline.host import Sleep, Steps
from tests.mm.test_interleavings import ERAS, PAGE, PAGES, ChainMirror, IntervalMirror, RandomChooser

ANY, CPU, DEVICE = range(0, 8), range(8, 16), range(16, PAGES)
FEW = b"abc"
"""Contents repeat, so that KSM has something to merge."""


class World:
    """A machine with a mirroring device, and what its verified pages must hold."""

    def __init__(self, machine: Any, seed: int) -> None:
        self.machine, self.process, self.host, self.mm = machine, machine.process, machine.host, machine.mm
        machine.scheduler.chooser = RandomChooser(seed)
        machine.host.numa = Numa(machine.host, 2)
        self.modern = machine.host.discipline.interval
        self.at = int(machine.run(self.process.mmap(PAGES * PAGE)))
        self.scratch = int(machine.run(self.process.mmap(len(ANY) * PAGE)))
        self.mirror: Any = (IntervalMirror if self.modern else ChainMirror)(machine, self.at)
        if self.modern:
            self.mm.intervals.insert(self.mirror, self.at, PAGES * PAGE)
            handler = machine.run(self.process.userfaultfd(asynchronous=True))
            machine.run(handler.register(self.at, PAGES * PAGE))
            machine.run(handler.register(self.scratch, len(ANY) * PAGE))
        else:
            machine.run(self.mm.notifiers.register(self.mirror))
        self.expected: dict[int, set[int]] = {page: {0} for page in (*CPU, *DEVICE)}
        self.children: list[Any] = []
        self.working = 0
        self.writes = 0

    def address(self, page: int) -> int:
        return self.at + page * PAGE

    def own_frame(self, page: int) -> int:
        """The frame of a page, 0 if there is none or KSM shares it with pages that are verified."""
        frame = int(self.machine.frame(self.address(page)))
        return 0 if self.host.pages.flags[frame] & PG_KSM else frame

    def check_translation(self, page: int, write: bool) -> None:
        """What the DMA sanitizer checks: the frame was not freed, and no invalidation of it has returned."""
        frame, generation, stamp, _ = self.mirror.held[page]
        row, stamps = self.machine.world.frame[frame], self.machine.world.frame_stamp[frame]
        by = f"page {page}, frame {frame}, taken by {self.machine.frames.operation_name(stamps.operation)}"
        assert row.generation == generation, f"freed: {by}"
        assert stamp >= max(stamps.invalidated, stamps.protected if write else 0), f"stale: {by}"

    def check(self, page: int) -> Steps[None]:
        """The bytes of a verified page. Who writes it may do so between the look and the comparison, so only its own
        thread checks a CPU page while others run."""
        data = yield from self.process.read(self.address(page), PAGE)
        assert len(set(data)) == 1 and data[0] in self.expected[page], (page, set(data), self.expected[page])


def cpu(world: World, draw: random.Random, times: int) -> Steps[None]:
    """The one thread that writes, frees and verifies the CPU's pages."""
    for _ in range(times):
        page, what = draw.choice(CPU), draw.random()
        if what < 0.5:
            value = draw.choice(FEW)
            yield from world.process.write(world.address(page), bytes([value]) * PAGE)
            world.expected[page] = {value}
        elif what < 0.6:
            with contextlib.suppress(OSError):  # EINVAL: another thread has locked it
                yield from world.process.madvise(world.address(page), PAGE, 4)
                world.expected[page] = {0}
        elif what < 0.7 and world.modern:
            world.expected[page] |= {0}
            with contextlib.suppress(OSError):
                yield from world.process.madvise(world.address(page), PAGE, MADV_FREE)
        else:
            yield from world.check(page)
        yield draw.randrange(4000)


def device(world: World, draw: random.Random) -> Steps[None]:
    """DMA through the translations that it holds, each in one instant, until all others are done."""
    while world.working:
        writable = sorted(page for page, entry in world.mirror.held.items() if page in DEVICE and entry[3])
        if writable:
            page, value = draw.choice(writable), draw.choice(FEW)
            world.check_translation(page, True)
            world.machine.frames.bytes_of(world.mirror.held[page][0])[:] = value
            world.expected[page] = {value}
            world.writes += 1
        elif world.mirror.held:
            world.check_translation(draw.choice(sorted(world.mirror.held)), False)
        yield Sleep(draw.randrange(2000))


def fault_work(world: World, draw: random.Random) -> Steps[None]:
    """Page faults of the device, until all others are done."""
    while world.working:
        yield from world.mirror.faults(draw, 1)
        yield Sleep(draw.randrange(8000))


def worker(world: World, steps: Steps[None]) -> Steps[None]:
    """One of those that the device waits for."""
    world.working += 1
    yield from steps
    world.working -= 1


def shuffle(world: World, draw: random.Random, times: int) -> Steps[None]:
    """What a program and its kernel do to any page without changing what it holds."""
    operations = common(world) | (later(world) if world.modern else {})
    for _ in range(times):
        page = draw.randrange(PAGES)
        count = draw.randrange(1, PAGES - page + 1)
        try:
            yield from operations[draw.choice(sorted(operations))](world.address(page), count)
        except OSError as error:
            assert "out of memory" not in str(error)
        yield draw.randrange(3000)


Operation = Callable[[int, int], Steps[Any]]


def common(world: World) -> dict[str, Operation]:
    """Of every era."""
    process, host, mm = world.process, world.host, world.mm

    def idle(at: int, _: int) -> Steps[None]:
        frame = world.machine.frame(at)
        if frame and frame != host.zero_frame:
            yield from page_idle_set(host, frame)
            yield 500
            yield from page_idle_get(host, frame)

    def lock(at: int, count: int) -> Steps[None]:
        yield from process.mlock(at, min(count, 4) * PAGE)
        yield 2000
        yield from process.munlock(at, min(count, 4) * PAGE)

    def fork(_: int, __: int) -> Steps[None]:
        if len(world.children) < 2:
            world.children.append((yield from process.fork()))

    return {
        "merge": lambda at, count: process.madvise(at, count * PAGE, MADV_MERGEABLE),
        "unmerge": lambda at, count: process.madvise(at, min(count, 3) * PAGE, MADV_UNMERGEABLE),
        "ksm": lambda at, count: host.ksm_scan(2 * count),
        "ksm2": lambda at, count: host.ksm_scan(2 * count),
        "willneed": lambda at, count: process.madvise(at, count * PAGE, MADV_WILLNEED),
        "migrate": lambda at, count: migrate_page(mm, at),
        "offline": lambda at, count: process.madvise(at, PAGE, MADV_SOFT_OFFLINE),
        "move": lambda at, count: process.move_pages([at + i * PAGE for i in range(count)], count & 1),
        "compact": lambda at, count: compact_block(host, 8),
        "evict": lambda at, count: host.reclaim.evict(mm, at),
        "pageout": lambda at, count: process.madvise(at, count * PAGE, 21),
        "shrink": lambda at, count: host.reclaim.shrink(count),
        "age": lambda at, count: mglru_age(mm, at, at + count * PAGE),
        "mkold": lambda at, count: damon_mkold(mm, at),
        "idle": idle,
        "lock": lock,
        "fork": fork,
    }


def later(world: World) -> dict[str, Operation]:
    """Of 6.12."""
    process, mm = world.process, world.mm

    def move(at: int, _: int) -> Steps[None]:
        page = (at - world.at) // PAGE % len(ANY)
        handler = yield from process.userfaultfd()
        yield from handler.move(world.scratch + page * PAGE, world.address(page), PAGE)
        yield 1000
        yield from handler.move(world.address(page), world.scratch + page * PAGE, PAGE)

    def protect(at: int, count: int) -> Steps[None]:
        assert mm.userfaultfd is not None
        yield from mm.userfaultfd.writeprotect(at, count * PAGE, True)

    def balance(at: int, count: int) -> Steps[None]:
        mm.node ^= 1
        yield from change_prot_numa(mm, at, at + count * PAGE)

    return {
        "cold": lambda at, count: process.madvise(at, count * PAGE, MADV_COLD),
        "populate": lambda at, count: process.madvise(at, count * PAGE, MADV_POPULATE_WRITE),
        "clear_refs": lambda at, count: clear_refs(mm),
        "scan": lambda at, count: pagemap_scan(mm, at, at + count * PAGE),
        "private": lambda at, count: migrate_vma(mm, at, at + min(count, 4) * PAGE, None),
        "exclusive": lambda at, count: make_device_exclusive(mm, at, None),
        "balance": balance,
        "protect": protect,
        "move": move,
    }


def anything(world: World, draw: random.Random, times: int) -> Steps[None]:
    """Pages whose contents nobody verifies."""
    for _ in range(times):
        page, what = draw.choice(ANY), draw.random()
        try:
            if what < 0.7:
                yield from world.process.write(world.address(page), bytes([draw.choice(FEW)]) * PAGE)
            elif what < 0.9:
                yield from world.process.madvise(world.address(page), PAGE, 4)
            elif draw.random() < 0.2 and (frame := world.own_frame(page)):
                yield from world.host.memory_failure(frame)
        except OSError as error:
            assert "out of memory" not in str(error)
        yield draw.randrange(3000)


def poisoned(world: World) -> int:
    flags = world.host.pages.all_flags[: world.machine.frames._next]
    return int((flags & PG_HWPOISON != 0).sum())


def play(machine: Any, seed: int) -> World:
    """All threads until they are done, then the checks."""
    world = World(machine, seed)
    spawn = machine.scheduler.spawn
    draws = [random.Random(seed * 10 + i) for i in range(8)]
    workers = [shuffle(world, draws[i], 25) for i in (2, 3, 4)]
    workers += [cpu(world, draws[5], 60), anything(world, draws[7], 30)]
    threads = [spawn(worker(world, steps), f"worker {i}") for i, steps in enumerate(workers)]
    threads += [spawn(fault_work(world, draws[i]), f"fault work {i}", delay=10) for i in (0, 1)]
    threads += [spawn(device(world, draws[6]), "device", delay=10)]
    machine.timeline.advance(lambda: False)
    assert all(thread.finished for thread in threads), machine.timeline.who_waits()
    world.mirror.check()
    for page in (*CPU, *DEVICE):
        machine.run(world.check(page))
    world.mirror.check()
    return world


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(4))
def test_no_write_is_lost_and_nothing_leaks(make_machine: Any, era: str, seed: int) -> None:
    machine = make_machine(era, ram=72, swap=4096)
    world = play(machine, seed)
    machine.check_counts(machine.mm, *(child.mm for child in world.children))
    for child in world.children:
        machine.run(child.exit())
    machine.run(machine.process.exit())
    assert machine.frames.allocated - bool(machine.host.zero_frame) == poisoned(world) and machine.host.swap.used == 0
