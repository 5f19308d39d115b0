"""KSM (``ksm.c``): pages with the same bytes, in areas that asked for it, become one page that all map read-only.

ksmd looks at one page after the other. A page that equals a KSM page is merged with it. Otherwise, if its checksum is
what it was in the pass before, it is kept in mind for the rest of the pass (the unstable tree), and a later page that
equals it makes both one new KSM page. Before bytes are compared for good the page is write-protected, so that neither
the CPU nor a device can change them: a page that somebody holds a reference to (a pin, O_DIRECT) is left alone. A huge
page is split when one of its pages has found its like. A write to a KSM page always copies it. The last mapping frees
it; the stable tree holds no reference.

The trees are dicts by checksum: what is found there is compared byte by byte.

Left out: ``max_page_sharing``, ``use_zero_pages``, merging across NUMA nodes as a choice, the smart scan, file pages;
MERGEABLE of a whole process (``prctl``).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.compound import compound_head
from nicemu.mm.cow import do_wp_page
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_split import isolate_vmas, split_huge_page
from nicemu.mm.locks import Mutex
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_DEVICE_PRIVATE, PG_DIRTY, PG_FILE, PG_HWPOISON, PG_KSM
from nicemu.mm.page_table import DIRTY, HUGE, PFN_SHIFT, PRESENT, WRITE, pte
from nicemu.mm.replace_page import replace_page
from nicemu.mm.rmap import ptep_clear_flush
from nicemu.mm.vma import VM_HUGETLB, VM_MERGEABLE, VM_SHARED, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

UNMERGEABLE = PG_KSM | PG_FILE | PG_DEVICE_PRIVATE | PG_HWPOISON
HELD = 2
"""References that ksmd itself has while it merges a page: one to look at it, one with the page lock."""


@dataclass(eq=False, slots=True)
class StableNode:
    """``struct ksm_stable_node``: a KSM page and who maps it."""

    frame: int
    checksum: int
    places: list[tuple[int, int]] = field(default_factory=list)
    """``rmap_item``: (anon_vma number, index) of each page merged here; several areas may map each (fork)."""


@dataclass(frozen=True, slots=True)
class RmapItem:
    """A page that ksmd looks at: an address, not a frame."""

    mm: AddressSpace
    page: int

    @property
    def key(self) -> tuple[int, int]:
        """Its name."""
        return self.mm.number, self.page


class Ksm:
    """State of ksmd: the stable tree, the unstable tree of this pass, what it still has to look at."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.mutex = Mutex(host.scheduler, "ksm_thread_mutex")
        self.nodes: dict[int, StableNode] = {}
        """By frame; those whose page was freed are removed when met."""
        self.unstable: dict[int, list[RmapItem]] = {}
        self.checksums: dict[tuple[int, int], int] = {}
        """Checksum of each page in the pass before."""
        self.full_scans = 0
        self._todo: deque[RmapItem] = deque()

    @property
    def pages_shared(self) -> int:
        """KSM pages in use."""
        return sum(1 for node in self.live_nodes() if self.host.pages.mapcount[node.frame])

    @property
    def pages_sharing(self) -> int:
        """Mappings of KSM pages beyond the first of each: pages saved."""
        return sum(max(self.host.pages.mapcount[node.frame] - 1, 0) for node in self.live_nodes())

    def live_nodes(self) -> Iterator[StableNode]:
        """Those that still exist; ``remove_stale_nodes`` on the way."""
        for frame, node in list(self.nodes.items()):
            if self.host.pages.flags[frame] & PG_KSM and self.host.pages.refcount[frame] > 0:
                yield node
            else:
                del self.nodes[frame]

    def places(self, frame: int) -> list[tuple[int, int]]:
        """Where a KSM page is mapped: (anon_vma number, index)."""
        node = self.nodes.get(frame)
        return node.places if node is not None else []

    def next_item(self) -> RmapItem | None:
        """``scan_get_next_rmap_item``; a new pass begins when one is through. None: nothing is mergeable."""
        if not self._todo:
            self.full_scans += 1
            self.unstable.clear()
            self._todo.extend(self._mergeable())
            known = {item.key for item in self._todo}
            self.checksums = {key: value for key, value in self.checksums.items() if key in known}
        return self._todo.popleft() if self._todo else None

    def _mergeable(self) -> Iterator[RmapItem]:
        areas = [vma for anon_vma in self.host.anon_vma_of.values() for vma in anon_vma.vmas
                 if vma.flags & VM_MERGEABLE and vma.kind == MODEL]  # fmt: skip
        for vma in sorted(areas, key=lambda vma: (vma.mm.number, vma.start)):
            for a, b in vma.mm.page_table.spans(vma.first_page, vma.last_page):
                for i in np.flatnonzero(vma.mm.page_table.view(a, b) & PRESENT).tolist():
                    yield RmapItem(vma.mm, a + i)

    def migrated(self, old: int, new: int) -> None:
        """``folio_migrate_ksm``: the bytes are in another frame. The node of the old one serves until it is freed."""
        node = self.nodes[old]
        self.nodes[new] = StableNode(new, node.checksum, node.places)
        self.host.pages.flags[new] |= PG_KSM


