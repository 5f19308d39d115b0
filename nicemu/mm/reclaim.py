"""Reclaim (``vmscan.c``): a clock over all anonymous and file pages, direct reclaim, kswapd.

The list is first in, first out with a second chance for pages whose accessed bit is set. A page is isolated (one
reference), unmapped everywhere with the notifiers of the discipline, written to swap unless the swap cache has it
clean, and freed; file pages: ``reclaim_file.py``.

A huge page is split before any of it goes (6.12 can write it to swap whole: left out), and hugetlb pages stay.

Left out: active and inactive lists, workingset, cgroups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.compound import compound_head, is_compound
from nicemu.mm.huge_split import split_huge_page
from nicemu.mm.madvise_free import discard_lazyfree
from nicemu.mm.mlock import mlocked
from nicemu.mm.page import (
    MODEL,
    PAGE_SHIFT,
    PG_DEVICE_PRIVATE,
    PG_FILE,
    PG_HUGETLB,
    PG_LAZYFREE,
    PG_MLOCKED,
    PG_UNEVICTABLE,
    PIN,
)
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.mm.reclaim_file import shrink_file_pages
from nicemu.mm.rmap import Unmapping, page_referenced, rmap_lock, rmap_walk, try_to_unmap_one
from nicemu.mm.swap import SWAP_KEPT, swap_entry
from nicemu.timeline.host import Completion, HostThread, Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

CLUSTER = 32
"""Pages isolated and written together (``SWAP_CLUSTER_MAX``)."""


class Lru:
    """Frames in the order they came. An entry is alive if it is the frame's newest; dead ones are skipped."""

    def __init__(self, frames: int) -> None:
        self._ring = np.zeros(1 << 12, np.int64)
        self._places: np.ndarray = np.zeros(frames, np.int64)
        self._place = self._places.data
        self._head = self._tail = 1 << 32  # room before the head for :meth:`age`

    def __len__(self) -> int:
        return self._tail - self._head

    def add(self, frame: int) -> None:
        """Put a frame at the tail."""
        if len(self) == len(self._ring):
            self._compact(1)
        self._ring[self._tail & len(self._ring) - 1] = frame
        self._place[frame] = self._tail
        self._tail += 1

    def add_many(self, frames: np.ndarray) -> None:
        """Put frames at the tail, in order."""
        if len(self) + len(frames) > len(self._ring):
            self._compact(len(frames))
        places = np.arange(self._tail, self._tail + len(frames))
        self._ring[places & len(self._ring) - 1] = frames
        self._places[frames] = places
        self._tail += len(frames)

    def take(self) -> int:
        """The oldest live frame, 0 if there is none."""
        while self._head < self._tail:
            frame = int(self._ring[self._head & len(self._ring) - 1])
            self._head += 1
            if self._place[frame] == self._head - 1:
                self._place[frame] = 0
                return frame
        return 0

    def age(self, frames: np.ndarray) -> None:
        """Put frames at the head: the next to go."""
        if len(self) + len(frames) > len(self._ring):
            self._compact(len(frames))
        self._head -= len(frames)
        places = np.arange(self._head, self._head + len(frames))
        self._ring[places & len(self._ring) - 1] = frames
        self._places[frames] = places

    def drop(self, frame: int) -> None:
        """Take a frame off the list."""
        self._place[frame] = 0

    def _compact(self, more: int) -> None:
        places = np.arange(self._head, self._tail)
        frames = self._ring[places & len(self._ring) - 1]
        live = frames[self._places[frames] == places]
        size = len(self._ring)
        while size < 2 * (len(live) + more):
            size *= 2
        self._ring = np.zeros(size, np.int64)
        self._head = self._tail = self._tail  # places never repeat
        places = np.arange(self._tail, self._tail + len(live))
        self._ring[places & size - 1] = live
        self._places[live] = places
        self._tail += len(live)


