"""Faults on hugetlb memory (``hugetlb_fault``, ``hugetlb_no_page``, ``hugetlb_cow``).

A private page is mapped read-only first; a write makes it writable if nobody shares it, or copies it. ``hugetlb_cow``:
start before the page-table lock is taken again, end after it is dropped, though its caller expects it held; it notifies
even if the entry has changed meanwhile (odp.md 1.3; v3.6 does both under the lock, and only if not).

No page left: a fault and a child's COW get SIGBUS. The COW of the mapping that holds the reservation takes the page
away from the children instead (``unmap_ref_private``); their next fault on a page they lost is SIGBUS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.compound import clear_huge, copy_huge_page, frames_of, leaves, page_add_huge_rmap, pmd_same, set_huge
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_memory import can_reuse_huge, put_huge
from nicemu.mm.huge_split import huge_pages
from nicemu.mm.hugetlb_range import unmap_ref_private
from nicemu.mm.page import PAGE_SHIFT, Fault
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, PFN_SHIFT, PRESENT, WRITE, pte
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def hugetlb_fault(mm: AddressSpace, vma: Vma, page: int, write: bool) -> Steps[None]:
    """One huge page; the caller looks again.

    :raises Fault: EFAULT (SIGBUS), the pool is empty.
    """
    host, first = mm.host, page & -huge_pages(vma)
    yield from host.hugetlb.fault_mutex.acquire(host.thread)
    try:
        entry = mm.page_table.get(first)
        if not entry:
            host.counters["pgfault"] += 1
            yield from hugetlb_no_page(mm, vma, first)
            entry = mm.page_table.get(first)
        if write and entry and not entry & WRITE:
            yield from _write_fault(mm, vma, first)
    finally:
        host.hugetlb.fault_mutex.release(host.thread)


def hugetlb_no_page(mm: AddressSpace, vma: Vma, first: int) -> Steps[None]:
    """Map a zeroed page, read-only."""
    host, count = mm.host, huge_pages(vma)
    address = first << PAGE_SHIFT
    if host.hugetlb.reservation(vma).unmapped:
        raise Fault.bad_address(address, "SIGBUS: the parent took hugetlb pages back")
    head = host.hugetlb.alloc_huge_page(vma, first)
    if not head:
        raise Fault.bad_address(address, "SIGBUS: the hugetlb pool is empty")
    yield host.costs.zero_page_ns * count
    yield from mm.page_table_lock.acquire(host.thread)
    empty = not mm.page_table.get(first)
    if empty:
        page_add_huge_rmap(host, vma, first, frames_of(head, count))
        set_huge(mm, first, pte(head, PRESENT | ACCESSED | HUGE), count)
        mm.event("fault", address, first + count << PAGE_SHIFT, write=0)
    mm.page_table_lock.release(host.thread)
    if not empty:
        host.pages.put_many(frames_of(head, count))


def _write_fault(mm: AddressSpace, vma: Vma, first: int) -> Steps[None]:
    """``hugetlb_cow`` as its callers have it: with the page-table lock."""
    host = mm.host
    host.thread.context.append("hugetlb_cow")
    yield from mm.page_table_lock.acquire(host.thread)
    try:
        yield from hugetlb_cow(mm, vma, first)
    finally:
        host.thread.context.pop()
        if mm.page_table_lock.owner is host.thread:
            mm.page_table_lock.release(host.thread)


def hugetlb_cow(mm: AddressSpace, vma: Vma, first: int) -> Steps[None]:
    """Make the page writable; the page-table lock is held at both ends."""
    host, lock, count = mm.host, mm.page_table_lock, huge_pages(vma)
    while True:
        entry = mm.page_table.get(first)
        old = entry >> PFN_SHIFT
        if not entry or entry & WRITE:
            return
        if can_reuse_huge(host, old, count):
            for _, view in leaves(mm, first, count):
                view |= WRITE | DIRTY | ACCESSED
            return
        host.pages.refcounts[frames_of(old, count)] += 1
        lock.release(host.thread)
        new = host.hugetlb.alloc_huge_page(vma, first)
        if new:
            return (yield from _copy(mm, vma, first, entry, new))
        put_huge(host, old, "hugetlb_cow", count)
        if not host.hugetlb.reservation(vma).owner:
            raise Fault.bad_address(first << PAGE_SHIFT, "SIGBUS: the hugetlb pool is empty")
        yield from unmap_ref_private(mm, vma, first, old)
        yield from lock.acquire(host.thread)


def _copy(mm: AddressSpace, vma: Vma, first: int, entry: int, new: int) -> Steps[None]:
    """The copy, a reference on the old page held and the page-table lock not."""
    host, lock, count = mm.host, mm.page_table_lock, huge_pages(vma)
    old, start, end = entry >> PFN_SHIFT, first << PAGE_SHIFT, first + count << PAGE_SHIFT
    mm.event("wp_fault", start, end, write=1)
    copy_huge_page(host, old, new, count)
    yield host.costs.copy_page_ns * count
    notify = Invalidation(mm, "hugetlb_cow", start, end, "hugetlb_cow")
    replacement = pte(new, PRESENT | WRITE | DIRTY | ACCESSED | HUGE)
    yield from notify.start()
    yield from lock.acquire(host.thread)
    same = pmd_same(mm.page_table.get(first), entry)
    if same:
        yield from notify.clearing()
        mm.stamp_range(start, end, "hugetlb_cow")
        clear_huge(mm, first, count, "hugetlb_cow")
        page_add_huge_rmap(host, vma, first, frames_of(new, count))
        set_huge(mm, first, replacement, count)
        mm.event("pte_set", start, end, operation="hugetlb_cow")
        host.pages.mapcounts[frames_of(old, count)] -= 1
        yield from notify.cleared(replacement)
    lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    yield from lock.acquire(host.thread)
    put_huge(host, old if same else new, "hugetlb_cow", count)
    put_huge(host, old, "hugetlb_cow", count)
