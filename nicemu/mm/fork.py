"""``dup_mmap`` and ``copy_page_range``: fork shares every private page read-only between parent and child.

One notifier pair per area, in the parent's address space; pages of both sides are write-protected leaf by leaf; one
CPU TLB flush at the end. With ``fork_copies_pinned`` (6.12) a pinned page is copied for the child at once and stays
writable in the parent; before, the parent's next write leaves the device with the old page, as it did in Linux. A huge
mapping stays whole on both sides (``copy_huge_pmd``) unless it is pinned so.

The child of a program does not own the real memory: its arena and program pages have no bytes in this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import link_vma
from nicemu.mm.huge_split import split_huge_pmd
from nicemu.mm.hugetlb_range import copy_hugetlb_page_range
from nicemu.mm.page import PAGE_SHIFT, PG_DEVICE_PRIVATE, PG_FILE
from nicemu.mm.page_table import (
    HUGE,
    HWPOISON,
    MAPS,
    MIGRATION,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    SPECIAL,
    SWAP,
    UFFD_WP,
    WRITE,
)  # fmt: skip
from nicemu.mm.rmap import page_add_new_anon_rmaps
from nicemu.mm.vma import VM_DONTCOPY, VM_HUGETLB, VM_LOCKED, VM_NONLINEAR, VM_SHARED, VM_UFFD, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def dup_mmap(parent: AddressSpace, child: AddressSpace) -> Steps[None]:
    """Copy the parent's areas; the caller holds the parent's mmap_lock for write."""
    host = parent.host
    child.owns_memory, child.arena = False, parent.arena
    parent.event("fork", 0, 0, child=child.number)
    for vma in parent.vmas:
        if vma.flags & VM_DONTCOPY:
            continue
        flags = vma.flags & ~(VM_LOCKED | VM_UFFD)
        copy = Vma(child, vma.start, vma.end, flags, vma.kind, vma.region, vma.anon_vma, vma.pgoff, vma.file)
        yield from link_vma(copy)
        if vma.flags & VM_HUGETLB:
            yield from copy_hugetlb_page_range(parent, child, vma, copy)
        else:
            yield from copy_page_range(parent, child, vma, copy)
    parent.flush_tlb(0, 0, "fork")
    yield host.costs.tlb_flush_ns


def copy_page_range(parent: AddressSpace, child: AddressSpace, vma: Vma, copy: Vma) -> Steps[None]:
    """The entries of one area. Pages of files need no copy: the child faults them in (``vma_needs_copy``). A shared
    area is not write-protected, so nobody is told."""
    if vma.file is not None and not vma.anon_vma.prepared and not vma.flags & VM_NONLINEAR:
        return
    if vma.flags & VM_SHARED:
        yield from _copy_leaves(parent, child, vma, copy)
        return
    notify = Invalidation(parent, "fork", vma.start, vma.end, "fork")
    yield from notify.start()
    yield from _copy_leaves(parent, child, vma, copy)
    yield from notify.end()


def _copy_leaves(parent: AddressSpace, child: AddressSpace, vma: Vma, copy: Vma) -> Steps[None]:
    for a, b in parent.page_table.spans(vma.first_page, vma.last_page):
        while not (yield from _copy_pte_range(parent, child, copy, a, b)):
            pass


def _copy_pte_range(parent: AddressSpace, child: AddressSpace, copy: Vma, a: int, b: int) -> Steps[bool]:
    """``copy_pte_range`` of one leaf; False: start over, more pages are needed for copies of pinned ones."""
    host, thread, pages = parent.host, parent.host.thread, parent.host.pages
    pinned = _pinned(parent, a, b)
    if len(pinned) and parent.page_table.get(a) & HUGE:
        yield from split_huge_pmd(parent, a)
    spare = yield from _spare_pages(child, copy, pinned + a)
    yield from parent.page_table_lock.acquire(thread)
    pinned, huge = _pinned(parent, a, b), bool(parent.page_table.get(a) & HUGE)
    if len(pinned) != len(spare) or (huge and len(pinned)):
        parent.page_table_lock.release(thread)
        pages.put_many(spare)
        return False
    view = parent.page_table.view(a, b)
    _restore_exclusive(host, view)
    shared = (view & MAPS) != 0
    shared[pinned] = False
    kept = SWAP | MIGRATION | HWPOISON
    if copy.flags & VM_SHARED:
        kept |= SPECIAL
    else:
        view[shared | ((view & MIGRATION) != 0)] &= ~WRITE
    entries = np.where(shared | ((view & kept) != 0), view & ~UFFD_WP, 0)
    entries[pinned] = spare << PFN_SHIFT | view[pinned] & ((1 << PFN_SHIFT) - 1)
    for frame, new in zip((view[pinned] >> PFN_SHIFT).tolist(), spare.tolist(), strict=True):
        pages.copy(frame, new)
    frames = view[shared] >> PFN_SHIFT
    frames = frames[frames != host.zero_frame]
    np.add.at(pages.refcounts, frames, 1)  # KSM: one frame may be here more than once
    np.add.at(pages.mapcounts, frames, 1)
    if huge:
        host.compound_mapcount[int(frames[0])] += 1
    host.swap.duplicate(entries[(entries & SWAP) != 0] >> PFN_SHIFT)
    if entries.any():
        child.page_table.view(a, b)[:] = entries
    page_add_new_anon_rmaps(host, copy, pinned + a, spare)
    if not copy.flags & VM_SHARED:
        parent.stamp_protected(frames, "fork")
        parent.event("pte_protect", a << PAGE_SHIFT, b << PAGE_SHIFT, operation="fork", present=len(frames))
    parent.page_table_lock.release(thread)
    yield host.costs.pte_ns * len(frames) + host.costs.copy_page_ns * len(spare)
    return True


def _restore_exclusive(host: Host, view: np.ndarray) -> None:
    """``try_restore_exclusive_pte``: a child has no device that could use the page alone."""
    for i in np.flatnonzero((view & (PROTNONE | SPECIAL)) == PROTNONE | SPECIAL).tolist():
        if not host.pages.flags[view[i] >> PFN_SHIFT] & PG_DEVICE_PRIVATE:
            view[i] += PRESENT - PROTNONE - SPECIAL


def _pinned(parent: AddressSpace, a: int, b: int) -> np.ndarray:
    """Indices within [a, b) of pages that fork must copy."""
    if not parent.host.discipline.fork_copies_pinned:
        return np.empty(0, np.int64)
    view = parent.page_table.view(a, b)
    found: np.ndarray = np.flatnonzero((view & PRESENT) != 0)
    frames, pages = view[found] >> PFN_SHIFT, parent.host.pages
    pinned: np.ndarray = found[(pages.all_pins[frames] > 0) & (pages.all_flags[frames] & PG_FILE == 0)]
    return pinned


def _spare_pages(child: AddressSpace, copy: Vma, numbers: np.ndarray) -> Steps[np.ndarray]:
    if not len(numbers):
        return np.empty(0, np.int64)
    return (yield from child.host.alloc_pages(copy.kind, len(numbers), child.pointers(copy, numbers), child))
