"""/proc/pid/clear_refs (soft-dirty) and /proc/pid/pagemap.

A write fault sets SOFT_DIRTY. Writing 4 to clear_refs (6.12) clears it everywhere and write-protects the entries,
between one ``range_start`` over 0..-1 and its end, the TLB flush last; pinned pages are left as they are, since a
device writes to them without a fault (``clear_refs_write``, ``clear_soft_dirty``).

Left out: VM_SOFTDIRTY of areas made since, the other values of clear_refs, hugetlb (as in Linux).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.change_protection import change_entries
from nicemu.mm.page import PAGE_SHIFT, PG_FILE, PG_HUGETLB
from nicemu.mm.page_table import HUGE, MAPS, MIGRATION, PFN_SHIFT, PRESENT, SOFT_DIRTY, SWAP, UFFD_WP, WRITE
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

EVERYTHING = (1 << 64) - 1
PM_SOFT_DIRTY, PM_EXCLUSIVE, PM_UFFD_WP, PM_FILE, PM_SWAP, PM_PRESENT = (1 << bit for bit in (55, 56, 57, 61, 62, 63))
"""Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst); 0..54 are the frame or the swap slot."""


def clear_refs(mm: AddressSpace) -> Steps[None]:
    """``echo 4 > /proc/pid/clear_refs``. :raises NotInThisKernel: 3.x."""
    yield mm.host.costs.syscall_ns
    mm.host.discipline.site("clear_refs")
    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_write(thread)
    try:
        yield from change_entries(mm, "clear_refs", 0, EVERYTHING, partial(_clear_soft_dirty, mm.host))
    finally:
        mm.mmap_lock.release(thread)


def _clear_soft_dirty(host: Host, _first: int, view: np.ndarray) -> np.ndarray:
    new = view.copy()
    mapped = np.flatnonzero((view & MAPS) != 0)
    ours = mapped[host.pages.all_pins[view[mapped] >> PFN_SHIFT] == 0]
    if view[0] & HUGE and (len(ours) < len(view) or host.pages.flags[int(view[0]) >> PFN_SHIFT] & PG_HUGETLB):
        return new
    new[ours] &= ~(WRITE | SOFT_DIRTY)
    new[(view & MIGRATION) != 0] &= ~(WRITE | SOFT_DIRTY)
    new[(view & SWAP) != 0] &= ~SOFT_DIRTY
    return new


def pagemap(mm: AddressSpace, address: int, pages: int) -> Steps[np.ndarray]:
    """``pread`` of /proc/pid/pagemap: a uint64 per page."""
    first, found = address >> PAGE_SHIFT, np.zeros(pages, np.uint64)
    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        for a, b in mm.page_table.spans(first, first + pages):
            yield from mm.page_table_lock.acquire(thread)
            found[a - first : b - first] = [_pagemap_entry(mm.host, int(entry)) for entry in mm.page_table.view(a, b)]
            mm.page_table_lock.release(thread)
            yield mm.host.costs.pte_ns * (b - a)
    finally:
        mm.mmap_lock.release(thread)
    return found


def _pagemap_entry(host: Host, entry: int) -> int:
    """``pte_to_pagemap_entry``."""
    if not entry:
        return 0
    frame, pages = entry >> PFN_SHIFT, host.pages
    found = frame | (PM_SOFT_DIRTY if entry & SOFT_DIRTY else 0) | (PM_UFFD_WP if entry & UFFD_WP else 0)
    if not entry & MAPS:
        return found | PM_SWAP
    if frame != host.zero_frame and pages.mapcount[frame] == 1:
        found |= PM_EXCLUSIVE
    if pages.flags[frame] & PG_FILE:
        found |= PM_FILE
    return found | (PM_PRESENT if entry & PRESENT else PM_SWAP)
