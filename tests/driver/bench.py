"""A host with the driver on it, a fake device and a fake address space: no compiled code.

The address space has the real notifiers and a page table that tests change as they like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nicemu.abi.command import (
    MTT_FRAME_SHIFT,
)
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE
from nicemu.config import NicProfile
from nicemu.config.host_profile import HostCosts
from nicemu.driver import Driver, Options, context, mr, pd
from nicemu.driver.context import Context
from nicemu.driver.mr import Mr
from nicemu.mm.interval import IntervalNotifiers
from nicemu.mm.lockdep import Lockdep, lockdep_of
from nicemu.mm.locks import RwSemaphore, Srcu
from nicemu.mm.memlock import Memlock
from nicemu.mm.notifier import Event, NotifierChain, NotifierRange, invalidate_range_end, invalidate_range_start
from nicemu.mm.page import Fault
from nicemu.timeline import HostThread, Scheduler, Steps, Timeline
from tests.driver.fake_device import FakeDevice, FakeEngine


@dataclass
class FakeHost:
    """What notifiers use of the host."""

    scheduler: Scheduler
    discipline: Any
    srcu: Srcu
    lockdep: Lockdep

    @property
    def thread(self) -> HostThread:
        assert self.scheduler.current is not None
        return self.scheduler.current

    def broken(self, mutant: str) -> bool:
        return False


class FakeMm:
    """An address space with the real notifiers. ``table``: frame of each page, made when faulted in."""

    def __init__(self, scheduler: Scheduler, discipline: Any) -> None:
        self.scheduler = scheduler
        self.host: Any = FakeHost(scheduler, discipline, Srcu(scheduler), lockdep_of(scheduler))
        self.users = 1
        self.table: dict[int, int] = {}
        self.absent: set[int] = set()
        self.pinned: dict[int, int] = {}
        self.memlock = Memlock()
        self.fault_ns = 1_500
        self.faulted: list[tuple[int, int, bool]] = []
        self.during_fault: Callable[[], Steps[None]] | None = None
        self._next = 100
        self.notifiers = NotifierChain(self)  # type: ignore[arg-type]
        self.intervals = IntervalNotifiers(self)  # type: ignore[arg-type]
        self.mmap_lock = RwSemaphore(scheduler, "mmap_lock")

    def event(self, *_: Any, **__: Any) -> None:
        pass

    def adopt(self, address: int, length: int) -> None:
        pass

    def _frames(self, address: int, pages: int) -> np.ndarray:
        first = address >> PAGE_SHIFT
        for page in range(first, first + pages):
            if page in self.absent:
                raise Fault.bad_address(page << PAGE_SHIFT)
            if page not in self.table:
                self._next += 1
                self.table[page] = self._next
        return np.array([self.table[page] << 1 | 1 for page in range(first, first + pages)], np.int64)

    def fault_in(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        self.faulted.append((address, pages, write))
        frames = self._frames(address, pages)
        yield self.fault_ns
        if self.during_fault is not None:
            hook, self.during_fault = self.during_fault, None
            yield from hook()
        return frames

    def fault_in_page(self, address: int, write: bool) -> Steps[int]:
        return int((yield from self.fault_in(address, 1, write))[0])

    def snapshot(self, address: int, pages: int) -> Steps[list[tuple[int, np.ndarray]]]:
        first = address >> PAGE_SHIFT
        yield 0
        present = sorted(page for page in self.table if first <= page < first + pages)
        return [(page, np.array([self.table[page] << 1 | 1], np.int64)) for page in present]

    def pin(self, address: int, pages: int, write: bool) -> Steps[np.ndarray]:
        frames = self._frames(address, pages)
        yield self.fault_ns
        for frame in frames >> 1:
            self.pinned[int(frame)] = self.pinned.get(int(frame), 0) + 1
        return frames

    def unpin(self, frames: np.ndarray) -> None:
        for frame in frames:
            self.pinned[int(frame)] -= 1

    def zap(self, start: int, end: int, operation: str = "madvise", blockable: bool = True) -> Steps[bool]:
        """Take pages away as madvise(DONTNEED) does: notify, clear, notify."""
        thread = self.scheduler.current
        assert thread is not None
        thread.context.append(operation)
        event = Event.PROTECTION_PAGE if operation == "fork" else Event.CLEAR
        bounds = NotifierRange(self, start, end, event, operation, blockable)  # type: ignore[arg-type]
        ok = yield from invalidate_range_start(bounds)
        if ok:
            for page in [page for page in self.table if start <= page << PAGE_SHIFT < end]:
                del self.table[page]
            yield from invalidate_range_end(bounds)
        thread.context.pop()
        return ok


class Bench:
    """The driver, one device, one process. ``call`` runs a host thread to its end."""

    def __init__(self, discipline: str = "v6.12", profile: Any = None, **options: Any) -> None:
        from nicemu.mm.discipline import discipline as find

        self.engine = FakeEngine()
        self.scheduler = Scheduler(lambda: self.engine.now)
        self.timeline = Timeline(self.engine, self.scheduler, lambda messages: self.driver.deliver(messages))
        self.device = FakeDevice(self.engine, profile or NicProfile())
        self.costs = HostCosts()
        options.setdefault("subscriber", "interval" if discipline == "v6.12" else "chain")
        self.driver = Driver(self.scheduler, [self.device], self.costs, lambda: 7, Options(**options))
        self.mm = FakeMm(self.scheduler, find(discipline))

    @property
    def now(self) -> int:
        return self.engine.now

    def call(self, steps: Steps[Any]) -> Any:
        return self.timeline.call(steps, "test")

    def spawn(self, steps: Steps[Any], name: str = "other") -> Any:
        thread = self.scheduler.spawn(steps, name)
        thread.joined = True
        return thread

    def run(self) -> None:
        """Until nothing is left to do."""
        self.timeline.advance(lambda: False)

    def open(self) -> Context:
        return context.open_device(self.driver, "nicemu0", self.mm)

    def region(
        self, access: int, pages: int = 4, address: int = 0x100000, length: int = 0, iova: int | None = None
    ) -> Mr:
        """An MR in a new PD of a new context."""
        domain = pd.allocate(self.open())
        length = length or pages * PAGE_SIZE
        region: Mr = self.call(mr.register(domain, address, length, access, address if iova is None else iova))
        return region

    def frames_of(self, region: Mr) -> dict[int, int]:
        """The device's view: frame of each page it can translate."""
        mtt = self.device.mkeys[region.index].mtt
        return {page: (entry >> MTT_FRAME_SHIFT) & (1 << 30) - 1 for page, entry in mtt.items()}
