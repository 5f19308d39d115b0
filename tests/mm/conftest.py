"""Fixtures of the mm tests: a machine with model memory, without a device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nicemu.memory.arena import Arena
from nicemu.memory.frames import Frames
from nicemu.mm import Host, Process
from nicemu.mm.page import PG_HWPOISON
from nicemu.tables.records import Stop
from nicemu.tables.world import Capacity, World
from nicemu.timeline.host import Scheduler
from nicemu.timeline.loop import Timeline

PAGE = 4096
COSTS = SimpleNamespace(
    syscall_ns=150, fault_ns=1500, fault_page_ns=98, zero_page_ns=200, copy_page_ns=400, pte_ns=5, tlb_flush_ns=500,
    swap_read_ns=60_000, swap_write_ns=20_000, swap_page_ns=1300, scan_page_ns=50, irq_ns=1000, file_read_ns=80_000,
    file_write_ns=25_000, dax_flush_ns=300, ksm_compare_ns=400, numa_remote_ns=60,
)  # fmt: skip


class NoDevice:
    """An engine without events: time is what host threads make it."""

    def __init__(self, world: World) -> None:
        self.now = memoryview(world.control.view(np.ndarray)["now"])

    def run(self, until: int) -> Stop:
        return Stop.IDLE

    def enter(self) -> None:
        pass

    def interrupts(self) -> list[Any]:
        return []

    def error(self, stop: Stop) -> Exception:
        return RuntimeError(stop)

    def set_time(self, time: int) -> None:
        self.now[0] = max(time, self.now[0])


class Machine:
    """A host, its timeline, the events it logged."""

    def __init__(self, discipline: str = "v6.12", ram: int = 4096, swap: int = 4096, arena: Arena | None = None,
                 kswapd: bool = False) -> None:  # fmt: skip
        self.world = World(Capacity(frames=1 << 19, nodes=1 << 14, packets=64, events=64, qps=4, cqs=4, mkeys=4,
                                    sq_entries=64))  # fmt: skip
        self.world.control[0].stamp = 1
        self.frames = Frames(self.world, ram, model_pages=ram)
        engine = NoDevice(self.world)
        self.scheduler = Scheduler(lambda: engine.now[0])
        self.timeline = Timeline(engine, self.scheduler, lambda _: None)
        self.events: list[tuple[str, dict[str, Any]]] = []
        profile = SimpleNamespace(costs=COSTS, ram_pages=ram, swap_pages=swap, numa_nodes=1, swap_queue_depth=32,
                                  min_free_pages=None if kswapd else 0, rlimit_memlock_bytes=None, cap_ipc_lock=False,
                                  oom_score_adj=0, oom_kills_program=False)  # fmt: skip
        self.host = Host(self.world, self.frames, self.scheduler, profile, discipline, self._log, kswapd)
        self.host.arena = arena
        self.mm = self.host.new_address_space("program")
        self.process = Process(self.host, arena, self.mm, "arena" if arena else "model")

    def _log(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def run(self, steps: Generator[Any, Any, Any], name: str = "test") -> Any:
        return self.timeline.call(steps, name)

    def kinds(self, *wanted: str) -> list[str]:
        """Kinds of the events since the last call, in order."""
        events, self.events = self.events, []
        return [kind for kind, _ in events if not wanted or kind in wanted]

    def frame(self, address: int) -> int:
        """Frame mapped at an address, 0 if none."""
        entry = self.mm.page_table.get(address // PAGE)
        return entry >> 12 if entry & 1 else 0

    def check_counts(self, *spaces: Any) -> None:
        """mapcount of every frame is the number of entries that map it, and nothing leaks."""
        mapped: dict[int, int] = {}
        for mm in spaces or (self.mm,):
            for frame in mm.frames_in(0, 1 << 48).tolist():
                mapped[frame] = mapped.get(frame, 0) + 1
        pages = self.host.pages
        cached = {frame for file in self.host.files.values() for frame in file.pages.values()}
        cached |= {self.host.xip_sparse} - {0}
        for frame in cached - set(mapped):
            assert pages.mapcount[frame] == 0 and pages.refcount[frame] == 1 + (pages.flags[frame] >> 16)
        assert not self.host.page_locks and not self.host.writebacks
        for frame, count in mapped.items():
            assert pages.mapcount[frame] == count
            assert pages.refcount[frame] == count + (pages.flags[frame] >> 16) + (frame in cached)
        held = {frame for frame in range(1, self.frames._next) if pages.kind[frame] and pages.refcount[frame]}
        assert self.frames.allocated == len(held | set(mapped)) + self.host.hugetlb.parked
        unmapped = held - set(mapped) - cached - {self.host.zero_frame}
        assert all(pages.pinned(frame) or pages.flags[frame] & PG_HWPOISON for frame in unmapped)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def make_machine() -> Callable[..., Machine]:
    return Machine


@pytest.fixture
def arena() -> Iterator[Arena]:
    region = Arena(size=1 << 30)
    yield region
    region.close()
