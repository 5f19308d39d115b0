"""hugetlb operations on ranges: unmap, fork, move (``__unmap_hugepage_range``, ``copy_hugetlb_page_range``,
``move_hugetlb_page_tables``).

In 3.x the unmap of a hugetlb area notifies by itself, inside the pair of munmap; in 6.12 only where no other pair is
around it. fork of 3.x write-protects the parent's pages and tells nobody: a device goes on writing to what the child
now shares (odp.md 1.3, a gap); 6.12 clears the whole area.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.mm.compound import copy_huge_page, frames_of, leaves, page_add_huge_rmap, set_huge
from nicemu.mm.discipline import Invalidation
from nicemu.mm.gather import MmuGather
from nicemu.mm.huge_split import huge_pages
from nicemu.mm.page import PAGE_SHIFT, Fault
from nicemu.mm.page_table import ENTRIES, PFN_SHIFT, WRITE
from nicemu.mm.rmap import rmap_walk
from nicemu.mm.vma import VM_HUGETLB, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def discarded(vma: Vma, start: int, end: int) -> tuple[int, int]:
    """``madvise_dontneed_free_valid_vma``: what DONTNEED drops of [start, end); of a hugetlb area whole pages only.

    :raises OSError: EINVAL, a hugetlb area, and ``start`` is inside a page (6.12), or at all (3.x).
    """
    if not vma.flags & VM_HUGETLB:
        return start, end
    size = huge_pages(vma) << PAGE_SHIFT
    if not vma.mm.host.discipline.huge_pages_612 or start % size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return start, end & -size


def mapped_pages(mm: AddressSpace, vma: Vma, start: int, end: int) -> list[int]:
    """First pages of the huge pages that are mapped in bytes [start, end) of the area."""
    spans = mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
    return [a for a, _ in spans if not a & huge_pages(vma) - 1 and mm.page_table.get(a)]


def unmap_hugepage_range(mm: AddressSpace, vma: Vma, start: int, end: int, gather: MmuGather) -> Steps[None]:
    """``unmap_hugepage_range`` of an area's part that munmap, exit or DONTNEED takes."""
    hugetlb = mm.host.hugetlb
    yield from hugetlb.i_mmap_mutex.acquire(mm.host.thread)
    yield from _unmap_hugepage_range(mm, vma, (start, end), gather, not mm.host.discipline.huge_pages_612)
    hugetlb.i_mmap_mutex.release(mm.host.thread)
    if gather.operation != "dontneed":
        hugetlb.unreserve(vma, start, end)


def _unmap_hugepage_range(mm: AddressSpace, vma: Vma, part: tuple[int, int], gather: MmuGather,
                          notifies: bool, only: int = 0) -> Steps[None]:  # fmt: skip
    """``__unmap_hugepage_range``; ``only``: nothing but this page (its head)."""
    host, count, (start, end) = mm.host, huge_pages(vma), part
    notify = Invalidation(mm, "hugetlb_unmap", start, end, "hugetlb_unmap")
    if notifies:
        yield from notify.start()
        mm.stamp_range(start, end, "hugetlb_unmap")
    for page in mapped_pages(mm, vma, start, end):
        yield from mm.page_table_lock.acquire(host.thread)
        head = mm.page_table.get(page) >> PFN_SHIFT
        if head and only in (0, head):
            for _, view in leaves(mm, page, count):
                view[:] = 0
            mm.event("pte_clear", page << PAGE_SHIFT, page + count << PAGE_SHIFT, operation="hugetlb_unmap")
            host.pages.mapcounts[frames_of(head, count)] -= 1
            gather.add(frames_of(head, count))
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns
    if notifies:
        yield from notify.end()


