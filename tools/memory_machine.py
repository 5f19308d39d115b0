"""A machine without a NIC, for the memory gate: a host, one program with an arena, and the compiled moves of a DMA."""

from __future__ import annotations

import os

import numpy as np

from nicemu._jit import guard
from nicemu.memory.arena import Arena
from nicemu.memory.copy import read_page, write_page
from nicemu.memory.safe_copy import scratch
from nicemu.mm.bare_host import BareHost
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.tables.world import address_of

PAGE = 4096
RAM_PAGES, SWAP_PAGES = 1024, 1 << 14


class Machine(BareHost):
    """A host with one program, an arena, and the two compiled moves."""

    frame_ids = 1 << 20

    def __init__(self, ram: int = RAM_PAGES, swap: int = SWAP_PAGES) -> None:
        self.arena = Arena()
        super().__init__(ram=ram, swap=swap, arena=self.arena)
        self.control = self.world.control[0]
        self.control.epoch = 1
        self.control.sanitizer = 0
        self.control.pid, self.control.graveyard = os.getpid(), self.frames.graveyard
        self.control.scratch_fd, self.control.scratch_map = scratch()
        self.control.copy_code, self.control.probe_code, self.control.watch_code = guard.codes()
        self.buffer = np.zeros(PAGE, np.uint8)
        self._buffer_at = address_of(self.buffer)
        self._read, self._write = (getattr(copy, "load", lambda copy=copy: copy)() for copy in (read_page, write_page))

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
