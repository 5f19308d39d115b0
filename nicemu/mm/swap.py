"""Swap: slots with real bytes for model pages, use counts per slot (``swap_map``), pages under writeback.

Arena and program pages occupy a slot too (the counters and the latency are real), but their bytes stay where they
are. A slot's contents stay until its last user swaps in or goes away.

This process need not hold what can be said shorter: a page whose 64-bit words are all alike, as zswap and zram keep
it, or grow by the same number from one to the next, is kept as its first word and that number. Every other page is kept
as its 4096 bytes, in memory that is committed when it is first written.

The swap cache has model pages that are as their slot is: a shared slot is read once, for all its users, and a page that
was only read since can be dropped without being written. A page in it is mapped read-only; it leaves the cache before
it becomes writable (:meth:`Swap.forget`), when it is freed, and when swap is more than half full. The cache is one user
of the slot. Arena and program pages are not cached.

Left out: slots and pages are not kept together while a page is being written; priorities, several devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.page import MODEL, PG_SWAPCACHE, Fault
from nicemu.mm.page_table import PFN_SHIFT, SOFT_DIRTY, SWAP, UFFD_WP
from nicemu.mm.swap_device import SwapDevice
from nicemu.tables.records import FrameKind
from nicemu.tables.world import lazy_bytes, lazy_zeros
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

SWAP_KEPT = SOFT_DIRTY | UFFD_WP
"""Bits that a swap entry keeps of the entry it replaces."""
READAHEAD_PAGES = 8
"""Pages of one swap read (``page_cluster`` 3)."""


WORDS = PAGE_SIZE // 8
COUNT = np.arange(WORDS)


class SwapArea:
    """The bytes of ``pages`` + 1 slots; slot 0 is not used."""

    def __init__(self, pages: int) -> None:
        area = lazy_bytes((pages + 1) * PAGE_SIZE)
        self._whole = area[: (pages + 1) * PAGE_SIZE].view(np.int64).reshape(pages + 1, WORDS)
        self._first, self._step = lazy_zeros(pages + 1, np.int64), lazy_zeros(pages + 1, np.int64)
        self._short = lazy_zeros(pages + 1, bool)

    def store(self, slots: np.ndarray, contents: np.ndarray) -> None:
        """Bytes of pages (uint8, 4096 a row) to slots."""
        words = contents.view(np.int64)
        steps = words[:, 1] - words[:, 0]
        short = (np.diff(words, axis=1) == steps[:, None]).all(axis=1)
        self._short[slots], self._first[slots], self._step[slots] = short, words[:, 0], steps
        if not short.all():
            self._whole[slots[~short]] = words[~short]

    def load(self, slots: np.ndarray) -> np.ndarray:
        """Bytes of slots (uint8, 4096 a row)."""
        words = np.empty((len(slots), WORDS), np.int64)
        np.multiply(self._step[slots][:, None], COUNT, out=words)
        words += self._first[slots][:, None]
        whole = ~self._short[slots]
        if whole.any():
            words[whole] = self._whole[slots[whole]]
        return words.view(np.uint8)

    def short(self, slots: np.ndarray) -> int:
        """How many of these slots are kept short."""
        return int(np.count_nonzero(self._short[slots]))


class Swap:
    """One swap device."""

    def __init__(self, host: Host, profile: Any) -> None:
        self.host, self.pages = host, profile.swap_pages
        self.area, self.device = SwapArea(self.pages), SwapDevice(host.scheduler, profile)
        self._map = lazy_zeros(self.pages + 1, np.int64)
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
        return bool(self.used * 2 > self.pages)

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

    def read_cached(self, slot: int, mm: AddressSpace) -> Steps[int]:
        """``read_swap_cache_async``: the cached model page of a slot with a reference, read if need be. 0 if the slot
        is not in use any more. :raises Fault: ENOMEM; EFAULT, it could not be read."""
        host = self.host
        while True:
            frame = self.cache.get(slot, 0)
            if frame:
                host.pages.get(frame)
                if slot in self.reading:
                    yield self.reading[slot]
                    if self.cache.get(slot, 0) != frame:  # it could not be read
                        host.pages.put(frame)
                        continue
                return frame
            frame = int((yield from host.alloc_pages(FrameKind.MODEL, 1, 0, mm))[0])
            if self._users[slot] and slot not in self.cache:
                break
            host.pages.put(frame)
            if not self._users[slot]:
                return 0
        self.add_to_cache(slot, frame)
        self.reading[slot] = Completion(host.scheduler, f"swap-in of slot {slot}")
        try:
            yield from self.read([slot], [frame])
        except Fault:
            self.forget(frame)
            host.pages.put(frame)
            raise
        finally:
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

    def write(self, slots: list[int], frames: list[int]) -> None:
        """Bytes of model pages to their slots."""
        self.host.counters["pswpout"] += len(slots)
        where, what = self._model_pages(slots, frames)
        if len(where):
            self.area.store(where, self.host.pages.contents(what))

    def read(self, slots: list[int], frames: list[int]) -> Steps[None]:
        """``swap_readpage``: sleeps for the device, after any writeback of these slots."""
        costs = self.host.costs
        for slot in slots:
            if slot in self.writeback:
                yield self.writeback[slot]
        self.host.counters["pswpin"] += len(slots)
        self.host.counters["pgmajfault"] += len(slots)
        for at in range(0, len(slots), READAHEAD_PAGES):
            yield from self.device.request(costs.swap_read_ns, min(READAHEAD_PAGES, len(slots) - at))
        where, what = self._model_pages(slots, frames)
        if len(where):
            self.host.pages.set_contents(what, self.area.load(where))

    def _model_pages(self, slots: list[int], frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Those whose bytes move."""
        where, what = np.array(slots, np.int64), np.array(frames, np.int64)
        model = self.host.pages.kinds[what] == MODEL
        return where[model], what[model]


def swap_entry(slot: int) -> int:
    """The page-table entry of a page in ``slot``."""
    return slot << PFN_SHIFT | SWAP
