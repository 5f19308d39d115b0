"""``mremap``: shrink, grow in place, or move (``move_page_tables``).

A move notifies the old range only (the destination is empty), moves entries leaf by leaf under the page-table lock,
flushes the CPU TLB and ends. Frames follow: their real address is the new one from the instant the memory moves. A huge
mapping moves whole if both its places are aligned (``move_huge_pmd``), else it is split.

Left out: MREMAP_FIXED of arena memory, MREMAP_DONTUNMAP; ranges of more than one area (EFAULT, as in Linux before
6.17).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.compound import pmd_trans_huge
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import link_vma, unlink_vma
from nicemu.mm.huge_memory import thp_alignment
from nicemu.mm.huge_split import huge_pages, isolate_vmas, split_huge_pmd
from nicemu.mm.hugetlb_range import move_hugetlb_page_tables
from nicemu.mm.locks import RwSemaphore
from nicemu.mm.page import ARENA, MODEL, PAGE_SHIFT, PROGRAM
from nicemu.mm.page_table import ENTRIES, PFN_SHIFT, PRESENT
from nicemu.mm.vma import VM_HUGETLB, Vma
from nicemu.mm.zap import do_munmap
from nicemu.timeline.host import HostThread, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def do_mremap(mm: AddressSpace, old: int, old_length: int, new_length: int, may_move: bool) -> Steps[int]:
    """The caller holds mmap_lock for write; gives the new address.

    :raises OSError: EFAULT, ENOMEM; EINVAL for memory that the program mapped itself.
    """
    vma = mm.vmas.find(old)
    if vma is None or old + old_length > vma.end:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    if vma.kind == PROGRAM:
        raise OSError(errno.EINVAL, "mremap of memory that nicemu did not allocate")
    if new_length <= old_length:
        if new_length < old_length:
            yield from do_munmap(mm, old + new_length, old + old_length, True)
        return old
    if vma.flags & VM_HUGETLB:  # 3.x: never; 6.12: reservations cannot grow
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    more = new_length - old_length
    if old + old_length == vma.end and mm.room_at(vma.kind, vma.end, more):
        if vma.kind == ARENA:
            assert mm.arena is not None
            mm.arena.map(vma.end, more, vma.flags & 7)
        vma.end += more
        return old
    if not may_move:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    new = mm.unmapped_area(vma.kind, new_length, vma.flags & 7, thp_alignment(mm, new_length))
    return (yield from move_vma(mm, old, old_length, new_length, new))


def mremap_to(mm: AddressSpace, old: int, old_length: int, new_length: int, new: int) -> Steps[int]:
    """``mremap_to``: MREMAP_FIXED to ``new``, of model memory; what was there goes. The caller holds mmap_lock.

    :raises OSError: EINVAL, the ranges overlap, are not aligned, or cannot be moved; EFAULT.
    """
    vma, (low, high) = mm.vmas.find(old), mm.model_window
    hugetlb = vma is not None and bool(vma.flags & VM_HUGETLB)
    if hugetlb and vma is not None:
        size = huge_pages(vma) << PAGE_SHIFT
        old_length, new_length = (-(-length // size) * size for length in (old_length, new_length))
        if not mm.host.discipline.huge_pages_612 or old % size or new % size or new_length > old_length:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if (new < old + old_length and old < new + new_length) or not low <= new <= high - new_length:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if vma is None or old + old_length > vma.end:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    if vma.kind != MODEL:
        raise OSError(errno.EINVAL, "MREMAP_FIXED of memory that is not the model's")
    yield from do_munmap(mm, new, new + new_length, True)
    if new_length < old_length:
        yield from do_munmap(mm, old + new_length, old + old_length, True)
    return (yield from move_vma(mm, old, min(old_length, new_length), new_length, new))


def move_vma(mm: AddressSpace, old: int, old_length: int, new_length: int, new: int) -> Steps[int]:
    """``move_vma``: a new area at ``new`` takes the pages over."""
    vma = (yield from isolate_vmas(mm, old, old + old_length))[0]
    moved = Vma(mm, new, new + new_length, vma.flags, vma.kind, vma.region, vma.anon_vma, vma.pgoff, vma.file)
    yield from link_vma(moved)
    if vma.flags & VM_HUGETLB:
        yield from move_hugetlb_page_tables(mm, vma, new)
    else:
        yield from move_page_tables(mm, vma, new)
    yield from unlink_vma(vma)
    mm.page_table.free_empty(old >> PAGE_SHIFT, old + old_length >> PAGE_SHIFT)
    return new


def move_page_tables(mm: AddressSpace, vma: Vma, new: int) -> Steps[None]:
    """All of the area to address ``new``."""
    old, old_length = vma.start, vma.end - vma.start
    notify = Invalidation(mm, "mremap", old, old + old_length, "mremap")
    yield from notify.start()
    mm.stamp_range(old, old + old_length, "mremap")
    if vma.kind == ARENA:
        _move_real_memory(mm, old, old_length, new)
    yield from _move_page_tables(vma, old, old_length, new)
    mm.flush_tlb(old, old + old_length, "mremap")
    yield mm.host.costs.tlb_flush_ns
    yield from notify.end()


def _move_real_memory(mm: AddressSpace, old: int, length: int, new: int) -> None:
    if not mm.owns_memory:
        return
    frames = mm.frames_in(old, old + length)
    pages = mm.host.pages
    here = frames[(pages.pointers[frames] >= old) & (pages.pointers[frames] < old + length)]
    pages.pointers[here] += new - old
    mm.retire_isolated(old, old + length)
    assert mm.arena is not None
    mm.arena.remap(old, length, new)


def _follow(mm: AddressSpace, source: np.ndarray, page: int, shift: int) -> None:
    """Pages that a migration mapped here after their bytes had moved point at where those were."""
    if mm.owns_memory:
        present = np.flatnonzero((source & PRESENT) != 0)
        frames, pointers = source[present] >> PFN_SHIFT, mm.host.pages.pointers
        late = pointers[frames] == present + page << PAGE_SHIFT
        pointers[frames[late]] += shift << PAGE_SHIFT


def take_rmap_locks(vma: Vma, thread: HostThread) -> Steps[list[RwSemaphore]]:
    """``take_rmap_locks``: a walk of reverse maps must not miss a page that is between two places."""
    locks = [vma.anon_vma.lock] if vma.file is None else [vma.file.i_mmap, vma.anon_vma.lock]
    for lock in locks:
        yield from lock.acquire_write(thread)
    return locks


def _lock_for_move(vma: Vma, a: int, b: int, shift: int) -> Steps[list[RwSemaphore]]:
    """Take the rmap locks (given) and the page-table lock; pages [a, b) are no part of a huge mapping then that cannot
    move whole."""
    mm, thread = vma.mm, vma.mm.host.thread
    while True:
        locks = yield from take_rmap_locks(vma, thread)
        yield from mm.page_table_lock.acquire(thread)
        if not pmd_trans_huge(mm, a) or (b - a == ENTRIES and shift % ENTRIES == 0):
            return locks
        mm.page_table_lock.release(thread)
        for lock in reversed(locks):
            lock.release(thread)
        yield from split_huge_pmd(mm, a)


def _move_page_tables(vma: Vma, old: int, length: int, new: int) -> Steps[None]:
    """``move_ptes``, at most one leaf of source and destination at a time."""
    mm = vma.mm
    host, thread = mm.host, mm.host.thread
    shift = new - old >> PAGE_SHIFT
    for a, b in mm.page_table.spans(old >> PAGE_SHIFT, old + length >> PAGE_SHIFT):
        locks = yield from _lock_for_move(vma, a, b, shift)
        page = a
        while page < b:
            stop = min(b, (page + shift | 511) + 1 - shift)
            source = mm.page_table.view(page, stop)
            if source.any():
                mm.page_table.view(page + shift, stop + shift)[:] = source
                _follow(mm, source, page, shift)
                source[:] = 0
            page = stop
        mm.event("pte_move", a << PAGE_SHIFT, b << PAGE_SHIFT, operation="mremap")
        mm.page_table_lock.release(thread)
        for lock in reversed(locks):
            lock.release(thread)
        yield host.costs.pte_ns * (b - a)
