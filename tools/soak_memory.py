"""Memory of the soak: areas with a copy of what must be in them, and the thread that keeps taking their pages away."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np

from nicemu.memory.safe_copy import read as read_memory
from nicemu.mm.migrate import migrate_page
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.timeline import Sleep

PAGE = 4096
READ_ONLY, READ_WRITE = 1, 3
DONTNEED, PAGEOUT = 4, 21
KINDS = {"swap": 30, "pageout": 10, "migrate": 30, "fork": 1, "mprotect": 10, "dontneed": 17}
"""Invalidations that keep contents, and how often each."""


class Wrong(Exception):
    """The soak found something."""


class Area:
    """Memory under an MR, and ``model``: what its bytes must be. ``kind``: arena, memfd or pinned."""

    def __init__(self, process: Any, pd: Any, name: str, length: int, access: int, kind: str = "arena") -> None:
        self.name, self.length, self.kind = name, length, kind
        self.process = process
        if kind == "memfd":
            fd = os.memfd_create(name)
            os.ftruncate(fd, length)
            self.address = process.mmap(length, flags=mmap.MAP_SHARED, fd=fd)
            os.close(fd)
        else:
            self.address = process.posix_memalign(length, PAGE)
        self.view = np.frombuffer((ctypes.c_uint8 * length).from_address(self.address), np.uint8)
        self.model = np.zeros(length, np.uint8)
        self.writable = bool(access & e.IBV_ACCESS_LOCAL_WRITE)
        on_demand = 0 if kind == "pinned" else e.IBV_ACCESS_ON_DEMAND
        self.mr = MR(pd, length, access | on_demand, address=self.address)
        self.lkey, self.rkey = self.mr.lkey, self.mr.rkey

    @property
    def on_demand(self) -> bool:
        """Its pages may go."""
        return self.kind != "pinned"

    def store(self, offset: int, data: np.ndarray) -> None:
        """The program writes."""
        self.process.write(self.address + offset, data.tobytes())
        self.model[offset : offset + len(data)] = data

    def discard(self, offset: int, length: int) -> None:
        """``MADV_DONTNEED`` of anonymous pages: zeros from now on."""
        self.process.madvise(self.address + offset, length, DONTNEED)
        self.model[offset : offset + length] = 0

    def check(self, offset: int = 0, length: int | None = None) -> None:
        """Every byte of a range, by default of all.

        :raises Wrong: with the first byte that is not what it must be.
        """
        end = self.length if length is None else offset + length
        found, wanted = self.view[offset:end], self.model[offset:end]
        if np.array_equal(found, wanted):
            return
        bad = np.flatnonzero(found != wanted)
        first = int(bad[0])
        raise Wrong(f"{self.name}: {len(bad)} wrong bytes of [{offset}, {end}), the first at {offset + first}: "
                    f"{found[first : first + 8].tobytes().hex()} and not {wanted[first : first + 8].tobytes().hex()}, "
                    f"the last at {offset + int(bad[-1])}; "
                    f"a system call reads {read_memory(self.address + offset + first, 8).hex()}")  # fmt: skip


class Invalidator:
    """A daemon thread of the host: what a machine under memory pressure does to the program's pages."""

    def __init__(self, lab: Any, areas: list[Area], per_ms: float, seed: int, kinds: tuple[str, ...]) -> None:
        self.lab, self.per_ms = lab, per_ms
        self.areas = [area for area in areas if area.on_demand]
        self.read_only = [area for area in self.areas if not area.writable]
        self.files = [area for area in self.areas if area.kind == "memfd"]
        self.draw = random.Random(f"invalidations {seed}")
        self.kinds = kinds
        self.weights = [KINDS[kind] for kind in kinds]
        self.done: Counter[str] = Counter()

    def run(self) -> Generator[Any, Any, None]:
        """Host-thread steps: ``per_ms`` invalidations a virtual millisecond, exponentially spaced."""
        while True:
            yield Sleep(max(1, round(self.draw.expovariate(self.per_ms) * 1_000_000)), idle=True)
            kind = self.draw.choices(self.kinds, self.weights)[0]
            self.done[kind] += bool((yield from getattr(self, "_" + kind)()))

    def _range(self, areas: list[Area]) -> tuple[int, int]:
        area = self.draw.choice(areas)
        pages = min(1 << self.draw.randrange(7), area.length // PAGE)
        first = self.draw.randrange(area.length // PAGE - pages + 1)
        return area.address + first * PAGE, pages * PAGE

    def _page(self) -> int:
        """A page that is there: of some that are drawn, the first."""
        page_table = self.lab.process.mm.page_table
        for _ in range(16):
            area = self.draw.choice(self.areas)
            address = int(area.address) + self.draw.randrange(area.length // PAGE) * PAGE
            if page_table.get(address // PAGE) & 1:
                break
        return address

    def _swap(self) -> Generator[Any, Any, bool]:
        return (yield from self.lab.host.reclaim.evict(self.lab.process.mm, self._page()))

    def _migrate(self) -> Generator[Any, Any, bool]:
        return (yield from migrate_page(self.lab.process.mm, self._page()))

    def _pageout(self) -> Generator[Any, Any, bool]:
        yield from self.lab.process.madvise(*self._range(self.areas), PAGEOUT)
        return True

    def _fork(self) -> Generator[Any, Any, bool]:
        child = yield from self.lab.process.fork()
        yield Sleep(self.draw.randrange(200_000))
        yield from child.exit()
        return True

    def _mprotect(self) -> Generator[Any, Any, bool]:
        """Read-only and back, of memory that devices only read."""
        address, length = self._range(self.read_only)
        yield from self.lab.process.mprotect(address, length, READ_ONLY)
        yield Sleep(self.draw.randrange(100_000))
        yield from self.lab.process.mprotect(address, length, READ_WRITE)
        return True

    def _dontneed(self) -> Generator[Any, Any, bool]:
        """Of shared file pages: the file keeps the bytes."""
        yield from self.lab.process.madvise(*self._range(self.files), DONTNEED)
        return True
