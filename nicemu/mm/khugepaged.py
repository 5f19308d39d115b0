"""khugepaged and MADV_COLLAPSE (``khugepaged.c``): 512 small pages of an aligned 2 MiB become a huge page.

Order (odp.md 1.3): a huge page is allocated; mmap_lock for write and the anon_vma lock are taken; ``range_start``;
under the page-table lock the page table is taken out and the CPU TLB flushed; ``range_end`` at once, before the old
pages are isolated and copied and before the new entries are there. No fault can fill the hole, because it
waits for mmap_lock; no reverse map walk misses pages in it, because migration entries are not taken out, and isolated
pages do not move.

Left out: swapping pages in first, file and shmem THP (``collapse_pte_mapped_thp``, ``retract_page_tables``), the daemon
and its list (the caller says what to scan).
"""

from __future__ import annotations

import errno
import os
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.compound import HPAGE_PMD_NR, HPAGE_PMD_SIZE, alloc_hugepage, frames_of, map_new_thp, set_huge
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_memory import HUGE_WRITABLE, holds_pmd, thp_enabled, thp_possible
from nicemu.mm.page import PAGE_SHIFT, PG_KSM
from nicemu.mm.page_table import ACCESSED, HUGE, PFN_SHIFT, PRESENT, UFFD_WP, WRITE, pte
from nicemu.mm.vma import VM_NOHUGEPAGE, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

MAX_PTES_NONE, MAX_PTES_SHARED = HPAGE_PMD_NR - 1, HPAGE_PMD_NR // 2
"""``max_ptes_none``; ``max_ptes_shared``, of which 3.x allows none."""


class Scan(Enum):
    """``enum scan_result``: how it went, and MADV_COLLAPSE's errno for it."""

    SUCCEED, PMD_MAPPED = 0, -1
    ALLOC_HUGE_PAGE_FAIL = errno.ENOMEM
    BUSY = errno.EAGAIN
    """PAGE_COUNT, PAGE_LOCK and PAGE_LRU: somebody uses a page."""
    REFUSED = errno.EINVAL
    """The area or what is mapped there cannot be collapsed."""


def khugepaged_scan(mm: AddressSpace, start: int, end: int) -> Steps[int]:
    """``khugepaged_scan_mm_slot`` of the aligned 2 MiB in [start, end); gives how many were collapsed."""
    mm.host.thread.context.append("khugepaged")
    collapsed = 0
    for first in _aligned(start, end):
        scan = yield from collapse(mm, first, True)
        collapsed += scan is Scan.SUCCEED
    mm.host.thread.context.pop()
    return collapsed


