"""``munmap``, ``madvise(MADV_DONTNEED)`` and exit: ``unmap_vmas`` with an mmu_gather.

Order in every era (odp.md 1.3, 1.5): ``range_start`` once for the range; page-table entries cleared leaf by leaf under
the page-table lock; ``range_end``; CPU TLB flush; pages freed (``tlb_finish_mmu``). The real system call on arena
memory happens in the same instant as the first entries are cleared, after every frame of the range was re-pointed.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.memory import arena as real_memory
from nicemu.mm.compound import pmd_trans_huge, thp_unmapped_whole
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import unlink_vma
from nicemu.mm.gather import MmuGather
from nicemu.mm.huge_split import isolate_vmas, split_huge_pmd
from nicemu.mm.hugetlb_range import discarded, unmap_hugepage_range
from nicemu.mm.notifier import Event, mmu_notifier_release
from nicemu.mm.page import ARENA, MODEL, PAGE_SHIFT
from nicemu.mm.page_table import ENTRIES, HUGE, MAPS, PFN_SHIFT, SWAP
from nicemu.mm.vma import VM_HUGETLB, VM_LOCKED, Vma
from nicemu.mm.zap_file import set_file_pages_dirty, zap_selected
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

USER_END = 1 << 48


def do_munmap(mm: AddressSpace, start: int, end: int, real: bool) -> Steps[None]:
    """``do_munmap``; the caller holds mmap_lock for write. :raises OSError: EINVAL, part of a hugetlb page."""
    vmas = yield from isolate_vmas(mm, start, end)
    if not vmas:
        return
    gather = MmuGather(mm, "munmap")
    yield from unmap_vmas(mm, vmas, vmas[0].start, vmas[-1].end, gather, Event.UNMAP, real)
    for vma in vmas:
        if vma.flags & VM_LOCKED:
            mm.locked_vm -= vma.last_page - vma.first_page
        yield from unlink_vma(vma)
    mm.page_table.free_empty(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
    yield from gather.finish(start, end)
    yield from mm.host.drop_files(vmas)


def unmap_vmas(mm: AddressSpace, vmas: list[Vma], start: int, end: int, gather: MmuGather, event: Event,
               real: bool) -> Steps[OSError | None]:  # fmt: skip
    """``unmap_vmas`` / ``zap_page_range_single``: one notifier pair around the clearing of [start, end).

    Gives the first error of a real system call. The model's part is done all the same."""
    failed: OSError | None = None
    notify = Invalidation(mm, "unmap" if event == Event.UNMAP else "zap", start, end, gather.operation)
    if mm.host.broken("free_before_start"):
        for vma in vmas:
            yield from zap_pte_ranges(vma, max(vma.start, start), min(vma.end, end), gather)
        yield from gather.finish(start, end)
    yield from notify.start()
    mm.stamp_range(start, end, gather.operation)
    for vma in vmas:
        a, b = max(vma.start, start), min(vma.end, end)
        failed = _take_real_memory(mm, vma, a, b, event, real) or failed
        if vma.flags & VM_HUGETLB:
            yield from unmap_hugepage_range(mm, vma, a, b, gather)
        else:
            yield from zap_pte_ranges(vma, a, b, gather)
    yield from notify.end()
    return failed


def _take_real_memory(mm: AddressSpace, vma: Vma, start: int, end: int, event: Event, real: bool) -> OSError | None:
    """Re-point the frames of the range, then do the program's real munmap or madvise. Pinned pages take their bytes
    along. Gives the call's error: a range of which the program unmapped a part behind our back cannot be discarded
    whole."""
    if vma.kind == MODEL or not mm.owns_memory:
        return None
    frames, pages = mm.frames_in(start, end), mm.host.pages
    pinned = pages.all_pins[frames] > 0
    for frame in frames[pinned]:
        mm.host.frames.keep(int(frame))
    mm.host.frames.retire(frames[~pinned])
    mm.retire_isolated(start, end)
    try:
        _real_call(mm, vma, start, end, event, real)
    except OSError as error:
        return error
    return None