def ksm_scan(host: Host, pages: int) -> Steps[int]:
    """``ksm_do_scan``: look at ``pages`` pages; gives how many were merged with another."""
    merged, thread = 0, host.thread
    yield from host.ksm.mutex.acquire(thread)
    thread.context.append("ksm")
    try:
        for _ in range(pages):
            item = host.ksm.next_item()
            if item is None:
                break
            merged += yield from cmp_and_merge_page(host, item)
            yield host.costs.pte_ns
    finally:
        thread.context.pop()
        host.ksm.mutex.release(thread)
    return merged


def cmp_and_merge_page(host: Host, item: RmapItem) -> Steps[bool]:
    """Look at one page; True if it is a KSM page's user now."""
    frame = yield from _get_page(item)
    if not frame:
        return False
    try:
        yield host.costs.ksm_compare_ns
        checksum = _checksum(host, frame)
        shared = yield from _stable_tree_search(host, frame, checksum)
        if shared:
            try:
                return (yield from try_to_merge(item, frame, shared))
            finally:
                _put(host, shared)
        if host.ksm.checksums.get(item.key) != checksum:
            host.ksm.checksums[item.key] = checksum  # it changes: not worth a place in the unstable tree
            return False
        return (yield from _merge_with_unstable(host, item, frame, checksum))
    finally:
        _put(host, frame)


def _put(host: Host, frame: int) -> None:
    if host.pages.put(frame):
        host.event("free", frame=frame, operation="ksm")


def _mergeable_page(item: RmapItem) -> int:
    """The frame that the item names now, if KSM may have it; 0 otherwise."""
    mm, pages = item.mm, item.mm.host.pages
    vma, entry = mm.vmas.find(item.page << PAGE_SHIFT), mm.page_table.get(item.page)
    frame = entry >> PFN_SHIFT
    if vma is None or not vma.flags & VM_MERGEABLE or not entry & PRESENT:
        return 0
    ours = frame != mm.host.zero_frame and pages.kind[frame] == MODEL and not pages.flags[frame] & UNMERGEABLE
    return frame if ours else 0


def _get_page(item: RmapItem) -> Steps[int]:
    """``get_mergeable_page``: the frame, with a reference."""
    mm = item.mm
    yield from mm.mmap_lock.acquire_read(mm.host.thread)
    frame = _mergeable_page(item)
    if frame:
        mm.host.pages.get(frame)
    mm.mmap_lock.release(mm.host.thread)
    return frame


def _checksum(host: Host, frame: int) -> int:
    return zlib.crc32(host.frames.bytes_of(frame).data)


def _identical(host: Host, one: int, other: int) -> bool:
    return bool(np.array_equal(host.frames.bytes_of(one), host.frames.bytes_of(other)))


def _stable_tree_search(host: Host, frame: int, checksum: int) -> Steps[int]:
    """A KSM page with the same bytes, with a reference; 0 if there is none."""
    for node in list(host.ksm.live_nodes()):
        if node.checksum == checksum and host.pages.flags[node.frame] & PG_KSM and _identical(host, frame, node.frame):
            host.pages.get(node.frame)
            yield host.costs.ksm_compare_ns
            return node.frame
    return 0


def _merge_with_unstable(host: Host, item: RmapItem, frame: int, checksum: int) -> Steps[bool]:
    """``unstable_tree_search_insert`` and ``try_to_merge_two_pages``."""
    others = host.ksm.unstable.setdefault(checksum, [])
    for other in others:
        twin = yield from _get_page(other)
        if not twin:
            continue
        try:
            yield host.costs.ksm_compare_ns
            if twin != frame and _identical(host, frame, twin):
                others.remove(other)
                return (yield from try_to_merge_two_pages((item, frame), (other, twin)))
        finally:
            _put(host, twin)
    others.append(item)
    return False


def try_to_merge_two_pages(one: tuple[RmapItem, int], other: tuple[RmapItem, int]) -> Steps[bool]:
    """The first page becomes a KSM page and the other is merged with it; if that fails the first is itself again."""
    item, frame = one
    if not (yield from try_to_merge(item, frame, 0)):
        return False
    merged: bool = yield from try_to_merge(*other, frame)
    if not merged:
        yield from break_cow(item)
    return merged


