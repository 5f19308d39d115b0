"""Swap: slots with real bytes for model pages, use counts per slot (``swap_map``), pages under writeback.

Arena and program pages occupy a slot too (the counters and the latency are real), but their bytes stay where they
are. A slot's contents stay until its last user swaps in or goes away.

The swap cache has model pages that are as their slot is: a shared slot is read once, for all its users, and a page that
was only read since can be dropped without being written. A page in it is mapped read-only; it leaves the cache before
it becomes writable (:meth:`Swap.forget`), when it is freed, and when swap is more than half full. The cache is one user
of the slot. Arena and program pages are not cached.

Left out: slots and pages are not kept together while a page is being written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.page import MODEL, PG_SWAPCACHE
from nicemu.mm.page_table import PFN_SHIFT, SOFT_DIRTY, SWAP, UFFD_WP
from nicemu.tables.records import FrameKind
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
        self.cache: dict[int, int] = {}
        """Slot -> frame (``swapper_space``)."""
        self.slot_of: dict[int, int] = {}
        """Frame in the cache -> slot."""
        self.reading: dict[int, Completion] = {}
        """Slots whose page in the cache has not got its bytes yet."""
        host.pages.delete_from_swap_cache = self.forget
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
        """``swp_swapcount``: without the cache."""
        return self._users[slot] - (slot in self.cache)

    @property
    def full(self) -> bool:
        """``vm_swap_full``: more than half is used, so slots are not kept for clean pages."""
        return self.used * 2 > self.pages

    def add_to_cache(self, slot: int, frame: int) -> None:
        """``add_to_swap_cache``: the cache becomes a user of the slot."""
        assert slot not in self.cache and self._users[slot], f"slot {slot}: cached twice or not in use"
        self._users[slot] += 1
        self.cache[slot], self.slot_of[frame] = frame, slot
        self.host.pages.flags[frame] |= PG_SWAPCACHE

    def forget(self, frame: int) -> None:
        """``delete_from_swap_cache``, if it is there."""
        slot = self.slot_of.pop(frame, 0)
        if slot:
            del self.cache[slot]
            self.host.pages.flags[frame] &= ~PG_SWAPCACHE
            self.put(slot)

    def read_cached(self, slot: int, canonical: int) -> Steps[int]:
        """``read_swap_cache_async``: the cached model page of a slot with a reference, read if need be. 0 if the slot
        is not in use any more. :raises Fault: ENOMEM."""
        host = self.host
        while True:
            frame = self.cache.get(slot, 0)
            if frame:
                host.pages.get(frame)
                if slot in self.reading:
                    yield self.reading[slot]
                return frame
            frame = int((yield from host.alloc_pages(FrameKind.MODEL, 1, 0, canonical))[0])
            if self._users[slot] and slot not in self.cache:
                break
            host.pages.put(frame)
            if not self._users[slot]:
                return 0
        self.add_to_cache(slot, frame)
        self.reading[slot] = Completion(host.scheduler, f"swap-in of slot {slot}")
        yield from self.read([slot], [frame])
        self.reading.pop(slot).complete()
        return frame

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
