"""MADV_FREE: the program needs the pages no more, and reclaim may drop them without writing them to swap.

The entries lose their dirty and accessed bits between ``range_start`` and its end, so that a device's next write comes
by a fault and sets the dirty bit again. Reclaim drops a page that is still clean (the next access sees zeros); a page
written since is an ordinary page again (``try_to_unmap_one``, the part for pages that are not swap-backed).

Only pages that no other address space maps are marked. Arena and program pages cannot be dropped behind the program's
back and stay. Left out: huge pages as a whole (they are split), the inactive file list (marked pages keep their place).
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.change_protection import change_entries
from nicemu.mm.huge_split import split_huge_range
from nicemu.mm.page import MODEL, PG_DIRTY, PG_KSM, PG_LAZYFREE
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, PFN_SHIFT, PRESENT, SWAP
from nicemu.mm.rmap import Unmapping, rmap_walk, try_to_unmap_one
from nicemu.mm.vma import VM_HUGETLB, VM_LOCKED, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def madvise_free(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """The caller holds mmap_lock for read. :raises OSError: EINVAL for files, hugetlb and locked memory."""
    for vma in mm.vmas.overlapping(start, end):
        if vma.file is not None or vma.flags & (VM_HUGETLB | VM_LOCKED):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        a, b = max(vma.start, start), min(vma.end, end)
        yield from split_huge_range(vma.mm, a, b)
        yield from change_entries(mm, "madvise_free", a, b, partial(_mark, vma))


def _mark(vma: Vma, _first: int, view: np.ndarray) -> np.ndarray:
    """``madvise_free_pte_range``: swapped pages go, present ones are marked."""
    host, new = vma.mm.host, view.copy()
    swapped = (view & SWAP) != 0
    host.swap.put_entries(view[swapped])
    new[swapped] = 0
    pages = host.pages
    for i in np.flatnonzero((view & (PRESENT | HUGE)) == PRESENT).tolist():
        frame = int(view[i]) >> PFN_SHIFT
        shared = frame == host.zero_frame or pages.mapcount[frame] != 1 or pages.flags[frame] & PG_KSM
        if not shared and frame not in host.reclaim.isolated:
            new[i] &= ~(DIRTY | ACCESSED)
            if pages.kind[frame] == MODEL:
                pages.flags[frame] = pages.flags[frame] & ~PG_DIRTY | PG_LAZYFREE
    return new


def discard_lazyfree(host: Host, frame: int) -> Steps[None]:
    """Reclaim's part: unmap an isolated page that is clean everywhere; otherwise it is marked no more."""
    pages, discarded = host.pages, True
    for vma, page in rmap_walk(host, frame):
        unmapping = Unmapping(frame, "reclaim", "unmap_one", lambda entry: entry if _in_use(host, entry) else 0)
        discarded &= yield from try_to_unmap_one(host, vma, page, unmapping)
    if discarded and not pages.mapcount[frame]:
        host.counters["pglazyfreed"] += 1
    else:
        pages.flags[frame] &= ~PG_LAZYFREE


def _in_use(host: Host, entry: int) -> bool:
    """Written since, or somebody holds a reference beside the mappings and reclaim."""
    frame, pages = entry >> PFN_SHIFT, host.pages
    return bool(entry & DIRTY or pages.flags[frame] & PG_DIRTY) or pages.refcount[frame] != pages.mapcount[frame] + 1
