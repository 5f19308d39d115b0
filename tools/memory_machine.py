"""A machine without a NIC, for the memory gate: a host, one program with an arena, and the compiled moves of a DMA."""

from __future__ import annotations

import os
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np

from nicemu.memory.arena import Arena
from nicemu.memory.copy import read_page, write_page
from nicemu.memory.frames import Frames
from nicemu.memory.safe_copy import scratch
from nicemu.mm import Host, Process
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.tables.records import Stop
from nicemu.tables.world import Capacity, World, address_of
from nicemu.timeline import Scheduler, Timeline

PAGE = 4096
COSTS = SimpleNamespace(
    syscall_ns=150, fault_ns=1500, fault_page_ns=98, zero_page_ns=200, copy_page_ns=400, pte_ns=5, tlb_flush_ns=500,
    swap_read_ns=60_000, swap_write_ns=20_000, swap_page_ns=1300, scan_page_ns=50, irq_ns=1000, file_read_ns=80_000,
    file_write_ns=25_000, dax_flush_ns=300, ksm_compare_ns=400, numa_remote_ns=60,
)  # fmt: skip
RAM_PAGES, SWAP_PAGES = 1024, 1 << 14


class NoDevice:
    """An engine without events, for a machine whose only device is the gate."""

    def __init__(self, world: World) -> None:
        self.now = memoryview(world.control.view(np.ndarray)["now"])

    def run(self, until: int) -> Stop:
        return Stop.IDLE

    def enter(self) -> None:
        """Nothing: the gate moves the epoch on itself, exactly when the program ran without asking us."""

    def interrupts(self) -> list[Any]:
        return []

    def error(self, stop: Stop) -> Exception:
        return RuntimeError(stop)

    def set_time(self, time: int) -> None:
        self.now[0] = max(time, self.now[0])


class Machine:
    """A host with one program, an arena, and the two compiled moves."""

    def __init__(self, ram: int = RAM_PAGES, swap: int = SWAP_PAGES) -> None:
        self.world = World(Capacity(frames=1 << 20, nodes=1 << 14, packets=64, events=64, qps=4, cqs=4, mkeys=4,
                                    sq_entries=64))  # fmt: skip
        self.frames = Frames(self.world, ram, model_pages=ram)
        self.control = self.world.control[0]
        self.control.stamp = self.control.epoch = 1
        self.control.sanitizer = 0
        self.control.pid, self.control.graveyard = os.getpid(), self.frames.graveyard
        self.control.scratch_fd, self.control.scratch_map = scratch()
        device = NoDevice(self.world)
        scheduler = Scheduler(lambda: device.now[0])
        self.timeline = Timeline(device, scheduler, lambda _: None)
        profile = SimpleNamespace(costs=COSTS, ram_pages=ram, swap_pages=swap, numa_nodes=1, swap_queue_depth=32,
                                  min_free_pages=0, rlimit_memlock_bytes=None, cap_ipc_lock=False, oom_score_adj=0,
                                  oom_kills_program=False)  # fmt: skip
        self.host = Host(self.world, self.frames, scheduler, profile, "v6.12")
        self.arena = Arena()
        self.mm = self.host.new_address_space("program")
        self.process = Process(self.host, self.arena, self.mm)
        self.buffer = np.zeros(PAGE, np.uint8)
        self._buffer_at = address_of(self.buffer)
        self._read, self._write = (getattr(copy, "load", lambda copy=copy: copy)() for copy in (read_page, write_page))

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        """An operation of the program, from start to end."""
        return self.timeline.call(steps, "program")

    def translate(self, address: int, write: bool = False) -> int:
        """The first instant of a DMA on one page: the frame."""
        return int(self.run(self.mm.fault_in(address & -PAGE, 1, write))[0]) >> 1

    def read(self, frame: int, offset: int, length: int) -> bytes | None:
        """The second instant of a device read; None where it ends in an error."""
        done = self._read(self.world.address, frame, offset, self._buffer_at, length)
        return self.buffer[:length].tobytes() if done else None

    def write(self, frame: int, offset: int, data: bytes) -> bool:
        """The second instant of a device write; False where it ends in an error."""
        self.buffer[: len(data)] = np.frombuffer(data, np.uint8)
        return bool(self._write(self.world.address, frame, offset, self._buffer_at, len(data)))

    def mapped(self, page: int) -> int:
        """Frame of a page number, 0 if none."""
        entry = self.mm.page_table.get(page)
        return entry >> PFN_SHIFT if entry & PRESENT else 0

    def close(self) -> None:
        """Give the arena's addresses back."""
        self.arena.close()
        self.world.close()
