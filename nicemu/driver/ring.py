"""Memory that host and device share: rings (whole pages) and doorbell records (``mlx5_buf_alloc, mlx5_db_alloc``).

Where the pages come from is an argument, so that another process can map them.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nicemu.abi.rings import DOORBELL_RECORD_BYTES
from nicemu.abi.verbs import PAGE_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Shared bytes: the address the device uses, and the same bytes as the host sees them."""

    address: int
    view: memoryview


Allocator = Callable[[int], Memory]
"""``size`` -> zeroed, page-aligned memory of at least that size."""


def anonymous(size: int) -> Memory:
    """Zeroed pages of this process, committed when touched. They live as long as a view of them does."""
    pages = mmap.mmap(-1, -(-max(size, 1) // PAGE_SIZE) * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = int(np.frombuffer(pages, np.uint8).ctypes.data)
    return Memory(address, memoryview(pages)[:size])


class DoorbellRecords:
    """Doorbell records, many to a page."""

    def __init__(self, allocate: Allocator) -> None:
        self._allocate = allocate
        self._free: deque[Memory] = deque()

    def take(self) -> Memory:
        """A zeroed record."""
        if not self._free:
            page = self._allocate(PAGE_SIZE)
            for at in range(0, PAGE_SIZE, DOORBELL_RECORD_BYTES):
                self._free.append(Memory(page.address + at, page.view[at : at + DOORBELL_RECORD_BYTES]))
        record = self._free.popleft()
        record.view[:] = bytes(DOORBELL_RECORD_BYTES)
        return record

    def give(self, record: Memory) -> None:
        """The record is free again."""
        self._free.append(record)