def unmap_ref_private(mm: AddressSpace, vma: Vma, first: int, head: int) -> Steps[None]:
    """``unmap_ref_private``: take a page away from those that hold no reservation for it, so that the owner can write
    to it in place."""
    hugetlb, thread = mm.host.hugetlb, mm.host.thread
    yield from hugetlb.i_mmap_mutex.acquire(thread)
    for other, page in rmap_walk(mm.host, head):
        reservation = hugetlb.reservation(other)
        if other.mm is mm or reservation.owner:
            continue
        part = page << PAGE_SHIFT, page + huge_pages(vma) << PAGE_SHIFT
        gather = MmuGather(other.mm, "hugetlb_unmap")
        yield from _unmap_hugepage_range(other.mm, other, part, gather, True, head)
        reservation.unmapped = True
        yield from gather.finish(*part)
    hugetlb.i_mmap_mutex.release(thread)


def copy_hugetlb_page_range(parent: AddressSpace, child: AddressSpace, vma: Vma, copy: Vma) -> Steps[None]:
    """The pages of one area, for fork. :raises Fault: ENOMEM, no page for the copy of a pinned one (6.12)."""
    notify = Invalidation(parent, "hugetlb_fork", vma.start, vma.end, "fork")
    yield from notify.start()
    try:
        for page in mapped_pages(parent, vma, vma.start, vma.end):
            yield from _copy_page(parent, child, copy, page)
    finally:
        yield from notify.end()


def _copy_page(parent: AddressSpace, child: AddressSpace, copy: Vma, page: int) -> Steps[None]:
    host, count = parent.host, huge_pages(copy)
    yield from parent.page_table_lock.acquire(host.thread)
    entry = parent.page_table.get(page)
    head = entry >> PFN_SHIFT
    frames = frames_of(head, count)
    pinned = host.discipline.fork_copies_pinned and bool(host.pages.all_pins[frames].any())
    if pinned:
        head = host.hugetlb.alloc_huge_page(copy, page)
        if not head:
            parent.page_table_lock.release(host.thread)
            raise Fault(errno.ENOMEM, page << PAGE_SHIFT, "fork: no hugetlb page for the copy of a pinned one")
        copy_huge_page(host, entry >> PFN_SHIFT, head, count)
        page_add_huge_rmap(host, copy, page, frames_of(head, count))
        set_huge(child, page, entry & (1 << PFN_SHIFT) - 1 | head << PFN_SHIFT, count)
    elif entry:
        for _, view in leaves(parent, page, count):
            view &= ~WRITE
        set_huge(child, page, entry & ~WRITE, count)
        host.pages.refcounts[frames] += 1
        host.pages.mapcounts[frames] += 1
        parent.stamp_protected(frames, "hugetlb_fork")
        parent.event("pte_protect", page << PAGE_SHIFT, page + count << PAGE_SHIFT, operation="fork", present=count)
    parent.page_table_lock.release(host.thread)
    yield host.costs.copy_page_ns * count if pinned else host.costs.pte_ns


def move_hugetlb_page_tables(mm: AddressSpace, vma: Vma, new: int) -> Steps[None]:
    """``move_hugetlb_page_tables``: all of the area to address ``new``, which is aligned; 6.12."""
    host, count, shift = mm.host, huge_pages(vma), new - vma.start >> PAGE_SHIFT
    notify = Invalidation(mm, "hugetlb_mremap", vma.start, vma.end, "hugetlb_mremap")
    yield from notify.start()
    mm.stamp_range(vma.start, vma.end, "hugetlb_mremap")
    yield from host.hugetlb.i_mmap_mutex.acquire(host.thread)
    for page in mapped_pages(mm, vma, vma.start, vma.end):
        yield from mm.page_table_lock.acquire(host.thread)
        for at, view in leaves(mm, page, count):
            mm.page_table.view(page + at + shift, page + at + shift + ENTRIES)[:] = view
            view[:] = 0
        mm.event("pte_move", page << PAGE_SHIFT, page + count << PAGE_SHIFT, operation="hugetlb_mremap")
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns
    mm.flush_tlb(vma.start, vma.end, "hugetlb_mremap")
    yield host.costs.tlb_flush_ns
    host.hugetlb.i_mmap_mutex.release(host.thread)
    yield from notify.end()
