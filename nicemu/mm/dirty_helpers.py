"""``mapping_dirty_helpers.c`` (6.12): write-protect or clean the entries of a file's shared mappings, for drivers that
track what is written through them.

One notifier pair an area (``wp_clean_pre_vma``), around the change of its entries; the CPU TLB is flushed before the
end (``wp_clean_post_vma``). ``i_mmap`` is held all the while (``walk_page_mapping``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import File, i_mmap_lock_read
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY
from nicemu.mm.page_table import DIRTY, PFN_SHIFT, PRESENT, WRITE
from nicemu.mm.vma import VM_SHARED, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host


def wp_shared_mapping_range(host: Host, file: File, first: int, pages: int) -> Steps[int]:
    """``wp_shared_mapping_range``: write-protect pages [first, first + pages) wherever they are mapped shared; gives
    the number of entries changed. :raises NotInThisKernel: 3.x."""
    changed = yield from _walk_page_mapping(host, file, first, pages, WRITE)
    return len(changed)


def clean_record_shared_mapping_range(host: Host, file: File, first: int, pages: int) -> Steps[list[int]]:
    """``clean_record_shared_mapping_range``: make dirty entries clean; gives the indices of their pages, in order.
    Writable entries are write-protected first by :func:`wp_shared_mapping_range`, or later writes go unseen."""
    return sorted(set((yield from _walk_page_mapping(host, file, first, pages, DIRTY))))


def _walk_page_mapping(host: Host, file: File, first: int, pages: int, bit: int) -> Steps[list[int]]:
    """Clear ``bit`` of the entries; gives the page indices of those that had it."""
    host.discipline.site("wp_clean")
    found: list[int] = []
    host.thread.context.append("wp_clean")
    yield from i_mmap_lock_read(file, host.thread)
    try:
        for vma in list(file.vmas):
            a = max(vma.first_page, vma.first_page + first - vma.pgoff)
            b = min(vma.last_page, vma.first_page + first + pages - vma.pgoff)
            if vma.flags & VM_SHARED and a < b:
                found += yield from _wp_clean_vma(vma, a, b, bit)
    finally:
        file.i_mmap.release(host.thread)
        host.thread.context.pop()
    return found


def _wp_clean_vma(vma: Vma, first: int, last: int, bit: int) -> Steps[list[int]]:
    mm, host, start, end = vma.mm, vma.mm.host, first << PAGE_SHIFT, last << PAGE_SHIFT
    notify = Invalidation(mm, "wp_clean", start, end, "wp_clean")
    found: list[int] = []
    yield from notify.start()
    for a, b in mm.page_table.spans(first, last):
        yield from mm.page_table_lock.acquire(host.thread)
        view = mm.page_table.view(a, b)
        at = np.flatnonzero((view & (PRESENT | bit)) == PRESENT | bit)
        frames = view[at] >> PFN_SHIFT
        view[at] &= ~bit
        host.pages.all_flags[frames] |= PG_DIRTY if bit == DIRTY else 0
        if bit == WRITE:
            mm.stamp_protected(frames, "wp_clean")
        mm.event("pte_protect", a << PAGE_SHIFT, b << PAGE_SHIFT, operation="wp_clean", present=len(at))
        found += (at + a - vma.first_page + vma.pgoff).tolist()
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns * len(at)
    if found:
        mm.flush_tlb(start, end, "wp_clean")
        yield host.costs.tlb_flush_ns
    yield from notify.end()
    return found
