"""Compound pages: 512 (2 MiB) or 262144 (1 GiB) consecutive frames that are mapped and counted together.

A huge mapping is a leaf, or 512 of them, whose entries are consecutive frames marked HUGE. Reference and map counts are
kept in every frame of the page, not in its head alone, so a 4 KiB view of it needs no special case; Linux adds them up
in the head. PG_HEAD and PG_TAIL are set while some page table maps the page whole (``compound_mapcount``); afterwards
its frames are pages of their own. Linux keeps such a page together until ``deferred_split`` runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nicemu.memory.frames import OutOfFrames
from nicemu.mm.page import PAGE_SHIFT, PG_HEAD, PG_MLOCKED, PG_TAIL
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, PFN_SHIFT
from nicemu.mm.vma import VM_LOCKED, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

HPAGE_PMD_ORDER, HPAGE_PUD_ORDER = 9, 18
HPAGE_PMD_NR, HPAGE_PUD_NR = 1 << HPAGE_PMD_ORDER, 1 << HPAGE_PUD_ORDER
"""4 KiB pages of a huge page."""
HPAGE_PMD_SIZE = HPAGE_PMD_NR << PAGE_SHIFT
COMPOUND = PG_HEAD | PG_TAIL


def prep_compound_page(host: Host, head: int, count: int, flags: int = 0) -> None:
    """Mark the frames of a new huge page; ``flags``: more of PG_*."""
    host.pages.all_flags[head : head + count] = PG_TAIL | flags
    host.pages.flags[head] = PG_HEAD | flags


def compound_head(frame: int) -> int:
    """Head of the THP that the frame is in."""
    return frame & -HPAGE_PMD_NR


def is_compound(host: Host, frame: int) -> bool:
    """``PageCompound``."""
    return bool(host.pages.flags[frame] & COMPOUND)


def frames_of(head: int, count: int = HPAGE_PMD_NR) -> np.ndarray:
    """All frames of a huge page."""
    return np.arange(head, head + count)


def alloc_hugepage(host: Host, reclaim: bool) -> Steps[int]:
    """``alloc_hugepage_vma``: head of a zeroed 2 MiB page, 0 if there is none, after direct reclaim if ``reclaim``."""
    for attempt in range(2):
        try:
            head = host.blocks.allocate(HPAGE_PMD_ORDER)
        except OutOfFrames:
            if not reclaim or attempt:
                break
            yield from host.reclaim.direct(HPAGE_PMD_NR)
        else:
            prep_compound_page(host, head, HPAGE_PMD_NR)
            host.reclaim.wakeup_kswapd()
            return head
    return 0


def pmd_same(a: int, b: int) -> bool:
    """Do two entries map the same page with the same rights? Accessed and dirty bits may differ."""
    return (a ^ b) & ~(ACCESSED | DIRTY) == 0


def first_of(page: int) -> int:
    """First page of the 2 MiB that ``page`` lies in."""
    return page & -HPAGE_PMD_NR


def pmd_trans_huge(mm: AddressSpace, page: int) -> bool:
    """Is the page part of a huge mapping?"""
    return bool(mm.page_table.get(page) & HUGE)


def set_huge(mm: AddressSpace, page: int, entry: int, count: int = HPAGE_PMD_NR) -> None:
    """``set_pmd_at``, ``set_huge_pte_at``: map ``count`` frames from ``page`` on, the first by ``entry``."""
    assert entry & HUGE, "a huge mapping is marked as such"
    for at, view in leaves(mm, page, count):
        view[:] = entry + (np.arange(at, at + HPAGE_PMD_NR) << PFN_SHIFT)


def clear_huge(mm: AddressSpace, page: int, count: int, operation: str) -> None:
    """``pmdp_clear_flush``, ``huge_ptep_clear_flush``."""
    for _, view in leaves(mm, page, count):
        view[:] = 0
    start, end = page << PAGE_SHIFT, page + count << PAGE_SHIFT
    mm.event("pte_clear", start, end, operation=operation, present=count)
    mm.flush_tlb(start, end, operation)


def leaves(mm: AddressSpace, page: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """(pages from the first on, view) of each leaf of a huge mapping. Not to be kept over a yield."""
    for at in range(0, count, HPAGE_PMD_NR):
        yield at, mm.page_table.view(page + at, page + at + HPAGE_PMD_NR)


def page_add_huge_rmap(host: Host, vma: Vma, page: int, frames: np.ndarray) -> None:
    """``page_add_new_anon_rmap(compound)``, ``hugepage_add_new_anon_rmap``: a new huge page, mapped once."""
    pages = host.pages
    pages.mapcounts[frames] = 1
    pages.anon_vmas[frames] = vma.anon_vma.number
    pages.indices[frames] = frames - frames[0] + page + vma.pgoff - vma.first_page
    host.numa.place(frames, vma.mm.node)
    if vma.flags & VM_LOCKED:
        pages.all_flags[frames] |= PG_MLOCKED


def map_new_thp(host: Host, vma: Vma, page: int, head: int) -> None:
    """Reverse map, LRU and count of mappings of a new THP."""
    page_add_huge_rmap(host, vma, page, frames_of(head))
    host.compound_mapcount[head] = 1
    host.reclaim.lru.add(head)


def thp_unmapped_whole(host: Host, head: int) -> None:
    """One page table less maps the THP whole (its map counts are the caller's business). After the last one its frames
    are pages of their own; those that something still maps go to the LRU list."""
    host.compound_mapcount[head] -= 1
    if host.compound_mapcount[head]:
        return
    del host.compound_mapcount[head]
    frames = frames_of(head)
    host.pages.all_flags[frames] &= ~np.uint16(COMPOUND)
    host.reclaim.lru.drop(head)
    host.reclaim.lru.add_many(frames[host.pages.mapcounts[frames] > 0])


def copy_huge_page(host: Host, old: int, new: int, count: int = HPAGE_PMD_NR) -> None:
    """``copy_user_huge_page``."""
    slots = host.pages.slots
    for at in range(0, count, HPAGE_PMD_NR):
        host.frames.slots.copy(*(slots[head + at : head + at + HPAGE_PMD_NR] for head in (old, new)))
