"""Random memory operations and DMA against a dict of pages, for ``tools/memory_gate.py random``.

One program, one host, no NIC. A ``Page`` says what the program's memory must hold and what the real address space
allows; a ``Dma`` remembers what its translation gave and moves its bytes some steps later, with the compiled copies
that the NIC uses. Everything is drawn from one seed; log lines name regions and pages, no addresses.
"""

from __future__ import annotations

import ctypes
import random
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, TextIO

from memory_machine import PAGE, Machine
from memory_model import GONE, NONE, READ, WRITE, Dma, Page, Region, expect

from nicemu.memory import arena as real
from nicemu.memory.arena import Space
from nicemu.memory.frames import POISON
from nicemu.mm import Fault, Process
from nicemu.tables.records import FrameKind

WINDOW_BYTES = 1 << 30


class Gate:
    """The random program, its memory, and the device that reads and writes it."""

    MAX_REGIONS, MAX_PAGES, MAX_IN_FLIGHT, MAX_CHILDREN = 20, 64, 48, 2

    def __init__(self, seed: int, log: TextIO | None = None) -> None:
        self.random, self.log, self.machine = random.Random(seed), log, Machine()
        self.process, self.mm = self.machine.process, self.machine.mm
        self.memory: dict[int, Page] = {}
        self.regions: list[Region] = []
        self.flying: list[Dma] = []
        self.children: list[Process] = []
        self.counts: Counter[str] = Counter()
        self.window = Space(self._window_base(), WINDOW_BYTES)
        self.program_ran = True
        self.number = self._regions = 0
        steps: list[tuple[int, Callable[[], None]]] = [
            (40, self.map), (15, self.unmap), (40, self.protect), (30, self.discard), (40, self.behind_our_back),
            (2, self.fork), (15, self.child_write), (15, self.reclaim), (120, self.store), (80, self.load),
            (80, self.raw_store), (60, self.raw_load), (160, self.translate), (303, self.move),
        ]  # fmt: skip
        self._actions, self._weights = [action for _, action in steps], [weight for weight, _ in steps]

    @staticmethod
    def _window_base() -> int:
        """Free room for program memory: as random as the kernel's choice, but 1 TiB below it, where it puts nothing."""
        hint = real.mmap(0, PAGE, 0, real.MAP_PRIVATE | real.MAP_ANONYMOUS)
        real.munmap(hint, PAGE)
        return (hint - (1 << 40)) // WINDOW_BYTES * WINDOW_BYTES

    def step(self) -> None:
        """One random step."""
        self.number += 1
        self.random.choices(self._actions, self._weights)[0]()

    # Drawing ---------------------------------------------------------------------------------------------------------

    def _pages(self, most: int = 16, kinds: tuple[FrameKind, ...] = ()) -> tuple[Region, int, int] | None:
        """A run of pages that belong to one region."""
        regions = [region for region in self.regions if region.kind in kinds] if kinds else self.regions
        if not regions:
            return None
        region = self.random.choice(regions)
        start, end = self.random.randrange(region.count), region.first + region.count
        order = (region.first + (start + i) % region.count for i in range(region.count))
        first = page = next(page for page in order if self._owned(region, page))
        last = min(first + 1 + self.random.randrange(most), end)
        while page < last and self._owned(region, page):
            page += 1
        return region, first, page - first

    def _owned(self, region: Region, page: int) -> bool:
        state = self.memory.get(page)
        return state is not None and state.region is region

    def _bytes(self) -> tuple[int, bytes]:
        """A place within a page and bytes to put there; sometimes a whole page."""
        if self.random.random() < 0.05:
            return 0, self.random.randbytes(PAGE)
        offset = self.random.randrange(PAGE)
        return offset, self.random.randbytes(min(1 + self.random.randrange(256), PAGE - offset))

    def _note(self, what: str, region: Region, page: int, pages: int, result: object = "") -> None:
        self.counts[what] += 1
        if self.log is not None:
            self.log.write(f"{self.number} {what} region {region.number} page {page - region.first} pages {pages}"
                           f" at {int(self.machine.control.now)} ns {result}\n")  # fmt: skip

    def _call(self, steps: Generator[Any, Any, Any], allowed: bool, what: str) -> Any:
        """An operation that must succeed if ``allowed`` and fail with an OSError if not; None if it failed."""
        try:
            result = self.machine.run(steps)
        except OSError as error:
            expect(not allowed, f"{what} failed: {error!r}")
            return None
        expect(allowed, f"{what} should have failed")
        return True if result is None else result

    def _may(self, page: int, write: bool) -> bool:
        """Does the model grant the access? It takes memory that it has not seen for writable."""
        vma = self.mm.vmas.find(page * PAGE)
        state = self.memory[page]
        if state.region.kind == FrameKind.PROGRAM:
            return vma is None or vma.allows(write)
        return bool(state.model & (WRITE if write else READ | WRITE))

    def _really(self, page: int, write: bool) -> bool:
        """Does the real address space grant it?"""
        state = self.memory.get(page)
        if state is None:
            return False
        return state.region.kind == FrameKind.MODEL or (state.real > 0 and (not write or bool(state.real & WRITE)))

    # The program asks us ---------------------------------------------------------------------------------------------

    def map(self) -> None:
        if len(self.regions) >= self.MAX_REGIONS:
            return self.unmap()
        kind = self.random.choice((FrameKind.ARENA, FrameKind.PROGRAM, FrameKind.MODEL))
        count = 1 + self.random.randrange(self.MAX_PAGES)
        if kind == FrameKind.PROGRAM:
            address = self._map_program(count * PAGE)
        else:
            address = self.machine.run(self.process.mmap(
                count * PAGE, memory="arena" if kind == FrameKind.ARENA else "model"))  # fmt: skip
        self._regions += 1
        region = Region(self._regions, kind, address // PAGE, count)
        self.regions.append(region)
        self.memory.update((page, Page(region, READ | WRITE, READ | WRITE))
                           for page in range(region.first, region.first + count))  # fmt: skip
        self._note(f"map {kind.name.lower()}", region, region.first, count)

    def _map_program(self, length: int) -> int:
        """A real mmap; in half of the cases our own ``mmap`` makes it."""
        address, flags = self.window.take(length, PAGE), real.MAP_PRIVATE | real.MAP_ANONYMOUS
        if self.random.random() < 0.5:
            return int(self.machine.run(self.process.mmap(length, 3, flags | real.MAP_FIXED, address)))
        self.program_ran = True
        return real.mmap(address, length, 3, flags | real.MAP_FIXED_NOREPLACE)

    def unmap(self) -> None:
        if (drawn := self._pages(2 * self.MAX_PAGES)) is None:
            return
        region, first, count = drawn
        self.machine.run(self.process.munmap(first * PAGE, count * PAGE))
        self._note("unmap", region, first, count)
        self._forget(region, first, count)

    def _forget(self, region: Region, first: int, count: int) -> None:
        """The program has these pages no more."""
        for page in range(first, first + count):
            del self.memory[page]
        if any(self._owned(region, page) for page in range(region.first, region.first + region.count)):
            return
        self.regions.remove(region)
        if region.kind == FrameKind.PROGRAM:
            self.window.give(region.first * PAGE, region.count * PAGE)

    def protect(self) -> None:
        if (drawn := self._pages()) is None:
            return
        (region, first, count), access = drawn, self.random.choice((NONE, READ, READ | WRITE, READ | WRITE))
        reached = self._until_hole(first, count)
        self._call(self.process.mprotect(first * PAGE, count * PAGE, access), reached == count, "mprotect")
        for page in range(first, first + reached):
            self.memory[page].real = access
        for page in range(first, first + count):
            vma = self.mm.vmas.find(page * PAGE)
            self.memory[page].model = access if reached == count or vma is None else vma.flags & (READ | WRITE)
        self._note("protect", region, first, count, access)

    def _until_hole(self, first: int, count: int) -> int:
        """Pages before the first one that was unmapped behind our back."""
        holes = (page - first for page in range(first, first + count) if self.memory[page].real == GONE)
        return next(holes, count)

    def discard(self) -> None:
        if (drawn := self._pages()) is None:
            return
        region, first, count = drawn
        whole = self._until_hole(first, count) == count
        self._call(self.process.madvise(first * PAGE, count * PAGE, real.MADV_DONTNEED), whole, "madvise")
        self._zero(first, count)
        self._note("discard", region, first, count)

    def _zero(self, first: int, count: int) -> None:
        for page in range(first, first + count):
            self.memory[page].data = None

    def fork(self) -> None:
        if len(self.children) >= self.MAX_CHILDREN:
            self.machine.run(self.children.pop(0).exit())
        self.children.append(self.machine.run(self.process.fork()))
        self.counts["fork"] += 1

    def child_write(self) -> None:
        """A child writes simulated RAM: the parent must not see it."""
        drawn = self._pages(1, (FrameKind.MODEL,))
        if drawn is None or not self.children:
            return
        offset, data = self._bytes()
        try:
            self.machine.run(self.random.choice(self.children).write(drawn[1] * PAGE + offset, data))
        except OSError:
            return  # the child was forked before the page came, or when it was not writable
        self._note("child write", *drawn)

    def reclaim(self) -> None:
        if (drawn := self._pages()) is None:
            return
        region, first, count = drawn
        if self.random.random() < 0.5:
            self.machine.run(self.process.madvise(first * PAGE, count * PAGE, 21))
        elif self.random.random() < 0.5:
            self.machine.run(self.machine.host.reclaim.evict(self.mm, first * PAGE))
        else:
            self.machine.run(self.machine.host.reclaim.shrink(count))
        self._note("reclaim", region, first, count)

    def store(self) -> None:
        if (drawn := self._pages(1)) is None:
            return
        page, (offset, data) = drawn[1], self._bytes()
        allowed = self._may(page, True) and self._really(page, True)
        if self._call(self.process.write(page * PAGE + offset, data), allowed, f"CPU write of page {page:#x}"):
            self.memory[page].put(offset, data)
        self._note("CPU write", *drawn, int(allowed))

    def load(self) -> None:
        if (drawn := self._pages(1)) is None:
            return
        page, (offset, data) = drawn[1], self._bytes()
        allowed = self._may(page, False) and self._really(page, False)
        found = self._call(self.process.read(page * PAGE + offset, len(data)), allowed, f"CPU read of page {page:#x}")
        if allowed:
            expect(found == self.memory[page].get(offset, len(data)), f"CPU read of page {page:#x}: wrong bytes")
        self._note("CPU read", *drawn, int(allowed))

    # The program does not ask us -------------------------------------------------------------------------------------

    def raw_store(self) -> None:
        """A plain store of the program."""
        drawn = self._pages(1, (FrameKind.ARENA, FrameKind.PROGRAM))
        if drawn is None or not self._really(drawn[1], True):
            return
        page, (offset, data) = drawn[1], self._bytes()
        ctypes.memmove(page * PAGE + offset, data, len(data))
        self.memory[page].put(offset, data)
        self.program_ran = True
        self._note("plain store", *drawn)

    def raw_load(self) -> None:
        """A plain load of the program."""
        drawn = self._pages(1, (FrameKind.ARENA, FrameKind.PROGRAM))
        if drawn is None or not self._really(drawn[1], False):
            return
        found = ctypes.string_at(drawn[1] * PAGE, PAGE)
        expect(found == self.memory[drawn[1]].get(0, PAGE), f"plain load of page {drawn[1]:#x}: wrong bytes")
        self._note("plain load", *drawn)

    def behind_our_back(self) -> None:
        """A real system call through ctypes that the model does not hear of."""
        drawn = self._pages(8, (FrameKind.ARENA, FrameKind.PROGRAM))
        if drawn is None:
            return
        region, first, count = drawn
        what = self.random.choice(("protect", "unprotect", "unmap", "remap", "remap", "discard"))
        if what in ("protect", "unprotect", "discard"):
            count = self._until_hole(first, count)
        if count:
            self._change_behind(what, first, count)
            self._note(f"{what} behind our back", region, first, count)

    def _change_behind(self, what: str, first: int, count: int) -> None:
        address, length, access = first * PAGE, count * PAGE, READ | WRITE
        if what in ("protect", "unprotect"):
            access = READ | WRITE if what == "unprotect" else self.random.choice((NONE, READ))
            real.mprotect(address, length, access)
        elif what == "unmap":
            real.munmap(address, length)
            access = GONE
        elif what == "remap":
            real.mmap(address, length, 3, real.MAP_PRIVATE | real.MAP_ANONYMOUS | real.MAP_FIXED)
        else:
            real.madvise(address, length, real.MADV_DONTNEED)
        for page in range(first, first + count):
            if what != "discard":
                self.memory[page].real = access
        if what in ("unmap", "remap", "discard"):
            self._zero(first, count)
        self.program_ran = True

    # The device ------------------------------------------------------------------------------------------------------

    def translate(self) -> None:
        """The first instant: pages become frames."""
        if (drawn := self._pages(4)) is None:
            return
        (region, first, count), write = drawn, self.random.random() < 0.5
        if region.kind == FrameKind.PROGRAM:
            self.mm.adopt(first * PAGE, count * PAGE)
        bad = next((page for page in range(first, first + count) if not self._translatable(region, page, write)), 0)
        try:
            frames = self.machine.run(self.mm.fault_in(first * PAGE, count, write)) >> 1
        except Fault as fault:
            expect(fault.address == bad * PAGE, f"fault at {fault.address:#x}, not {bad * PAGE:#x}: {fault}")
            return self._note("DMA refused", region, first, count, bad - first)
        expect(not bad, f"page {bad:#x} should not have been translated")
        for page, frame in enumerate(frames.tolist(), first):
            self.flying.append(Dma(region, page, frame, int(self.machine.world.frame[frame].generation),
                                   *self._bytes(), write))  # fmt: skip
        self._note("DMA translate", region, first, count, frames.tolist())

    def _translatable(self, region: Region, page: int, write: bool) -> bool:
        really = region.kind != FrameKind.PROGRAM or self._really(page, write)
        return self._may(page, write) and really

    def move(self) -> None:
        """The second instant: the bytes of one DMA in flight move."""
        if not self.flying:
            return
        oldest = len(self.flying) > self.MAX_IN_FLIGHT
        dma = self.flying.pop(0 if oldest else self.random.randrange(len(self.flying)))
        if self.program_ran:
            self.machine.control.epoch += 1
            self.program_ran = False
        row = self.machine.world.frame[dma.frame]
        current = self.machine.mapped(dma.page) == dma.frame and row.generation == dma.generation
        if row.generation != dma.generation and row.kind != FrameKind.FREE:
            return self._note("DMA reused", dma.region, dma.page, 1)  # a translation as old as 65536 frames
        outcome = (self._move_write if dma.write else self._move_read)(dma, current, row)
        self._note(f"DMA {'write' if dma.write else 'read'} {outcome}", dma.region, dma.page, 1,
                   f"frame {dma.frame} {zlib.crc32(self.machine.buffer[: len(dma.data)]):08x}")  # fmt: skip

    def _move_write(self, dma: Dma, current: bool, row: Any) -> str:
        kind = row.kind
        done = self.machine.write(dma.frame, dma.offset, dma.data)
        if not current:
            expect(done, f"stale write of frame {dma.frame} failed")
            return "stale"
        allowed = kind == FrameKind.MODEL or self._really(dma.page, True)
        expect(done == allowed, f"write of frame {dma.frame}: {done}, should be {allowed}")
        if done:
            self.memory[dma.page].put(dma.offset, dma.data)
        return "done" if done else "failed"

    def _move_read(self, dma: Dma, current: bool, row: Any) -> str:
        kind, length = row.kind, len(dma.data)
        found = self.machine.read(dma.frame, dma.offset, length)
        if not current:
            expect(found is not None, f"stale read of frame {dma.frame} failed")
            if kind != FrameKind.MODEL:  # a model frame may live on in a child
                expect(found == bytes([POISON]) * length, f"stale read of frame {dma.frame}: not poison")
            elif dma.frame == self.machine.host.zero_frame:
                expect(found == bytes(length), "the zero page is not zero")
            return "stale"
        allowed = kind == FrameKind.MODEL or self._really(dma.page, False)
        expect((found is not None) == allowed, f"read of frame {dma.frame}: should be {allowed}")
        if allowed:
            expect(found == self.memory[dma.page].get(dma.offset, length), f"read of frame {dma.frame}: wrong bytes")
        return "done" if allowed else "failed"

    def finish(self) -> None:
        """Move what is in flight, read all memory once more, end all processes: nothing may be left."""
        while self.flying:
            self.move()
        for page, state in self.memory.items():
            if self._may(page, False) and self._really(page, False):
                found = self.machine.run(self.process.read(page * PAGE, PAGE))
                expect(found == state.get(0, PAGE), f"at the end page {page:#x} holds wrong bytes")
        for process in (*self.children, self.process):
            self.machine.run(process.exit())
        host, frames = self.machine.host, self.machine.frames
        expect(frames.allocated == bool(host.zero_frame), f"{frames.allocated} frames leaked")
        expect(host.swap.used == 0, f"{host.swap.used} swap slots leaked")
        expect(host.world.control[0].trap == 0, "the engine's trap word is set")
        for region in self.regions:
            if region.kind == FrameKind.PROGRAM:
                real.munmap(region.first * PAGE, region.count * PAGE)
        self.machine.close()