def madvise_collapse(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """MADV_COLLAPSE (since v6.1): like khugepaged, whatever the host's switch says and whether or not a page was used.

    :raises OSError: EINVAL, ENOMEM, EAGAIN: what was wrong with the last 2 MiB that is not huge now.
    """
    if not mm.host.discipline.huge_pages_612:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    failed: Scan | None = None
    for first in _aligned(start, end):
        scan = yield from collapse(mm, first, False)
        if scan not in (Scan.SUCCEED, Scan.PMD_MAPPED):
            failed = scan
    if failed is not None:
        raise OSError(failed.value, os.strerror(failed.value))


def _aligned(start: int, end: int) -> range:
    """First pages of the whole 2 MiB in [start, end)."""
    return range(-(-start // HPAGE_PMD_SIZE) * HPAGE_PMD_NR, end // HPAGE_PMD_SIZE * HPAGE_PMD_NR, HPAGE_PMD_NR)


def collapse(mm: AddressSpace, first: int, daemon: bool) -> Steps[Scan]:
    """Look, allocate, collapse the 2 MiB from page ``first`` on."""
    host = mm.host
    yield from mm.mmap_lock.acquire_read(host.thread)
    vma, scan = _find_vma(mm, first, daemon), Scan.REFUSED
    if vma is not None:
        scan = scan_pmd(host, _entries(mm, first), daemon)
    mm.mmap_lock.release(host.thread)
    yield host.costs.pte_ns * HPAGE_PMD_NR
    if scan is not Scan.SUCCEED:
        return scan
    new = yield from alloc_hugepage(host, True)
    host.counters["thp_collapse_alloc" if new else "thp_collapse_alloc_failed"] += 1
    if not new:
        return Scan.ALLOC_HUGE_PAGE_FAIL
    yield from mm.mmap_lock.acquire_write(host.thread)
    host.thread.context.append("collapse")
    try:
        vma = _find_vma(mm, first, daemon)
        scan = (yield from collapse_huge_page(mm, vma, first, new)) if vma is not None else Scan.REFUSED
    finally:
        host.thread.context.pop()
        mm.mmap_lock.release(host.thread)
    if scan is not Scan.SUCCEED:
        host.pages.put_many(frames_of(new))
    return scan


def _find_vma(mm: AddressSpace, first: int, daemon: bool) -> Vma | None:
    """``hugepage_vma_revalidate``: the area, if it may have a huge page there."""
    vma = mm.vmas.find(first << PAGE_SHIFT)
    if vma is None or not mm.users or not holds_pmd(vma, first):
        return None
    wanted = thp_enabled(vma) if daemon else thp_possible(vma) and not vma.flags & VM_NOHUGEPAGE
    return vma if wanted and mm.page_table.leaf(first) else None


def _entries(mm: AddressSpace, first: int) -> np.ndarray:
    return mm.page_table.view(first, first + HPAGE_PMD_NR).copy()


def scan_pmd(host: Host, entries: np.ndarray, daemon: bool) -> Scan:
    """``hpage_collapse_scan_pmd``: can these 512 entries be collapsed?"""
    pages, old = host.pages, not host.discipline.huge_pages_612
    if entries[0] & HUGE:
        return Scan.PMD_MAPPED
    mapped = entries[entries != 0]
    frames = mapped >> PFN_SHIFT
    zero = frames == host.zero_frame if host.zero_frame else np.zeros(len(frames), bool)
    if not ((mapped & PRESENT) != 0).all() or (old and (zero.any() or not ((mapped & WRITE) != 0).all())):
        return Scan.REFUSED
    mapped, frames = mapped[~zero], frames[~zero]
    if HPAGE_PMD_NR - len(mapped) > MAX_PTES_NONE or not (mapped & WRITE).any():
        return Scan.REFUSED
    if (
        (mapped & UFFD_WP).any()
        or (daemon and not (mapped & ACCESSED).any())
        or (pages.all_flags[frames] & PG_KSM).any()
    ):
        return Scan.REFUSED
    if (pages.refcounts[frames] != pages.mapcounts[frames]).any() or (old and (pages.refcounts[frames] != 1).any()):
        return Scan.BUSY
    return Scan.SUCCEED if (pages.mapcounts[frames] > 1).sum() <= MAX_PTES_SHARED else Scan.REFUSED


def collapse_huge_page(mm: AddressSpace, vma: Vma, first: int, new: int) -> Steps[Scan]:
    """``collapse_huge_page`` into the THP ``new``, mmap_lock held for write."""
    host, lock = mm.host, mm.page_table_lock
    start, end = first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT
    yield from vma.anon_vma.lock.acquire_write(host.thread)
    entries, scan = yield from _take_out(mm, first)
    isolated = isolate(host, entries) if scan is Scan.SUCCEED else None
    if scan is Scan.SUCCEED and isolated is None:
        scan = Scan.BUSY
        yield from lock.acquire(host.thread)
        mm.page_table.view(first, first + HPAGE_PMD_NR)[:] = entries
        lock.release(host.thread)
    vma.anon_vma.lock.release(host.thread)
    if isolated is None:
        return scan
    yield from _copy(mm, entries, new, isolated)
    yield from lock.acquire(host.thread)
    map_new_thp(host, vma, first, new)
    set_huge(mm, first, pte(new, HUGE_WRITABLE if vma.flags & VM_WRITE else HUGE_WRITABLE & ~WRITE))
    mm.event("pte_set", start, end, operation="collapse")
    lock.release(host.thread)
    host.counters["pages_collapsed"] += 1
    return Scan.SUCCEED


def _take_out(mm: AddressSpace, first: int) -> Steps[tuple[np.ndarray, Scan]]:
    """``pmdp_collapse_flush`` with its notifier: the entries, which are in nobody's sight now unless they cannot be
    collapsed any more."""
    host, lock = mm.host, mm.page_table_lock
    start, end = first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT
    notify = Invalidation(mm, "collapse", start, end, "collapse")
    yield from notify.start()
    yield from lock.acquire(host.thread)
    yield from notify.clearing()
    mm.stamp_range(start, end, "collapse")
    entries = _entries(mm, first)
    scan = scan_pmd(host, entries, False)
    if scan is Scan.SUCCEED:
        mm.page_table.view(first, first + HPAGE_PMD_NR)[:] = 0
        mm.event("pte_clear", start, end, operation="collapse", present=int(np.count_nonzero(entries)))
        mm.flush_tlb(start, end, "collapse")
    yield from notify.cleared()
    lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    return entries, scan


def isolate(host: Host, entries: np.ndarray) -> list[int] | None:
    """``__collapse_huge_page_isolate``: lock all pages and take them off the LRU list; None if one cannot be had."""
    isolated: list[int] = []
    for entry in entries[entries != 0].tolist():
        frame = entry >> PFN_SHIFT
        if frame == host.zero_frame:
            continue
        used = host.pages.refcount[frame] != host.pages.mapcount[frame]
        if used or not host.reclaim.isolate(frame):
            for taken in isolated:
                host.reclaim.putback(taken, "collapse")
            return None
        isolated.append(frame)
    return isolated


def _copy(mm: AddressSpace, entries: np.ndarray, new: int, isolated: list[int]) -> Steps[None]:
    """``__collapse_huge_page_copy``: bytes to the new page; the old ones are freed, unless others map them."""
    host, pages = mm.host, mm.host.pages
    for at in np.flatnonzero(entries).tolist():
        frame = int(entries[at]) >> PFN_SHIFT
        if frame != host.zero_frame:
            pages.copy(frame, new + at)
    yield host.costs.copy_page_ns * HPAGE_PMD_NR
    yield from mm.page_table_lock.acquire(host.thread)
    frames = np.array(isolated, np.int64)
    pages.mapcounts[frames] -= 1
    pages.refcounts[frames] -= 1
    mm.page_table_lock.release(host.thread)
    for frame in isolated:
        host.reclaim.putback(frame, "collapse")