class Reclaim:
    """Reclaim of one host."""

    def __init__(self, host: Host, kswapd: bool) -> None:
        self.host = host
        self.lru = Lru(len(host.frames.table))
        self.isolated: dict[int, None] = {}
        """Frames off the list whose pages are locked: unmapped or being unmapped, by reclaim or migration."""
        ram = host.frames.ram_pages
        self.kswapd_enabled = kswapd
        self.low, self.high = ram // 64, ram // 32
        self._kswapd: HostThread | None = None

    @property
    def running(self) -> bool:
        """Somebody is freeing pages now."""
        return bool(self.isolated)

    def direct(self, pages: int) -> Steps[int]:
        """``try_to_free_pages``: in the context of whoever needs memory; pages freed."""
        self.host.counters["allocstall"] += 1
        return (yield from self.shrink(pages))

    def shrink(self, pages: int) -> Steps[int]:
        """``shrink_list``: free about ``pages`` pages; gives how many were freed."""
        freed = 0
        budget = 2 * len(self.lru) + CLUSTER
        while freed < pages and budget > 0:
            victims, looked = yield from self._isolate(min(CLUSTER, pages - freed), budget)
            budget -= looked
            if not victims:
                break
            freed += yield from self._pageout(victims)
        return freed

    def evict(self, mm: AddressSpace, address: int) -> Steps[bool]:
        """Reclaim the page at ``address`` now; False if there is none or it cannot go."""
        entry = mm.page_table.get(address >> PAGE_SHIFT)
        frame = entry >> PFN_SHIFT
        if not entry & PRESENT or frame == self.host.zero_frame or not self._evictable(frame):
            return False
        self.lru.drop(frame)
        return (yield from self._pageout([frame])) == 1

    def reclaim_range(self, mm: AddressSpace, start: int, end: int) -> Steps[int]:
        """``MADV_PAGEOUT``: reclaim every page of the range that only this address space maps."""
        freed = 0
        for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
            entries = mm.page_table.view(a, b)
            frames = (entries[(entries & PRESENT) != 0] >> PFN_SHIFT).tolist()
            victims = [f for f in frames if f != self.host.zero_frame and self._evictable(f)
                       and self.host.pages.mapcount[f] == 1]  # fmt: skip
            for i in range(0, len(victims), CLUSTER):
                cluster = [f for f in victims[i : i + CLUSTER] if self._may_go(f)]
                for frame in cluster:
                    self.lru.drop(frame)
                freed += yield from self._pageout(cluster)
        return freed

    def wakeup_kswapd(self) -> None:
        """``wakeup_kswapd``: reclaim in the background when free memory is low."""
        if (
            self.kswapd_enabled
            and self.host.frames.available < self.low
            and (self._kswapd is None or self._kswapd.finished)
        ):
            self._kswapd = self.host.scheduler.spawn(self._background(), "kswapd")

    def _background(self) -> Steps[None]:
        self.host.thread.context.append("kswapd")
        self.host.lockdep.fs_reclaim.enter(self.host.thread)
        while self.host.frames.available < self.high:
            if not (yield from self.shrink(CLUSTER)):
                return

    def isolate(self, frame: int) -> bool:
        """``isolate_lru_page`` and the page lock: a reference, and nobody else unmaps the page; False if it cannot
        go."""
        if not self._may_go(frame):
            return False
        self.lru.drop(frame)
        self.host.pages.get(frame)
        self.isolated[frame] = None
        if self.host.pages.flags[frame] & PG_FILE:
            self.host.page_locks.set(frame)
        return True

    def putback(self, frame: int, operation: str) -> None:
        """``putback_lru_page``: give the reference back, which frees a page that nobody maps."""
        self.isolated.pop(frame, None)
        if frame in self.host.page_locks:
            self.host.page_locks.clear(frame)
        if self._used(frame) and not self.host.pages.flags[frame] & PG_DEVICE_PRIVATE:
            self.lru.add(frame)
        if self.host.pages.put(frame):
            self.host.event("free", frame=frame, operation=operation)

    def _used(self, frame: int) -> bool:
        """Is it mapped, or in a page cache? Otherwise it belongs on no list."""
        return bool(self.host.pages.mapcount[frame] > 0 or self.host.pages.flags[frame] & PG_FILE)

    def _may_go(self, frame: int) -> bool:
        host, flags = self.host, self.host.pages.flags[frame]
        return (
            self._used(frame) and flags < PIN and not flags & (PG_HUGETLB | PG_UNEVICTABLE)
            and frame not in self.isolated and frame not in host.page_locks and frame not in host.writebacks
        )  # fmt: skip

    def _evictable(self, frame: int) -> bool:
        """May reclaim have it? Linux keeps locked pages on a list of their own."""
        flags = self.host.pages.flags[frame]
        return self._may_go(frame) and not flags & PG_DEVICE_PRIVATE and not (
            flags & PG_MLOCKED and mlocked(self.host, frame))  # fmt: skip

    def _isolate(self, wanted: int, budget: int) -> Steps[tuple[list[int], int]]:
        """Up to ``wanted`` pages that were not used lately, looking at ``budget`` at most."""
        victims: list[int] = []
        looked = 0
        while len(victims) < wanted and looked < budget:
            frame = self.lru.take()
            if not frame:
                break
            looked += 1
            if not self._may_go(frame):
                if self._used(frame) and not self.host.pages.flags[frame] & PG_UNEVICTABLE:
                    self.lru.add(frame)
            elif (yield from page_referenced(self.host, frame)):
                self.lru.add(frame)
            elif self._evictable(frame):
                self.isolated[frame] = None
                victims.append(frame)
            elif self._used(frame):
                self.lru.add(frame)
        for frame in victims:
            del self.isolated[frame]
        return victims, looked

    def _pageout(self, victims: list[int]) -> Steps[int]:
        """``shrink_page_list``: file pages, then anonymous ones."""
        flags = self.host.pages.flags
        of_files = [frame for frame in victims if flags[frame] & PG_FILE]
        anonymous = [frame for frame in victims if not flags[frame] & PG_FILE]
        freed = (yield from shrink_file_pages(self.host, of_files)) if of_files else 0
        return freed + ((yield from self._swap_out(anonymous)) if anonymous else 0)

    def _swap_out(self, victims: list[int]) -> Steps[int]:
        """Unmap, write to swap as one cluster what is not there, free."""
        host, swap, thread = self.host, self.host.swap, self.host.thread
        victims = yield from self._split_huge(victims)
        written = Completion(host.scheduler, "writeback")
        for frame in victims:
            host.pages.get(frame)
            self.isolated[frame] = None
        slots: list[int] = []
        thread.context.append("reclaim")
        try:
            for frame in victims:
                if host.pages.flags[frame] & PG_LAZYFREE:
                    yield from discard_lazyfree(host, frame)
                    continue
                clean = swap.slot_of.get(frame, 0)
                slot = clean or swap.get_slot()
                if clean:
                    swap.get(slot)
                elif slot:
                    swap.writeback[slot] = written
                    slots.append(slot)
                if slot:
                    yield from self._unmap(frame, slot, not clean)
            unmapping_ns = (host.costs.pte_ns + host.costs.tlb_flush_ns) * len(victims)
            yield Sleep(host.costs.swap_write_ns + unmapping_ns) if slots else unmapping_ns
        finally:
            thread.context.pop()
            for slot in slots:
                swap.writeback.pop(slot, None)
            written.complete()
        return self._free(victims)

    def _split_huge(self, victims: list[int]) -> Steps[list[int]]:
        """``split_folio``: the victims that can go, none of them part of a huge page any more."""
        if not any(is_compound(self.host, frame) for frame in victims):
            return victims
        for frame in victims:
            if is_compound(self.host, frame):
                yield from split_huge_page(self.host, compound_head(frame))
        ready = []
        for frame in victims:
            if self._may_go(frame) and not is_compound(self.host, frame):
                self.lru.drop(frame)
                ready.append(frame)
            elif self.host.pages.mapcount[frame] > 0:
                self.lru.add(compound_head(frame) if is_compound(self.host, frame) else frame)
        return ready

    def _unmap(self, frame: int, slot: int, write: bool) -> Steps[None]:
        """``try_to_unmap`` and the copy to swap; the slot has a user per entry replaced."""
        host, users = self.host, 0
        unmapping = Unmapping(frame, "reclaim", "unmap_one", lambda entry: swap_entry(slot) | entry & SWAP_KEPT)
        early = write and host.broken("swap_write_before_unmap")
        if early:
            host.swap.write(slot, frame)
        lock = yield from rmap_lock(host, frame)
        try:
            for vma, page in rmap_walk(host, frame):
                host.swap.get(slot)
                if (yield from try_to_unmap_one(host, vma, page, unmapping)):
                    users += 1
                    vma.mm.event("swap_out", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, frame=frame, slot=slot)
                else:
                    host.swap.put(slot)
        finally:
            if lock is not None:
                lock.release(host.thread)
        if users:
            if write and not early:
                host.swap.write(slot, frame)
            if host.pages.kind[frame] != MODEL:
                host.frames.retire(frame)
        host.swap.put(slot)

    def _free(self, victims: list[int]) -> int:
        freed = 0
        for frame in victims:
            self.isolated.pop(frame, None)
            if self.host.pages.mapcount[frame] > 0:
                self.lru.add(frame)
            if self.host.pages.put(frame):
                freed += 1
                self.host.event("free", frame=frame, operation="reclaim")
        return freed