def try_to_merge(item: RmapItem, frame: int, shared: int) -> Steps[bool]:
    """``try_to_merge_with_ksm_page``: map the KSM page ``shared`` instead of ``frame``; 0: make ``frame`` one."""
    mm, host = item.mm, item.mm.host
    thread = host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        vma = mm.vmas.find(item.page << PAGE_SHIFT)
        if mm.page_table.get(item.page) & HUGE and not (yield from split_huge_page(host, compound_head(frame))):
            return False
        if vma is None or _mergeable_page(item) != frame or mm.page_table.get(item.page) & HUGE:
            return False
        if not host.reclaim.isolate(frame):
            return False
        try:
            return (yield from _try_to_merge_one_page(vma, item.page, frame, shared))
        finally:
            host.reclaim.putback(frame, "ksm")
    finally:
        mm.mmap_lock.release(thread)


def _try_to_merge_one_page(vma: Vma, page: int, frame: int, shared: int) -> Steps[bool]:
    """``try_to_merge_one_page``; the page is locked."""
    host = vma.mm.host
    entry = yield from write_protect_page(vma, page, frame)
    if not entry:
        return False
    ksm, place = host.ksm, (vma.anon_vma.number, vma.pgoff + page - vma.first_page)
    if not shared:
        host.pages.flags[frame] |= PG_KSM | PG_DIRTY  # or reclaim would drop what MADV_FREE had marked
        ksm.nodes[frame] = StableNode(frame, _checksum(host, frame), [place])
        return True
    yield host.costs.ksm_compare_ns
    if not _identical(host, frame, shared) or host.pages.flags[shared] & PG_HWPOISON:
        return False
    if place not in ksm.nodes[shared].places:
        ksm.nodes[shared].places.append(place)
    merged: bool = yield from replace_page(vma, page, entry, pte(shared, entry & (1 << PFN_SHIFT) - 1), "ksm_replace")
    if merged:
        host.counters["ksm_merged"] += 1
    return merged


def write_protect_page(vma: Vma, page: int, frame: int) -> Steps[int]:
    """``write_protect_page``: the entry as it is then; 0 if the page is not mapped there any more, or somebody else
    holds a reference and may be writing to it."""
    mm, address = vma.mm, page << PAGE_SHIFT
    host, pages = mm.host, mm.host.pages
    notify = Invalidation(mm, "ksm_protect", address, address + PAGE_SIZE, "ksm", frame)
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    entry = mm.page_table.get(page)
    protected = 0
    if entry & PRESENT and entry >> PFN_SHIFT == frame:
        protected = entry & ~(WRITE | DIRTY)
        if entry != protected:
            yield from notify.clearing()
            ptep_clear_flush(mm, page, "ksm")
            if pages.refcount[frame] != pages.mapcount[frame] + HELD:
                mm.page_table.set(page, entry)
                protected = 0
            else:
                pages.flags[frame] |= PG_DIRTY if entry & DIRTY else 0
                yield from notify.cleared(protected)
                mm.page_table.set(page, protected)
                mm.event("pte_set", address, address + PAGE_SIZE, operation="ksm", old=frame, new=frame)
    mm.page_table_lock.release(host.thread)
    if protected:
        yield from notify.unlocked()
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    return protected


def break_cow(item: RmapItem) -> Steps[None]:
    """``break_cow``: the page becomes the area's own again."""
    mm = item.mm
    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        vma = mm.vmas.find(item.page << PAGE_SHIFT)
        if vma is not None:
            yield from break_ksm(vma, item.page)
    finally:
        mm.mmap_lock.release(thread)


def break_ksm(vma: Vma, page: int) -> Steps[None]:
    """``break_ksm``: a write fault, until no KSM page is mapped there."""
    mm = vma.mm
    while True:
        entry = mm.page_table.get(page)
        if not entry & PRESENT or not mm.host.pages.flags[entry >> PFN_SHIFT] & PG_KSM:
            return
        yield from do_wp_page(mm, vma, page)


def ksm_madvise(mm: AddressSpace, start: int, end: int, mergeable: bool) -> Steps[None]:
    """MADV_MERGEABLE and MADV_UNMERGEABLE; the caller holds mmap_lock for write. Areas that KSM cannot merge are left
    as they are, without an error.

    :raises Fault: ENOMEM, unsharing needs pages.
    """
    for vma in (yield from isolate_vmas(mm, start, end)):
        if vma.flags & (VM_SHARED | VM_HUGETLB):
            continue
        if mergeable:
            vma.flags |= VM_MERGEABLE
        elif vma.flags & VM_MERGEABLE:
            yield from unmerge_ksm_pages(vma)
            vma.flags &= ~VM_MERGEABLE
    mm.vmas.merge(start, end)


def unmerge_ksm_pages(vma: Vma) -> Steps[None]:
    """``unmerge_ksm_pages``: every page of the area becomes its own again."""
    mm = vma.mm
    for a, b in mm.page_table.spans(vma.first_page, vma.last_page):
        for i in np.flatnonzero(mm.page_table.view(a, b) & PRESENT).tolist():
            yield from break_ksm(vma, a + i)