def _real_call(mm: AddressSpace, vma: Vma, start: int, end: int, event: Event, real: bool) -> None:
    """The real munmap or madvise of arena memory, or of program memory if the program asked us."""
    if vma.kind == ARENA:
        assert mm.arena is not None
        (mm.arena.unmap if event == Event.UNMAP else mm.arena.discard)(start, end - start)
    elif real and event == Event.UNMAP:
        (mm.arena.unmap_shared if mm.arena is not None else real_memory.munmap)(start, end - start)
    elif real:
        real_memory.madvise(start, end - start, real_memory.MADV_DONTNEED)


def zap_pte_ranges(vma: Vma, start: int, end: int, gather: MmuGather) -> Steps[None]:
    """``zap_pte_range`` of every leaf, one yield a leaf."""
    mm = vma.mm
    host, thread = mm.host, mm.host.thread
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from _lock_split(mm, a, b)
        view = mm.page_table.view(a, b)
        if gather.details is None:
            entries = view[view != 0]
            view[:] = 0
        else:
            entries = zap_selected(vma, a, view, gather.details)
        frames = entries[(entries & MAPS) != 0] >> PFN_SHIFT
        frames = frames[frames != host.zero_frame]
        if len(frames) == 1:
            host.pages.mapcount[int(frames[0])] -= 1
        else:  # KSM, nonlinear: one frame may be here more than once
            np.subtract.at(host.pages.mapcounts, frames, 1)
        if vma.file is not None:
            set_file_pages_dirty(host, entries)
        if len(entries) and entries[0] & HUGE:
            thp_unmapped_whole(host, int(frames[0]))
        mm.event("pte_clear", a << PAGE_SHIFT, b << PAGE_SHIFT, operation=gather.operation, present=len(frames))
        mm.page_table_lock.release(thread)
        host.swap.put_entries(entries[(entries & SWAP) != 0])
        if len(entries):
            gather.add(frames)
        yield host.costs.pte_ns * len(entries)


def _lock_split(mm: AddressSpace, a: int, b: int) -> Steps[None]:
    """Take the page-table lock; pages [a, b) are no part of a huge mapping then, but all of it (``zap_pmd_range``)."""
    while True:
        yield from mm.page_table_lock.acquire(mm.host.thread)
        if b - a == ENTRIES or not pmd_trans_huge(mm, a):
            return
        mm.page_table_lock.release(mm.host.thread)
        yield from split_huge_pmd(mm, a)


def madvise_dontneed(mm: AddressSpace, start: int, end: int, real: bool) -> Steps[None]:
    """``madvise_dontneed_single_vma`` of each area; the caller holds mmap_lock for read.

    :raises OSError: ENOMEM if part of the range is not mapped (the rest is done, as in Linux); EINVAL, locked memory or
        hugetlb.
    """
    failed: OSError | None = None
    for vma in mm.vmas.overlapping(start, end):
        if vma.flags & VM_LOCKED:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        a, b = discarded(vma, max(vma.start, start), min(vma.end, end))
        gather = MmuGather(mm, "dontneed")
        failed = (yield from unmap_vmas(mm, [vma], a, b, gather, Event.CLEAR, real)) or failed
        yield from gather.finish(a, b)
    if failed is not None:
        raise failed
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def exit_mmap(mm: AddressSpace) -> Steps[None]:
    """``exit_mmap``: every subscriber drops everything, then all is unmapped."""
    yield from mmu_notifier_release(mm)
    mm.stamp_range(0, USER_END, "exit")
    vmas, gather = list(mm.vmas), MmuGather(mm, "exit")
    if vmas:
        yield from unmap_vmas(mm, vmas, 0, USER_END, gather, Event.UNMAP, False)
    for vma in vmas:
        yield from unlink_vma(vma)
    yield from gather.finish(0, USER_END)
    mm.page_table.release()
    yield from mm.host.drop_files(vmas)
