"""Aging: was a page used? (``page_idle.c``, DAMON's ``damon_mkold`` and ``damon_young``, MGLRU's ``walk_mm``.)

All of them look at accessed bits and ask the subscribers of the notifier chain under the page-table lock, so the
callbacks must not sleep: ``clear_young`` (forget, no flush), ``test_young`` (look), ``clear_flush_young`` (reclaim's
``page_referenced``). Interval notifiers are never asked: what a device uses by on-demand paging does not look young.

Left out: DAMON's regions and schemes, MGLRU's generations (only the step that ages), the page-table walk's Bloom
filters; huge pages in MGLRU's step and MADV_COLD.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.page import PAGE_SHIFT, PG_IDLE
from nicemu.mm.page_table import ACCESSED, HUGE, PFN_SHIFT, PRESENT
from nicemu.mm.rmap import maps, rmap_walk, test_and_clear_young
from nicemu.mm.vma import VM_HUGETLB, VM_LOCKED
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def page_idle_clear_pte_refs(host: Host, frame: int) -> Steps[bool]:
    """``page_idle_clear_pte_refs``: clear the accessed bits of all mappings; was any set?"""
    referenced = False
    for vma, page in rmap_walk(host, frame):
        mm = vma.mm
        yield from mm.page_table_lock.acquire(host.thread)
        if maps(mm.page_table, page, frame):
            young = yield from mm.notifiers.clear_young(page << PAGE_SHIFT)
            referenced |= test_and_clear_young(mm.page_table, page) or young
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns
    return referenced


def page_idle_set(host: Host, frame: int) -> Steps[None]:
    """Write to /sys/kernel/mm/page_idle/bitmap: idle from now on, until somebody uses it."""
    yield from page_idle_clear_pte_refs(host, frame)
    host.pages.flags[frame] |= PG_IDLE


def page_idle_get(host: Host, frame: int) -> Steps[bool]:
    """Read of the bitmap: marked, and nobody used it since."""
    if host.pages.flags[frame] & PG_IDLE and (yield from page_idle_clear_pte_refs(host, frame)):
        host.pages.flags[frame] &= ~PG_IDLE
    return bool(host.pages.flags[frame] & PG_IDLE)


def damon_mkold(mm: AddressSpace, address: int) -> Steps[None]:
    """``damon_mkold``: DAMON begins to watch a page."""
    yield from mm.page_table_lock.acquire(mm.host.thread)
    if mm.page_table.get(address >> PAGE_SHIFT) & PRESENT:
        test_and_clear_young(mm.page_table, address >> PAGE_SHIFT)
        yield from mm.notifiers.clear_young(address)
    mm.page_table_lock.release(mm.host.thread)


def damon_young(mm: AddressSpace, address: int) -> Steps[bool]:
    """``damon_young``: was it used since?"""
    yield from mm.page_table_lock.acquire(mm.host.thread)
    entry = mm.page_table.get(address >> PAGE_SHIFT)
    young = bool(entry & PRESENT) and (bool(entry & ACCESSED) or (yield from mm.notifiers.test_young(address)))
    mm.page_table_lock.release(mm.host.thread)
    return young


def mglru_age(mm: AddressSpace, start: int, end: int) -> Steps[int]:
    """One aging step of MGLRU (``walk_pte_range``): pages used since the last go to the young end of the list; gives
    how many. It looks at the CPU's accessed bits alone, as in 6.12."""
    host, young = mm.host, 0
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from mm.page_table_lock.acquire(host.thread)
        view = mm.page_table.view(a, b)
        used = np.flatnonzero(((view & (PRESENT | ACCESSED)) == PRESENT | ACCESSED) & (view & HUGE == 0))
        frames = view[used] >> PFN_SHIFT
        view[used] &= ~ACCESSED
        for frame in frames[frames != host.zero_frame].tolist():
            if frame not in host.reclaim.isolated:
                host.reclaim.lru.add(frame)
        mm.page_table_lock.release(host.thread)
        young += len(used)
        yield host.costs.pte_ns * (b - a)
    return young


def madvise_cold(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """MADV_COLD: the next pages to be reclaimed. No subscriber is asked (``madvise_cold_or_pageout_pte_range``).

    :raises OSError: EINVAL, locked or hugetlb memory (``can_madv_lru_vma``).
    """
    for vma in mm.vmas.overlapping(start, end):
        if vma.flags & (VM_LOCKED | VM_HUGETLB):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        for a, b in mm.page_table.spans(max(vma.start, start) >> PAGE_SHIFT, min(vma.end, end) >> PAGE_SHIFT):
            yield from mm.page_table_lock.acquire(mm.host.thread)
            view = mm.page_table.view(a, b)
            present = np.flatnonzero((view & (PRESENT | HUGE)) == PRESENT)
            view[present] &= ~ACCESSED
            frames = view[present] >> PFN_SHIFT
            mm.host.reclaim.lru.age(frames[mm.host.pages.mapcounts[frames] == 1])
            mm.page_table_lock.release(mm.host.thread)
            yield mm.host.costs.pte_ns * len(present)
