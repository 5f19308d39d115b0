"""Reclaim (``vmscan.c``): direct reclaim, kswapd.

Pages are looked at in the order of their lists (``lru.py``) and stay if they were used. Others are isolated (one
reference), unmapped everywhere with the notifiers of the discipline, written to swap unless the swap cache has them
clean, and freed; file pages: ``reclaim_file.py``. A cluster is written and freed together; each page is unmapped, and
notified, by itself, as ``shrink_folio_list`` does.

A huge page is split before any of it goes (6.12 can write it to swap whole: left out), and hugetlb pages stay.

Left out: workingset, batched TLB flushes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.compound import compound_head, is_compound
from nicemu.mm.huge_split import split_huge_page
from nicemu.mm.lru import Lru, Ring
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
)
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.mm.reclaim_file import shrink_file_pages
from nicemu.mm.rmap import Unmapping, page_referenced, referenced_at_once, rmap_lock, rmap_walk, try_to_unmap_one
from nicemu.mm.swap import SWAP_KEPT, swap_entry
from nicemu.timeline.host import Completion, HostThread, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host
    from nicemu.mm.memcg import Memcg

CLUSTER = 32
"""Pages isolated and written together (``SWAP_CLUSTER_MAX``)."""
MAX_RECLAIM_RETRIES = 16
"""Rounds without progress after which kswapd gives up and an allocation calls the OOM killer."""


class Reclaim:
    """Reclaim of one host."""

    def __init__(self, host: Host, kswapd: bool) -> None:
        self.host = host
        self.lru = Lru(len(host.frames.table))
        self.isolated: dict[int, None] = {}
        """Frames off the list whose pages are locked: unmapped or being unmapped, by reclaim or migration."""
        self.kswapd_enabled = kswapd
        self._kswapd: HostThread | None = None
        self._kswapd_failures = 0
        self._scanners = 0
        """Threads that look at pages: those are off their lists meanwhile, and nobody else finds them."""

    @property
    def running(self) -> bool:
        """Somebody is freeing pages now."""
        return bool(self.isolated or self._scanners)

    def direct(self, pages: int, memcg: Memcg | None = None) -> Steps[int]:
        """``try_to_free_pages``, ``try_to_free_mem_cgroup_pages``: in the context of who needs memory; pages freed."""
        self.host.counters["allocstall"] += 1
        freed = yield from self.shrink(pages, memcg)
        self.host.counters["pgsteal_direct"] += freed
        return freed

    def shrink(self, pages: int, memcg: Memcg | None = None) -> Steps[int]:
        """``shrink_lruvec``: free about ``pages`` pages (of a group, if given); gives how many were freed."""
        freed = 0
        budget = 3 * len(self.lru) + CLUSTER
        while freed < pages and budget > 0:
            self._scanners += 1
            try:
                victims, looked = yield from self._isolate(min(CLUSTER, pages - freed), budget, memcg)
            finally:
                self._scanners -= 1
            budget -= looked
            if not victims:
                break
            freed += yield from self._pageout(victims)
        if freed:
            self._kswapd_failures = 0
        return freed

    def evict(self, mm: AddressSpace, address: int) -> Steps[bool]:
        """Reclaim the page at ``address`` now; False if there is none or it cannot go."""
        entry = mm.page_table.get(address >> PAGE_SHIFT)
        frame = entry >> PFN_SHIFT
        if not entry & PRESENT or frame == self.host.zero_frame or not (yield from self._isolate_small(frame)):
            return False
        return (yield from self._pageout([frame])) == 1

    def reclaim_range(self, mm: AddressSpace, start: int, end: int) -> Steps[int]:
        """``MADV_PAGEOUT``: reclaim every page of the range that only this address space maps."""
        freed, pages = 0, self.host.pages
        for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
            entries = mm.page_table.view(a, b)
            frames = (entries[(entries & PRESENT) != 0] >> PFN_SHIFT).tolist()
            for i in range(0, len(frames), CLUSTER):
                cluster = []
                for frame in frames[i : i + CLUSTER]:
                    alone = frame != self.host.zero_frame and pages.mapcount[frame] == 1
                    if alone and (yield from self._isolate_small(frame)):
                        cluster.append(frame)
                if cluster:
                    freed += yield from self._pageout(cluster)
        return freed

    def wakeup_kswapd(self, pages: int = 0) -> None:
        """``wakeup_kswapd``: reclaim in the background if free memory is low, or will be when ``pages`` are taken. Not
        after it has failed too often: who needs memory then reclaims by itself."""
        low = self.host.frames.available - pages < self.host.watermarks.low
        if not low or not self.kswapd_enabled or (self._kswapd is not None and not self._kswapd.finished):
            return
        if self._kswapd_failures < MAX_RECLAIM_RETRIES:
            self._kswapd = self.host.scheduler.spawn(self._background(), "kswapd")

    def _background(self) -> Steps[None]:
        """``balance_pgdat``."""
        host = self.host
        host.thread.context.append("kswapd")
        host.lockdep.fs_reclaim.enter(host.thread)
        while host.frames.available < host.watermarks.high:
            freed = yield from self.shrink(CLUSTER)
            host.counters["pgsteal_kswapd"] += freed
            if not freed:
                self._kswapd_failures += 1
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
            self._used(frame) and not host.pages.pins[frame] and not flags & (PG_HUGETLB | PG_UNEVICTABLE)
            and frame not in self.isolated and frame not in host.page_locks and frame not in host.writebacks
        )  # fmt: skip

    def _evictable(self, frame: int) -> bool:
        """May reclaim have it? Linux keeps locked pages on a list of their own."""
        flags = self.host.pages.flags[frame]
        return self._may_go(frame) and not flags & PG_DEVICE_PRIVATE and not (
            flags & PG_MLOCKED and mlocked(self.host, frame))  # fmt: skip

    def _isolate(self, wanted: int, budget: int, memcg: Memcg | None) -> Steps[tuple[list[int], int]]:
        """Isolate up to ``wanted`` inactive pages that were not used lately, looking at ``budget`` at most."""
        victims: list[int] = []
        looked = 0
        while len(victims) < wanted and looked < budget:
            if self.lru.inactive_is_low:
                looked += yield from self._shrink_active(memcg)
            frames = _oldest(self.lru.inactive, wanted - len(victims), memcg)
            if not len(frames) and not (yield from self._shrink_active(memcg)):
                break
            looked += len(frames)
            for frame in frames.tolist():
                if not self._may_go(frame):
                    if self._used(frame) and not self.host.pages.flags[frame] & PG_UNEVICTABLE:
                        self.lru.rotate(frame)
                    continue
                used = referenced_at_once(self.host, frame)
                if used is None:
                    used = yield from page_referenced(self.host, frame)
                if used:
                    self.lru.used(frame)
                elif (yield from self._isolate_small(frame)):
                    victims.append(frame)
                elif self._used(frame):
                    self.lru.rotate(compound_head(frame) if is_compound(self.host, frame) else frame)
            yield self.host.costs.scan_page_ns * len(frames)
        self.host.counters["pgscan"] += looked
        return victims, looked

    def _shrink_active(self, memcg: Memcg | None) -> Steps[int]:
        """``shrink_active_list``: the oldest active pages become inactive, and have to be used again to stay; how
        many."""
        frames = _oldest(self.lru.active, CLUSTER, memcg)
        for frame in frames.tolist():
            if referenced_at_once(self.host, frame) is None:
                yield from page_referenced(self.host, frame)
            if self._used(frame):
                self.lru.add(frame)
        yield self.host.costs.scan_page_ns * len(frames)
        self.host.counters["pgdeactivate"] += len(frames)
        return len(frames)

    def _pageout(self, victims: list[int]) -> Steps[int]:
        """``shrink_folio_list`` of isolated pages: those of files, then anonymous ones; how many were freed."""
        flags = self.host.pages.flags
        of_files = [frame for frame in victims if flags[frame] & PG_FILE]
        anonymous = [frame for frame in victims if not flags[frame] & PG_FILE]
        freed = (yield from shrink_file_pages(self.host, of_files)) if of_files else 0
        return freed + ((yield from self._swap_out(anonymous)) if anonymous else 0)

    def _swap_out(self, victims: list[int]) -> Steps[int]:
        """Unmap, write to swap as one cluster what is not there, free. Those for which swap has no room stay."""
        swap, costs = self.host.swap, self.host.costs
        written = Completion(self.host.scheduler, "writeback")
        slots: list[int] = []
        try:
            pages = yield from self._unmap_cluster(victims, slots, written)
            if pages:
                yield from swap.device.request(costs.swap_write_ns, pages)
        finally:
            for slot in slots:
                swap.writeback.pop(slot, None)
                swap.put(slot)
            written.complete()
        return self._free(victims)

    def _unmap_cluster(self, victims: list[int], slots: list[int], written: Completion) -> Steps[int]:
        """Unmap the victims; their bytes are in their ``slots``, under writeback, at the end. Gives how many."""
        host, swap, thread = self.host, self.host.swap, self.host.thread
        early = host.broken("swap_write_before_unmap")
        taken: list[tuple[int, int]] = []
        thread.context.append("reclaim")
        try:
            for frame in victims:
                if host.pages.flags[frame] & PG_LAZYFREE:
                    yield from discard_lazyfree(host, frame)
                    continue
                slot = swap.slot_of.get(frame, 0)
                clean = slot > 0
                if clean:
                    swap.get(slot)
                else:
                    slot = swap.get_slot()
                    if not slot:
                        break
                    swap.writeback[slot] = written
                slots.append(slot)
                if early and not clean:
                    swap.write([slot], [frame])
                if (yield from self._unmap(frame, slot)) and not clean:
                    taken.append((slot, frame))
            yield (host.costs.pte_ns + host.costs.tlb_flush_ns) * len(slots)
        finally:
            thread.context.pop()
            if not early:
                swap.write([slot for slot, _ in taken], [frame for _, frame in taken])
        return len(taken)

    def _isolate_small(self, frame: int) -> Steps[bool]:
        """:meth:`isolate`, out of a huge page that is split first (``split_folio``); False if it cannot go."""
        if not self._evictable(frame):
            return False
        if is_compound(self.host, frame):
            yield from split_huge_page(self.host, compound_head(frame))
        return not is_compound(self.host, frame) and self._evictable(frame) and self.isolate(frame)

    def _unmap(self, frame: int, slot: int) -> Steps[bool]:
        """``try_to_unmap``: a swap entry wherever the page was mapped; the slot has a user for each. True if any."""
        host, users = self.host, 0
        unmapping = Unmapping(frame, "reclaim", "unmap_one", lambda entry: swap_entry(slot) | entry & SWAP_KEPT)
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
        if users and host.pages.kind[frame] != MODEL:
            host.frames.retire(frame)
        return users > 0

    def _free(self, victims: list[int]) -> int:
        pages, frames = self.host.pages, np.array(victims, np.int64)
        for frame in victims:
            self.isolated.pop(frame, None)
        self.lru.add_many(frames[pages.mapcounts[frames] > 0])
        freed = pages.put_many(frames)
        if self.host.log is not None:
            for frame in freed.tolist():
                self.host.event("free", frame=frame, operation="reclaim")
        return len(freed)


def _oldest(ring: Ring, wanted: int, memcg: Memcg | None) -> np.ndarray:
    """The oldest pages of a list (of the group, if given), taken off it."""
    return ring.take(wanted) if memcg is None else ring.oldest(wanted, memcg.members)
