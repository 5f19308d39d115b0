"""``mremap``: shrink, grow in place, or move (``move_page_tables``).

A move notifies the old range only (the destination is empty), moves entries leaf by leaf under the page-table lock,
flushes the CPU TLB and ends. Frames follow: their real address is the new one from the instant the memory moves.

Left out: MREMAP_FIXED and MREMAP_DONTUNMAP; ranges of more than one area (EFAULT, as in Linux before 6.17).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import link_vma, unlink_vma
from nicemu.mm.locks import RwSemaphore
from nicemu.mm.page import ARENA, PAGE_SHIFT, PROGRAM
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.mm.vma import Vma
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
    more = new_length - old_length
    if old + old_length == vma.end and mm.room_at(vma.kind, vma.end, more):
        if vma.kind == ARENA:
            assert mm.arena is not None
            mm.arena.map(vma.end, more, vma.flags & 7)
        vma.end += more
        return old
    if not may_move:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    return (yield from move_vma(mm, old, old_length, new_length))


def move_vma(mm: AddressSpace, old: int, old_length: int, new_length: int) -> Steps[int]:
    """``move_vma``: a new area elsewhere takes the pages over."""
    vma = mm.vmas.isolate(old, old + old_length)[0]
    new = mm.unmapped_area(vma.kind, new_length, vma.flags & 7)
    moved = Vma(mm, new, new + new_length, vma.flags, vma.kind, vma.region, vma.anon_vma, vma.pgoff, vma.file)
    yield from link_vma(moved)
    notify = Invalidation(mm, "mremap", old, old + old_length, "mremap")
    yield from notify.start()
    mm.stamp_range(old, old + old_length, "mremap")
    if vma.kind == ARENA:
        _move_real_memory(mm, old, old_length, new)
    yield from _move_page_tables(vma, old, old_length, new)
    mm.event("tlb_flush", old, old + old_length, operation="mremap")
    yield mm.host.costs.tlb_flush_ns
    yield from notify.end()
    yield from unlink_vma(vma)
    mm.page_table.free_empty(old >> PAGE_SHIFT, old + old_length >> PAGE_SHIFT)
    return new


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


def _move_page_tables(vma: Vma, old: int, length: int, new: int) -> Steps[None]:
    """``move_ptes``, at most one leaf of source and destination at a time."""
    mm = vma.mm
    host, thread = mm.host, mm.host.thread
    shift = new - old >> PAGE_SHIFT
    for a, b in mm.page_table.spans(old >> PAGE_SHIFT, old + length >> PAGE_SHIFT):
        locks = yield from take_rmap_locks(vma, thread)
        yield from mm.page_table_lock.acquire(thread)
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
