"""``munmap``, ``madvise(MADV_DONTNEED)`` and exit: ``unmap_vmas`` with an mmu_gather.

Order in every era (odp.md 1.3, 1.5): ``range_start`` once for the range; page-table entries cleared leaf by leaf under
the page-table lock; ``range_end``; CPU TLB flush; pages freed (``tlb_finish_mmu``). The real system call on arena
memory happens in the same instant as the first entries are cleared, after every frame of the range was re-pointed.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.memory import arena as real_memory
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import unlink_vma
from nicemu.mm.notifier import Event, NotifierRange
from nicemu.mm.page import ARENA, MODEL, PAGE_SHIFT, PG_DIRTY, PG_FILE
from nicemu.mm.page_table import DIRTY, MIGRATION, PFN_SHIFT, PRESENT, SPECIAL, SWAP
from nicemu.mm.vma import VM_NONLINEAR, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

USER_END = 1 << 48


@dataclass(frozen=True, slots=True)
class ZapDetails:
    """``struct zap_details``: which pages of a file go, by index in [first, last), and whether private copies do."""

    first: int
    last: int
    even_cows: bool

    def selects(self, host: Host, vma: Vma, entries: np.ndarray) -> np.ndarray:
        """Which of these entries go (``should_zap_folio``). Nonlinear ones are looked at one by one."""
        selected: np.ndarray = entries != 0
        if self.even_cows and not vma.flags & VM_NONLINEAR:
            return selected
        frames = np.where(entries & (PRESENT | MIGRATION), entries >> PFN_SHIFT, 0)
        selected = (host.pages.all_flags[frames] & PG_FILE) != 0
        if vma.flags & VM_NONLINEAR:
            index = host.pages.indices[frames]
            selected &= (index >= self.first) & (index < self.last)
        else:  # holes of direct files
            selected |= (frames != 0) & ((frames == host.zero_frame) | (frames == host.xip_sparse))
        return selected


class MmuGather:
    """``struct mmu_gather``: pages that are freed after the TLB flush. ``details``: what is zapped, all without."""

    def __init__(self, mm: AddressSpace, operation: str, details: ZapDetails | None = None) -> None:
        self.mm, self.operation, self.details = mm, operation, details
        self._frames: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        """These lost a mapping, each once."""
        self._frames.append(frames)

    def finish(self, start: int, end: int) -> Steps[None]:
        """``tlb_finish_mmu``: flush, then free."""
        if not self._frames:
            return
        self.mm.event("tlb_flush", start, end, operation=self.operation)
        yield self.mm.host.costs.tlb_flush_ns
        for frames in self._frames:
            freed = self.mm.host.pages.put_many(frames)
            if len(freed):
                self.mm.host.event("free", frame=int(freed[0]), frames=len(freed), operation=self.operation)


def do_munmap(mm: AddressSpace, start: int, end: int, real: bool) -> Steps[None]:
    """``do_munmap``; the caller holds mmap_lock for write."""
    vmas = mm.vmas.isolate(start, end)
    if not vmas:
        return
    gather = MmuGather(mm, "munmap")
    yield from unmap_vmas(mm, vmas, vmas[0].start, vmas[-1].end, gather, Event.UNMAP, real)
    for vma in vmas:
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
    yield from notify.start()
    mm.stamp_range(start, end, gather.operation)
    for vma in vmas:
        a, b = max(vma.start, start), min(vma.end, end)
        failed = _take_real_memory(mm, vma, a, b, event, real) or failed
        yield from _zap_pte_ranges(vma, a, b, gather)
    yield from notify.end()
    return failed


def _take_real_memory(mm: AddressSpace, vma: Vma, start: int, end: int, event: Event, real: bool) -> OSError | None:
    """Re-point the frames of the range, then do the program's real munmap or madvise. Gives its error: a range of
    which the program unmapped a part behind our back cannot be discarded whole."""
    if vma.kind == MODEL or not mm.owns_memory:
        return None
    mm.host.frames.retire(mm.frames_in(start, end))
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
        real_memory.munmap(start, end - start)
    elif real:
        real_memory.madvise(start, end - start, real_memory.MADV_DONTNEED)


def _zap_pte_ranges(vma: Vma, start: int, end: int, gather: MmuGather) -> Steps[None]:
    """``zap_pte_range`` of every leaf, one yield a leaf."""
    mm = vma.mm
    host, thread = mm.host, mm.host.thread
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from mm.page_table_lock.acquire(thread)
        view = mm.page_table.view(a, b)
        if gather.details is None:
            entries = view[view != 0]
            view[:] = 0
        else:
            entries = _zap_selected(vma, a, view, gather.details)
        frames = entries[(entries & PRESENT) != 0] >> PFN_SHIFT
        frames = frames[frames != host.zero_frame]
        if vma.file is None:
            host.pages.mapcounts[frames] -= 1
        else:
            frames = _zap_file_pages(host, entries, frames, gather)
        mm.event("pte_clear", a << PAGE_SHIFT, b << PAGE_SHIFT, operation=gather.operation, present=len(frames))
        mm.page_table_lock.release(thread)
        host.swap.put_entries(entries[(entries & SWAP) != 0])
        if len(entries):
            gather.add(frames)
        yield host.costs.pte_ns * len(entries)


def _zap_selected(vma: Vma, first: int, view: np.ndarray, details: ZapDetails) -> np.ndarray:
    """Clear what ``details`` selects; gives those entries. A nonlinear entry remembers its place in the file."""
    host = vma.mm.host
    selected = details.selects(host, vma, view)
    entries: np.ndarray = view[selected]
    view[selected] = 0
    if vma.flags & VM_NONLINEAR:
        at = np.flatnonzero(selected)
        index = host.pages.indices[entries >> PFN_SHIFT]
        moved = index != vma.pgoff + first + at - vma.first_page
        view[at[moved]] = index[moved] << PFN_SHIFT | SPECIAL
    return entries


def _zap_file_pages(host: Host, entries: np.ndarray, frames: np.ndarray, gather: MmuGather) -> np.ndarray:
    """``zap_present_ptes`` in a file mapping: a dirty entry makes the page dirty; one page may be mapped twice. Gives
    frames that are left to be given to the gather."""
    pages = host.pages
    dirty = entries[(entries & (PRESENT | DIRTY)) == PRESENT | DIRTY] >> PFN_SHIFT
    dirty = dirty[(pages.all_flags[dirty] & PG_FILE) != 0]
    pages.all_flags[dirty] |= PG_DIRTY
    np.subtract.at(pages.mapcounts, frames, 1)
    left: np.ndarray = frames
    while len(left):
        unique, at = np.unique(left, return_index=True)
        if len(unique) == len(left):
            break
        gather.add(unique)
        left = left[~np.isin(np.arange(len(left)), at)]
    return left


def madvise_dontneed(mm: AddressSpace, start: int, end: int, real: bool) -> Steps[None]:
    """``madvise_dontneed_single_vma`` of each area; the caller holds mmap_lock for read.

    :raises OSError: ENOMEM if part of the range is not mapped (the rest is done, as in Linux).
    """
    failed: OSError | None = None
    for vma in mm.vmas.overlapping(start, end):
        a, b = max(vma.start, start), min(vma.end, end)
        gather = MmuGather(mm, "dontneed")
        failed = (yield from unmap_vmas(mm, [vma], a, b, gather, Event.CLEAR, real)) or failed
        yield from gather.finish(a, b)
    if failed is not None:
        raise failed
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def exit_mmap(mm: AddressSpace) -> Steps[None]:
    """``exit_mmap``: every subscriber drops everything, then all is unmapped."""
    release = NotifierRange(mm, 0, USER_END, Event.RELEASE, "exit")
    mm.event("notifier_release", 0, 0)
    yield from mm.intervals.invalidate_start(release)
    mm.intervals.invalidate_end()
    yield from mm.notifiers.release()
    mm.stamp_range(0, USER_END, "exit")
    vmas, gather = list(mm.vmas), MmuGather(mm, "exit")
    if vmas:
        yield from unmap_vmas(mm, vmas, vmas[0].start, vmas[-1].end, gather, Event.UNMAP, False)
    for vma in vmas:
        yield from unlink_vma(vma)
    yield from gather.finish(0, USER_END)
    mm.page_table.release()
    yield from mm.host.drop_files(vmas)
