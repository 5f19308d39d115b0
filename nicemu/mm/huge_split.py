"""A huge mapping becomes 512 small ones (``__split_huge_page_splitting``, ``__split_huge_pmd``), in place.

3.x splits the page, in every address space that maps it: each mapping is marked as splitting (that notifies), then each
becomes small. 6.12 splits one mapping, and the page only for reclaim and migration, which give up on a pinned one. Both
notify the 2 MiB whether or not a huge mapping is found there, except v3.6, whose macro did both (odp.md 1.2, 1.3).

Whoever changes part of a THP splits it first: :func:`isolate_vmas` at the ends of a range of areas
(``vma_adjust_trans_huge``), :func:`split_huge_pmd` elsewhere. A hugetlb mapping never splits: EINVAL.

Left out: waiting for a split in progress (``wait_split_huge_page``: nothing is lost, the frames stay as they are).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.mm.compound import (
    HPAGE_PMD_NR,
    HPAGE_PMD_SIZE,
    HPAGE_PUD_NR,
    compound_head,
    first_of,
    is_compound,
    pmd_trans_huge,
    thp_unmapped_whole,
)  # fmt: skip
from nicemu.mm.discipline import Invalidation
from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_table import HUGE, PFN_SHIFT
from nicemu.mm.rmap import maps, rmap_places
from nicemu.mm.vma import VM_HUGE_1GB, VM_HUGETLB, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def huge_pages(vma: Vma) -> int:
    """``pages_per_huge_page`` of a hugetlb area."""
    return HPAGE_PUD_NR if vma.flags & VM_HUGE_1GB else HPAGE_PMD_NR


def isolate_vmas(mm: AddressSpace, start: int, end: int) -> Steps[list[Vma]]:
    """``split_vma`` at both ends: the areas that lie wholly within [start, end) then. Huge mappings that straddle an
    end become small first. The caller holds mmap_lock for write.

    :raises OSError: EINVAL, an end is inside a hugetlb page (nothing is changed).
    """
    cut = [(vma, at) for at in (start, end) if (vma := mm.vmas.find(at)) is not None and vma.start < at]
    for vma, at in cut:
        if vma.flags & VM_HUGETLB and at >> PAGE_SHIFT & huge_pages(vma) - 1:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    for vma, at in cut:
        if at % HPAGE_PMD_SIZE and not vma.flags & VM_HUGETLB and pmd_trans_huge(mm, at >> PAGE_SHIFT):
            yield from split_huge_pmd(mm, at >> PAGE_SHIFT)
    return mm.vmas.isolate(start, end)


def split_huge_pmd(mm: AddressSpace, page: int) -> Steps[None]:
    """``split_huge_pmd``: the huge mapping that the page is in becomes small."""
    entry = mm.page_table.get(page)
    if not entry & HUGE:
        return
    if mm.host.discipline.huge_pages_612:
        yield from split_pmd(mm, first_of(page), "split_huge")
    else:
        yield from split_huge_page(mm.host, compound_head(entry >> PFN_SHIFT))


def split_huge_range(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """Every THP mapping in [start, end) becomes small; hugetlb mappings stay."""
    for a, _ in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        vma = mm.vmas.find(a << PAGE_SHIFT)
        if pmd_trans_huge(mm, a) and vma is not None and not vma.flags & VM_HUGETLB:
            yield from split_huge_pmd(mm, a)


def split_huge_page(host: Host, head: int) -> Steps[bool]:
    """``split_huge_page``: no page table maps it whole any more. False: 6.12, and it is pinned."""
    alone = host.discipline.huge_pages_612
    if alone and any(host.pages.pinned(frame) for frame in range(head, head + HPAGE_PMD_NR)):
        return False
    anon_vma = host.anon_vma_of.get(host.pages.anon_vma[head])
    if anon_vma is None:
        return not is_compound(host, head)
    yield from anon_vma.lock.acquire_write(host.thread)
    try:
        if not is_compound(host, head):
            return True
        for vma, page in list(rmap_places(host, head)):
            if alone:
                yield from split_pmd(vma.mm, page, "split_huge")
            else:
                yield from split_huge_page_splitting(vma.mm, page, head)
        yield from _map_small(host, head)
        host.counters["thp_split_page" if alone else "thp_split"] += 1
    finally:
        anon_vma.lock.release(host.thread)
    return True


def split_pmd(mm: AddressSpace, page: int, site: str) -> Steps[None]:
    """``__split_huge_pmd`` (6.12) of the 2 MiB from ``page`` on."""
    host, start, end = mm.host, page << PAGE_SHIFT, page + HPAGE_PMD_NR << PAGE_SHIFT
    notify = Invalidation(mm, site, start, end, site)
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    yield from notify.clearing()
    if pmd_trans_huge(mm, page):
        mm.stamp_range(start, end, site)
        host.counters["thp_split_pmd"] += 1
        make_small(mm, page, site)
    mm.page_table_lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()


def make_small(mm: AddressSpace, page: int, operation: str) -> None:
    """``pmdp_invalidate`` and ``pmd_populate``, the page-table lock held: the same frames, mapped one by one."""
    start, end = page << PAGE_SHIFT, page + HPAGE_PMD_NR << PAGE_SHIFT
    view = mm.page_table.view(page, page + HPAGE_PMD_NR)
    mm.event("pte_clear", start, end, operation=operation, present=HPAGE_PMD_NR)
    mm.flush_tlb(start, end, operation)
    view &= ~HUGE
    mm.event("pte_set", start, end, operation=operation)
    thp_unmapped_whole(mm.host, int(view[0]) >> PFN_SHIFT)


def split_huge_page_splitting(mm: AddressSpace, page: int, head: int) -> Steps[None]:
    """``__split_huge_page_splitting`` (3.x): mark one mapping; it keeps working."""
    host, start, end = mm.host, page << PAGE_SHIFT, page + HPAGE_PMD_NR << PAGE_SHIFT
    notify = Invalidation(mm, "split_huge", start, end, "split_huge")
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    if maps_huge(mm, page, head):
        yield from notify.clearing()
        mm.stamp_range(start, end, "split_huge")
        mm.event("pmd_splitting", start, end, operation="split_huge")
        mm.flush_tlb(start, end, "split_huge")
        yield from notify.cleared()
    mm.page_table_lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()


def maps_huge(mm: AddressSpace, page: int, head: int) -> bool:
    """``page_check_address_pmd``: does a huge mapping at ``page`` map the THP?"""
    return pmd_trans_huge(mm, page) and maps(mm.page_table, page, head)


def _map_small(host: Host, head: int) -> Steps[None]:
    """``__split_huge_page_map`` wherever it is mapped whole, children forked meanwhile among them."""
    while True:
        places = ((vma.mm, page) for vma, page in rmap_places(host, head) if maps_huge(vma.mm, page, head))
        mm, page = next(places, (None, 0))
        if mm is None:
            return
        yield from mm.page_table_lock.acquire(host.thread)
        if maps_huge(mm, page, head):
            make_small(mm, page, "split_huge")
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns * HPAGE_PMD_NR
