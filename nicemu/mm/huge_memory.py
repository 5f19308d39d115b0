"""Transparent huge pages (``huge_memory.c``): policy, the first fault, and writes to a read-only huge mapping.

A write fault on an empty, aligned 2 MiB of an anonymous area of model memory gets a huge page if the host's switch
(``always``, ``madvise``, ``never``) and the area allow it. A write to one that fork shares copies all of it to another
huge page (3.x: ``do_huge_pmd_wp_page``), or to 512 small ones if there is none (``..._fallback``); 6.12 makes the
mapping small and copies the page that was written. Places of the notifiers and of ``put_page``: odp.md 1.3, and the
function as of v3.9.

Left out: the huge zero page (a read fault maps a small page), THP of files, per-size switches, memory cgroups.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.compound import (
    HPAGE_PMD_NR,
    HPAGE_PMD_SIZE,
    alloc_hugepage,
    clear_huge,
    copy_huge_page,
    first_of,
    frames_of,
    map_new_thp,
    pmd_same,
    set_huge,
    thp_unmapped_whole,
)  # fmt: skip
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_split import isolate_vmas, split_huge_page, split_pmd
from nicemu.mm.page import MODEL, PAGE_SHIFT, Fault
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, PFN_SHIFT, PRESENT, SOFT_DIRTY, WRITE, WRITTEN, pte
from nicemu.mm.rmap import page_add_new_anon_rmaps
from nicemu.mm.vma import VM_HUGEPAGE, VM_HUGETLB, VM_NOHUGEPAGE, VM_SPECIAL, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

HUGE_WRITABLE = PRESENT | WRITTEN | ACCESSED | HUGE


def thp_possible(vma: Vma) -> bool:
    """Can the area hold THP at all (``vma_is_anonymous`` and none of VM_NO_THP)?"""
    return vma.kind == MODEL and vma.file is None and not vma.flags & (VM_SPECIAL | VM_HUGETLB)


def thp_enabled(vma: Vma) -> bool:
    """``transparent_hugepage_enabled``: the host's switch and the area's advice."""
    switch = vma.mm.host.transparent_hugepage
    if switch == "never" or vma.flags & VM_NOHUGEPAGE or not thp_possible(vma):
        return False
    return switch == "always" or bool(vma.flags & VM_HUGEPAGE)


def holds_pmd(vma: Vma, page: int) -> bool:
    """Do the aligned 2 MiB around the page lie in the area?"""
    first = first_of(page)
    return vma.first_page <= first and first + HPAGE_PMD_NR <= vma.last_page


def madvise_hugepage(mm: AddressSpace, start: int, end: int, wanted: bool) -> Steps[None]:
    """MADV_HUGEPAGE and MADV_NOHUGEPAGE on the model memory of the range; the caller holds mmap_lock for write.

    :raises OSError: ENOMEM for holes; in 3.x EINVAL for hugetlb and shared areas (``hugepage_madvise``).
    """
    old = not mm.host.discipline.huge_pages_612
    if old and any(vma.kind == MODEL and not thp_possible(vma) for vma in mm.vmas.overlapping(start, end)):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    for vma in (yield from isolate_vmas(mm, start, end)):
        if vma.kind == MODEL:
            flag = VM_HUGEPAGE if wanted else VM_NOHUGEPAGE
            vma.flags = vma.flags & ~(VM_HUGEPAGE | VM_NOHUGEPAGE) | flag
    mm.vmas.merge(start, end)
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def handle_huge_fault(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[bool]:
    """The part of ``__handle_mm_fault`` above page tables, for a page whose entry was ``entry``. False: it is a fault
    of small pages; True: the caller looks again."""
    if entry & HUGE:
        yield from do_huge_pmd_wp_page(mm, vma, page)
        return True
    if entry or not write or not thp_enabled(vma) or not holds_pmd(vma, page) or not _pmd_none(mm, page):
        return False
    return (yield from do_huge_pmd_anonymous_page(mm, vma, page))


def _pmd_none(mm: AddressSpace, page: int) -> bool:
    return not mm.page_table.leaf(page) or not mm.page_table.view(first_of(page), first_of(page) + HPAGE_PMD_NR).any()


def do_huge_pmd_anonymous_page(mm: AddressSpace, vma: Vma, page: int) -> Steps[bool]:
    """Map a zeroed huge page; False if there is none."""
    host, first = mm.host, first_of(page)
    head = yield from alloc_hugepage(host, bool(vma.flags & VM_HUGEPAGE))
    if not head:
        host.counters["thp_fault_fallback"] += 1
        return False
    yield host.costs.zero_page_ns * HPAGE_PMD_NR
    yield from mm.page_table_lock.acquire(host.thread)
    empty = _pmd_none(mm, page)
    if empty:
        map_new_thp(host, vma, first, head)
        set_huge(mm, first, pte(head, HUGE_WRITABLE))
        host.counters["thp_fault_alloc"] += 1
        host.counters["pgfault"] += 1
        mm.event("fault", first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT, write=1)
    mm.page_table_lock.release(host.thread)
    if not empty:
        host.pages.put_many(frames_of(head))
    return True


def can_reuse_huge(host: Host, head: int, count: int = HPAGE_PMD_NR) -> bool:
    """Nobody else maps any of the huge page, and no frame of it is isolated."""
    isolated = any(head <= frame < head + count for frame in host.reclaim.isolated)
    return not isolated and bool((host.pages.mapcounts[head : head + count] == 1).all())


def do_huge_pmd_wp_page(mm: AddressSpace, vma: Vma, page: int) -> Steps[None]:
    """A write to a huge mapping that is read-only: reuse, copy, or make it small; the caller looks again."""
    host, first = mm.host, first_of(page)
    yield from mm.page_table_lock.acquire(host.thread)
    original = mm.page_table.get(first)
    raced = not original & HUGE or bool(original & WRITE)
    head = original >> PFN_SHIFT
    reused = not raced and can_reuse_huge(host, head)
    copies = "huge_wp" in host.discipline.sites
    if reused:
        view = mm.page_table.view(first, first + HPAGE_PMD_NR)
        view |= WRITTEN | ACCESSED
    elif not raced and copies:
        host.pages.refcounts[frames_of(head)] += 1
    mm.page_table_lock.release(host.thread)
    if raced:
        return
    host.counters["pgfault"] += 1
    mm.event("wp_fault", first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT, write=1)
    if reused:
        yield host.costs.pte_ns
    elif copies:
        yield from _copy_whole(mm, vma, first, original)
    else:
        yield from split_pmd(mm, first, "huge_wp_fallback")


def _copy_whole(mm: AddressSpace, vma: Vma, first: int, original: int) -> Steps[None]:
    """3.x; the caller has taken a reference on the old page."""
    host, context = mm.host, mm.host.thread.context
    head = original >> PFN_SHIFT
    new = 0
    if thp_enabled(vma):
        new = yield from alloc_hugepage(host, bool(vma.flags & VM_HUGEPAGE))
    host.counters["thp_fault_alloc" if new else "thp_fault_fallback"] += 1
    context.append("huge_wp" if new else "huge_wp_fallback")
    try:
        if new:
            yield from _wp_huge_copy(mm, vma, first, original, new)
        else:
            yield from do_huge_pmd_wp_page_fallback(mm, vma, first, original)
            put_huge(host, head, "huge_wp_fallback")
    finally:
        context.pop()


def put_huge(host: Host, head: int, operation: str, count: int = HPAGE_PMD_NR) -> None:
    """``put_page`` of a compound page."""
    freed = host.pages.put_many(frames_of(head, count))
    if len(freed):
        host.event("free", frame=int(freed[0]), frames=len(freed), operation=operation)


def _wp_huge_copy(mm: AddressSpace, vma: Vma, first: int, original: int, new: int) -> Steps[None]:
    """The rest of ``do_huge_pmd_wp_page``. The old page is put under the page-table lock, before the range ends."""
    host, lock = mm.host, mm.page_table_lock
    old, start, end = original >> PFN_SHIFT, first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT
    copy_huge_page(host, old, new)
    yield host.costs.copy_page_ns * HPAGE_PMD_NR
    replacement = pte(new, HUGE_WRITABLE)
    notify = Invalidation(mm, "huge_wp", start, end, "huge_wp")
    yield from notify.start()
    yield from lock.acquire(host.thread)
    put_huge(host, old, "huge_wp")
    if pmd_same(mm.page_table.get(first), original):
        yield from notify.clearing()
        mm.stamp_range(start, end, "huge_wp")
        clear_huge(mm, first, HPAGE_PMD_NR, "huge_wp")
        map_new_thp(host, vma, first, new)
        yield from notify.cleared(replacement)
        set_huge(mm, first, replacement)
        mm.event("pte_set", start, end, operation="huge_wp")
        _unmap_old(host, old)
        put_huge(host, old, "huge_wp")
    else:
        host.pages.put_many(frames_of(new))
    lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()


def _unmap_old(host: Host, head: int) -> None:
    """``page_remove_rmap`` of a THP."""
    host.pages.mapcounts[frames_of(head)] -= 1
    thp_unmapped_whole(host, head)


def do_huge_pmd_wp_page_fallback(mm: AddressSpace, vma: Vma, first: int, original: int) -> Steps[None]:
    """512 small pages instead of a huge one. Out of memory: the huge page is split, and the fault is retried."""
    host, lock = mm.host, mm.page_table_lock
    old, start, end = original >> PFN_SHIFT, first << PAGE_SHIFT, first + HPAGE_PMD_NR << PAGE_SHIFT
    numbers = np.arange(first, first + HPAGE_PMD_NR)
    try:
        new = yield from host.alloc_pages(vma.kind, HPAGE_PMD_NR, 0, mm)
    except Fault:
        yield from split_huge_page(host, old)
        return
    for source, target in zip(frames_of(old).tolist(), new.tolist(), strict=True):
        host.pages.copy(source, target)
    yield host.costs.copy_page_ns * HPAGE_PMD_NR
    notify = Invalidation(mm, "huge_wp_fallback", start, end, "huge_wp_fallback")
    yield from notify.start()
    yield from lock.acquire(host.thread)
    same = pmd_same(mm.page_table.get(first), original)
    if same:
        yield from notify.clearing()
        mm.stamp_range(start, end, "huge_wp_fallback")
        clear_huge(mm, first, HPAGE_PMD_NR, "huge_wp_fallback")
        yield from notify.cleared()
        page_add_new_anon_rmaps(host, vma, numbers, new)
        flags = PRESENT | ACCESSED | (WRITTEN if vma.flags & VM_WRITE else DIRTY | SOFT_DIRTY)
        mm.page_table.view(first, first + HPAGE_PMD_NR)[:] = new << PFN_SHIFT | flags
        mm.event("pte_set", start, end, operation="huge_wp_fallback")
        _unmap_old(host, old)
    lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    host.pages.put_many(frames_of(old) if same else new)


def thp_alignment(mm: AddressSpace, length: int) -> int:
    """``thp_get_unmapped_area``: alignment of new anonymous areas (since v6.7, recalled), in bytes."""
    aligned = mm.host.discipline.huge_pages_612 and mm.host.transparent_hugepage != "never"
    return HPAGE_PMD_SIZE if aligned and length % HPAGE_PMD_SIZE == 0 else 1 << PAGE_SHIFT
