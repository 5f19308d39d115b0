"""Operations that run at the same time, in seeded random order, with a device that holds translations.

After every run: counts are right, nothing leaks, and no translation the device holds is stale (its frame was neither
freed nor invalidated nor, if writable, write-protected since it was made).
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from nicemu.mm import Fault, IntervalNotifier, Mutex, NotifierRange, NotifierSubscriber
from nicemu.timeline.host import Chooser, Sleep, Steps

PAGE, PAGES = 4096, 24
OPERATIONS = ("write", "write", "read", "dontneed", "pageout", "protect", "evict", "fork", "remap", "shrink")
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")


class RandomChooser(Chooser):
    """Any ready thread may run; things take longer at random."""

    steers = True

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, ready: list[Any]) -> int:
        return self.random.randrange(len(ready))

    def stretch(self, kind: str) -> int:
        return self.random.randrange(5000) if self.random.random() < 0.3 else 0


class Mirror:
    """A driver: page -> (frame, generation, stamp, write), filled by faults and emptied by invalidations."""

    name = "mirror"

    def __init__(self, machine: Any, base: int) -> None:
        self.machine, self.base = machine, base
        self.mutex = Mutex(machine.scheduler, "umem_mutex")
        self.held: dict[int, tuple[int, int, int, bool]] = {}
        self.retries = 0

    def zap(self, start: int, end: int) -> Steps[None]:
        """Drop translations; the device takes its time."""
        thread = self.machine.scheduler.current
        yield from self.mutex.acquire(thread)
        self.began()
        for page in [page for page in self.held if start <= self.base + page * PAGE < end]:
            yield Sleep(700)
            del self.held[page]
        self.mutex.release(thread)

    def began(self) -> None:
        """Under the mutex, whether anything is held or not."""

    def faults(self, draw: random.Random, times: int) -> Steps[None]:
        """Fault pages in, as page-fault work does."""
        thread = self.machine.scheduler.current
        for _ in range(times):
            page, count, write = draw.randrange(PAGES), draw.randrange(1, 5), draw.random() < 0.5
            count = min(count, PAGES - page)
            for _ in range(50):
                sequence = yield from self.begin()
                try:
                    found = yield from self.machine.mm.fault_in(self.base + page * PAGE, count, write)
                except Fault:
                    break
                yield draw.randrange(2000)
                yield from self.mutex.acquire(thread)
                if not self.collided(sequence):
                    self.store(page, found)
                    self.mutex.release(thread)
                    break
                self.mutex.release(thread)
                self.retries += 1

    def store(self, page: int, found: Any) -> None:
        stamp = int(self.machine.world.control[0].stamp)
        for i, entry in enumerate(found.tolist()):
            frame = entry >> 1
            self.held[page + i] = frame, int(self.machine.world.frame[frame].generation), stamp, bool(entry & 1)

    def check(self) -> None:
        """Nothing stale."""
        for page, (frame, generation, stamp, write) in self.held.items():
            row, stamps = self.machine.world.frame[frame], self.machine.world.frame_stamp[frame]
            where = f"page {page}, frame {frame}, taken by {self.machine.frames.operation_name(stamps.operation)}"
            assert row.generation == generation, f"freed: {where}"
            assert stamp >= stamps.invalidated, f"invalidated: {where}"
            assert not write or stamp >= stamps.protected, f"write-protected: {where}"
            assert self.machine.frame(self.base + page * PAGE) == frame, f"not mapped: {where}"

    def begin(self) -> Steps[int]:
        raise NotImplementedError

    def collided(self, sequence: int) -> bool:
        raise NotImplementedError


class IntervalMirror(Mirror, IntervalNotifier):
    """6.12."""

    cur_seq = 0

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        self.cur_seq = cur_seq
        yield from self.zap(range.start, range.end)
        return True

    def began(self) -> None:
        self.set_seq(self.mm.intervals.invalidate_seq)

    def begin(self) -> Steps[int]:
        return (yield from self.read_begin())

    def collided(self, sequence: int) -> bool:
        return self.read_retry(sequence)


class ChainMirror(Mirror, NotifierSubscriber):
    """3.x: a count of running invalidations and a sequence."""

    running = sequence = 0

    def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
        self.running += 1
        yield from self.zap(start, end)
        return True

    def invalidate_range_end(self, mm: Any, start: int, end: int) -> Steps[None]:
        self.running -= 1
        self.sequence += 1
        return
        yield

    def invalidate_page(self, mm: Any, address: int) -> Steps[None]:
        yield from self.invalidate_range_start(mm, address, address + PAGE, True)
        yield from self.invalidate_range_end(mm, address, address + PAGE)

    def begin(self) -> Steps[int]:
        while self.running:
            yield Sleep(500)
        return self.sequence

    def collided(self, sequence: int) -> bool:
        return self.running > 0 or self.sequence != sequence


def program(machine: Any, at: int, draw: random.Random, times: int, children: list[Any]) -> Steps[None]:
    """System calls and CPU accesses of one program thread."""
    process = machine.process
    for _ in range(times):
        page = draw.randrange(PAGES)
        count = draw.randrange(1, PAGES - page + 1)
        address, length = at + page * PAGE, count * PAGE
        what = draw.choice(OPERATIONS)
        try:
            if what == "write":
                yield from process.write(address, bytes([page]) * length)
            elif what == "read":
                yield from process.read(address, length)
            elif what in ("dontneed", "pageout"):
                yield from process.madvise(address, length, 4 if what == "dontneed" else 21)
            elif what == "protect":
                yield from process.mprotect(address, length, 1)
                yield from process.mprotect(address, length, 3)
            elif what == "evict":
                yield from machine.host.reclaim.evict(machine.mm, address)
            elif what == "shrink":
                yield from machine.host.reclaim.shrink(count)
            elif what == "remap":
                yield from process.munmap(address, length)
                yield from process.mmap(length, flags=0x32, address=address)
            elif len(children) < 3:
                children.append((yield from process.fork()))
        except OSError as error:
            assert "out of memory" not in str(error)  # unmapped or protected by the other thread
        yield draw.randrange(3000)


@pytest.mark.parametrize("kind", ["model", "arena"])
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("seed", range(2))
def test_no_stale_translation(make_machine: Any, arena: Any, era: str, kind: str, seed: int) -> None:
    machine = make_machine(era, ram=40, swap=4096, arena=arena if kind == "arena" else None)
    machine.scheduler.chooser = RandomChooser(seed)
    at = machine.run(machine.process.mmap(PAGES * PAGE))
    if machine.host.discipline.interval:
        mirror: Any = IntervalMirror(machine, at)
        machine.mm.intervals.insert(mirror, at, PAGES * PAGE)
    else:
        mirror = ChainMirror(machine, at)
        machine.run(machine.mm.notifiers.register(mirror))
    children: list[Any] = []
    threads = [
        machine.scheduler.spawn(mirror.faults(random.Random(seed * 10 + i), 60), f"fault work {i}") for i in (0, 1)
    ]
    threads += [
        machine.scheduler.spawn(program(machine, at, random.Random(seed * 10 + i), 30, children), f"program {i}")
        for i in (2, 3)
    ]
    machine.timeline.advance(lambda: False)
    assert all(thread.finished for thread in threads), [str(t.waits_for) for t in threads]
    mirror.check()
    machine.check_counts(machine.mm, *(child.mm for child in children))
    for child in children:
        machine.run(child.exit())
    machine.run(machine.process.exit())
    assert machine.frames.allocated - bool(machine.host.zero_frame) == 0 and machine.host.swap.used == 0
    locks = {report.lock for report in machine.host.reports}
    assert locks <= {"v3.6": {"rcu_read_lock", "page_table_lock"}, "v3.6+srcu": {"page_table_lock"},
                     "v3.7-seed": {"page_table_lock"}}.get(era, set())  # fmt: skip
