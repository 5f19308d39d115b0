"""UFFDIO_MOVE (``move_pages``, ``move_pages_pte``, 6.12): pages change their address without a copy.

Page by page: ``range_start`` over the source page, both entries checked under the page-table lock, the source cleared
and flushed, the destination set, the reverse map corrected, ``range_end``. The destination must be empty, the source
a page that nobody else maps or has pinned.

A huge page moves as a whole where both addresses allow it and the destination's 2 MiB are empty
(``move_pages_huge_pmd``); otherwise it is split. Left out: a page that is locked by reclaim or migration
gives EAGAIN at once.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.compound import (
    HPAGE_PMD_NR,
    HPAGE_PMD_SIZE,
    clear_huge,
    frames_of,
    page_add_huge_rmap,
    pmd_same,
    pmd_trans_huge,
    set_huge,
)  # fmt: skip
from nicemu.mm.discipline import Invalidation
from nicemu.mm.huge_split import split_huge_pmd
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_KSM
from nicemu.mm.page_table import HUGE, MIGRATION, PFN_SHIFT, PRESENT, SOFT_DIRTY, SWAP, UFFD_WP, WRITE, WRITTEN
from nicemu.mm.rmap import ptep_clear_flush
from nicemu.mm.vma import VM_LOCKED, VM_SHARED, VM_UFFD, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def uffd_move(mm: AddressSpace, destination: int, source: int, length: int, allow_holes: bool = False) -> Steps[int]:
    """UFFDIO_MOVE; gives the bytes moved. ``allow_holes``: UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES.

    :raises OSError: EINVAL, areas that do not fit; and if it is the first page: EEXIST, the destination is not empty;
        ENOENT, the source is; EBUSY, the page is shared or pinned; EAGAIN, it is locked.
    :raises NotInThisKernel: 3.x.
    """
    mm.host.discipline.site("uffd_move")
    moved = 0
    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        areas = validate_move_areas(mm, destination, source, length)
        while moved < length:
            pages = source + moved >> PAGE_SHIFT, destination + moved >> PAGE_SHIFT
            huge = yield from _huge_or_split(mm, *pages, length - moved)
            if huge:
                error = yield from move_pages_huge_pmd(areas, *pages)
            else:
                error = yield from _move_pages_pte(areas, *pages, allow_holes)
            if error and not moved:
                raise _error(error)
            if error:
                break
            moved += HPAGE_PMD_SIZE if huge else PAGE_SIZE
        if mm.userfaultfd is not None:
            mm.userfaultfd.wake(destination, moved)
    finally:
        mm.mmap_lock.release(thread)
    return moved


def validate_move_areas(mm: AddressSpace, destination: int, source: int, length: int) -> tuple[Vma, Vma]:
    """``validate_move_areas``: source and destination area. :raises OSError: EINVAL."""
    one, other = mm.vmas.find(source), mm.vmas.find(destination)
    if one is None or other is None or length <= 0 or (source | destination | length) & PAGE_SIZE - 1:
        raise _error(errno.EINVAL)
    inside = source + length <= one.end and destination + length <= other.end
    overlap = source < destination + length and destination < source + length
    anonymous = all(v.kind == MODEL and v.file is None and not v.flags & VM_SHARED for v in (one, other))
    alike = not (one.flags ^ other.flags) & (VM_LOCKED | VM_WRITE) and one.flags & VM_WRITE
    if not inside or overlap or not anonymous or not alike or not other.flags & VM_UFFD:
        raise _error(errno.EINVAL)
    return one, other


def _huge_or_split(mm: AddressSpace, source: int, destination: int, left: int) -> Steps[bool]:
    """Can the source move as a huge page? A huge one that cannot is split."""
    if not pmd_trans_huge(mm, source):
        return False
    aligned = not (source | destination) & HPAGE_PMD_NR - 1 and left >= HPAGE_PMD_SIZE
    if aligned and not mm.page_table.view(destination, destination + HPAGE_PMD_NR).any():
        return True
    yield from split_huge_pmd(mm, source)
    return False


def move_pages_huge_pmd(areas: tuple[Vma, Vma], source: int, destination: int) -> Steps[int]:
    """``move_pages_huge_pmd``: gives an errno, 0 if it moved."""
    mm, host = areas[0].mm, areas[0].mm.host
    start, end = source << PAGE_SHIFT, source + HPAGE_PMD_NR << PAGE_SHIFT
    entry = mm.page_table.get(source)
    frames = frames_of(entry >> PFN_SHIFT)
    notify = Invalidation(mm, "uffd_move_huge", start, end, "uffd_move_huge", frames)
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    error = errno.EAGAIN
    if pmd_same(mm.page_table.get(source), entry):
        error = errno.EBUSY
        taken = mm.page_table.view(destination, destination + HPAGE_PMD_NR).any()
        if taken:
            error = errno.EEXIST
        elif (host.pages.mapcounts[frames] == 1).all() and (host.pages.refcounts[frames] == 1).all():
            error = 0
            clear_huge(mm, source, HPAGE_PMD_NR, "uffd_move_huge")
            page_add_huge_rmap(host, areas[1], destination, frames)
            set_huge(mm, destination, entry & ~UFFD_WP | WRITTEN)
            mm.event("pte_move", start, end, operation="uffd_move_huge")
    mm.page_table_lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    return error


def _move_pages_pte(areas: tuple[Vma, Vma], source: int, destination: int, allow_holes: bool) -> Steps[int]:
    """``move_pages_pte``: one page; gives an errno, 0 if it moved."""
    mm, host = areas[0].mm, areas[0].mm.host
    address, entry = source << PAGE_SHIFT, mm.page_table.get(source)
    notify = Invalidation(mm, "uffd_move", address, address + PAGE_SIZE, "uffd_move")
    if entry & PRESENT:
        notify.frames = entry >> PFN_SHIFT
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    now = mm.page_table.get(source)
    error = errno.EAGAIN
    if now == entry:
        error = _refused(mm, entry, mm.page_table.get(destination), allow_holes)
        if not error and entry:
            yield from notify.clearing()
            ptep_clear_flush(areas[0].mm, source, "uffd_move")
            yield from notify.cleared(entry)
            _set_destination(areas, source, destination, entry)
    mm.page_table_lock.release(host.thread)
    yield host.costs.tlb_flush_ns if not error else host.costs.pte_ns
    yield from notify.end()
    return error


def _refused(mm: AddressSpace, entry: int, there: int, allow_holes: bool) -> int:
    """Why the page cannot move, as an errno."""
    host, frame = mm.host, entry >> PFN_SHIFT
    if there:
        return errno.EEXIST
    if not entry:
        return 0 if allow_holes else errno.ENOENT
    if entry & SWAP:
        return 0 if host.swap.users(frame) == 1 else errno.EBUSY
    if entry & MIGRATION or frame in host.reclaim.isolated:
        return errno.EAGAIN
    if not entry & PRESENT or entry & HUGE:
        return errno.EBUSY
    shared = frame != host.zero_frame and (
        host.pages.mapcount[frame] != 1 or host.pages.pinned(frame) or host.pages.flags[frame] & PG_KSM
    )
    return errno.EBUSY if shared else 0


def _set_destination(areas: tuple[Vma, Vma], source: int, destination: int, entry: int) -> None:
    """``move_present_pte``, ``move_swap_pte``, ``move_zeropage_pte``."""
    vma, mm = areas[1], areas[1].mm
    frame = entry >> PFN_SHIFT
    if entry & PRESENT and frame != mm.host.zero_frame:
        entry = entry & ~UFFD_WP | WRITTEN
        mm.host.pages.anon_vma[frame] = vma.anon_vma.number
        mm.host.pages.index[frame] = vma.pgoff + destination - vma.first_page
    else:
        entry = entry & ~(UFFD_WP | WRITE) | SOFT_DIRTY
    mm.page_table.set(destination, entry)
    mm.event("pte_move", source << PAGE_SHIFT, (source + 1) << PAGE_SHIFT, operation="uffd_move")
