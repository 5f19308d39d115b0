"""``mprotect_fixup`` and ``change_protection``.

One ``range_start/end`` pair an area, around the change of its entries. 3.x flushes the CPU TLB before the end; 6.12
after it, and starts the notifier only if something is mapped there. Adding permissions changes no entry: the next
write faults.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.memory import arena as real_memory
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_split import isolate_vmas
from nicemu.mm.page import ARENA, MODEL, PAGE_SHIFT
from nicemu.mm.page_table import MIGRATION, PFN_SHIFT, PRESENT, PROTNONE, WRITE
from nicemu.mm.vma import VM_ACCESS, VM_HUGETLB, VM_MAYNOTWRITE, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def do_mprotect(mm: AddressSpace, start: int, end: int, prot: int, real: bool) -> Steps[None]:
    """``do_mprotect_pkey``; the caller holds mmap_lock for write.

    :raises OSError: EACCES, a shared mapping of a file that is open for reading only would become writable; ENOMEM if
        part of the range is not mapped (nothing is changed), or if the program unmapped part of
        an area behind our back (areas up to and including that one are changed).
    """
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    for vma in (yield from isolate_vmas(mm, start, end)):
        if prot & VM_WRITE and vma.flags & VM_MAYNOTWRITE:
            mm.vmas.merge(start, end)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        if vma.flags & VM_ACCESS != prot:
            error = yield from mprotect_fixup(mm, vma, prot, real)
        else:  # the program may have changed it behind our back
            error = _protect_real_memory(mm, vma, prot, real)
        if error is not None:
            raise error
    mm.vmas.merge(start, end)


def mprotect_fixup(mm: AddressSpace, vma: Vma, prot: int, real: bool) -> Steps[OSError | None]:
    """Change one area; gives what the real mprotect failed with."""
    start, end = vma.start, vma.end
    vma.flags = vma.flags & ~VM_ACCESS | prot
    hugetlb = bool(vma.flags & VM_HUGETLB)
    notify = Invalidation(mm, "hugetlb_mprotect" if hugetlb else "mprotect", start, end, "mprotect")
    populated = mm.populated(start, end)
    notified = populated or not notify.lazy
    if notified:
        yield from notify.start()
        if not prot:
            mm.stamp_range(start, end, "mprotect")
    error = _protect_real_memory(mm, vma, prot, real)
    if not prot & VM_WRITE:
        yield from (hugetlb_change_protection if hugetlb else change_protection)(mm, start, end)
    if not notify.flush_last:
        yield from _flush(mm, start, end, populated)
    if notified:
        yield from notify.end()
    if notify.flush_last:
        yield from _flush(mm, start, end, populated)
    return error


def _flush(mm: AddressSpace, start: int, end: int, populated: bool) -> Steps[None]:
    if populated:
        mm.flush_tlb(start, end, "mprotect")
        yield mm.host.costs.tlb_flush_ns


def hugetlb_change_protection(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``hugetlb_change_protection``: the same, under i_mmap_mutex."""
    mutex = mm.host.hugetlb.i_mmap_mutex
    yield from mutex.acquire(mm.host.thread)
    yield from change_protection(mm, start, end)
    mutex.release(mm.host.thread)


def change_protection(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``change_pte_range`` of every leaf: write-protect, one yield a leaf."""
    host, thread = mm.host, mm.host.thread
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from mm.page_table_lock.acquire(thread)
        view = mm.page_table.view(a, b)
        writable = (view & (PRESENT | WRITE)) == PRESENT | WRITE
        frames = view[writable] >> PFN_SHIFT
        view[writable | ((view & (MIGRATION | PROTNONE)) != 0)] &= ~WRITE
        mm.stamp_protected(frames, "mprotect")
        mm.event("pte_protect", a << PAGE_SHIFT, b << PAGE_SHIFT, operation="mprotect", present=len(frames))
        mm.page_table_lock.release(thread)
        yield host.costs.pte_ns * len(frames)


def _protect_real_memory(mm: AddressSpace, vma: Vma, prot: int, real: bool) -> OSError | None:
    """The real mprotect. Gives its error: memory that the
    program unmapped behind our back has no protection to change."""
    if vma.kind == MODEL or not mm.owns_memory:
        return None
    mm.retire_isolated(vma.start, vma.end)
    try:
        if vma.kind == ARENA:
            assert mm.arena is not None
            mm.arena.protect(vma.start, vma.end - vma.start, prot)
        elif real:
            real_memory.mprotect(vma.start, vma.end - vma.start, prot)
    except OSError as error:
        return error
    return None
