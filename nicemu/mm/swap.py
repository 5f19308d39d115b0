"""Swap: slots with real bytes for model pages, use counts per slot (``swap_map``), pages under writeback.

Arena and program pages occupy a slot too (the counters and the latency are real), but their bytes stay where they
are. A slot's contents stay until its last user swaps in or goes away.

Left out: the swap cache (each user of a shared slot reads its own copy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.page import MODEL
from nicemu.mm.page_table import PFN_SHIFT, SOFT_DIRTY, SWAP, UFFD_WP
from nicemu.tables.world import lazy_bytes
from nicemu.timeline.host import Completion, Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host

SWAP_KEPT = SOFT_DIRTY | UFFD_WP
"""Bits that a swap entry keeps of the entry it replaces."""
READAHEAD_PAGES = 8
"""Pages of one swap read (``page_cluster`` 3)."""


class Swap:
    """One swap device."""

    def __init__(self, host: Host, pages: int) -> None:
        self.host, self.pages = host, pages
        area = lazy_bytes((pages + 1) * PAGE_SIZE)
        self._bytes = area[: (pages + 1) * PAGE_SIZE].reshape(pages + 1, PAGE_SIZE)
        self._map: np.ndarray = np.zeros(pages + 1, np.int64)
        self._users = self._map.data
        self._free: list[int] = []
        self._next = 1
        self.used = self.peak = 0
        self.writeback: dict[int, Completion] = {}
        """Slots whose bytes are not written yet."""

    def get_slot(self) -> int:
        """``get_swap_page``: a slot with one user, 0 if swap is full."""
        if self._free:
            slot = self._free.pop()
        elif self._next <= self.pages:
            slot = self._next
            self._next += 1
        else:
            return 0
        self._users[slot] = 1
        self.used += 1
        self.peak = max(self.peak, self.used)
        return slot

    def get(self, slot: int) -> None:
        """One more user of a slot."""
        self._users[slot] += 1

    def users(self, slot: int) -> int:
        """``swp_swapcount``."""
        return self._users[slot]

    def duplicate(self, slots: np.ndarray) -> None:
        """``swap_duplicate``: one more user of each slot (fork)."""
        np.add.at(self._map, slots, 1)

    def put(self, slot: int) -> None:
        """``swap_free``: one user less."""
        self._users[slot] -= 1
        if self._users[slot] == 0:
            self._free.append(slot)
            self.used -= 1

    def put_entries(self, entries: np.ndarray) -> None:
        """Drop the slots of these swap entries."""
        for slot in (entries >> PFN_SHIFT).tolist():
            self.put(slot)

    def write(self, slot: int, frame: int) -> None:
        """Bytes of a model page to the slot."""
        self.host.counters["pswpout"] += 1
        if self.host.pages.kind[frame] == MODEL:
            self._bytes[slot] = self.host.frames.bytes_of(frame)

    def read(self, slots: list[int], frames: list[int]) -> Steps[None]:
        """``swap_readpage``: sleeps for the device, after any writeback of these slots."""
        for slot in slots:
            if slot in self.writeback:
                yield self.writeback[slot]
        self.host.counters["pswpin"] += len(slots)
        self.host.counters["pgmajfault"] += len(slots)
        yield Sleep(self.host.costs.swap_read_ns * -(-len(slots) // READAHEAD_PAGES))
        for slot, frame in zip(slots, frames, strict=True):
            if self.host.pages.kind[frame] == MODEL:
                self.host.frames.bytes_of(frame)[:] = self._bytes[slot]


def swap_entry(slot: int) -> int:
    """The page-table entry of a page in ``slot``."""
    return slot << PFN_SHIFT | SWAP
