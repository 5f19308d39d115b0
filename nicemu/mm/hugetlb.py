"""hugetlb (``hugetlb.c``): pools of huge pages that are set aside at boot, and what mappings have reserved of them.

``nr_hugepages`` of 2 MiB and of 1 GiB are taken out of RAM; nothing else can use them. A private mapping reserves all
its pages at mmap (ENOMEM without), so its faults cannot fail; a forked child has no reservation, and gets SIGBUS when
the pool has no page that nobody reserved. A page is not reclaimed or migrated; when nothing refers to it any more it
goes back to its pool.

One mutex stands for the table of fault mutexes (``hugetlb_instantiation_mutex`` in 3.x) and one for every file's
``i_mmap_mutex``.

Left out: shared mappings and hugetlbfs files, surplus pages (overcommit), shared page tables (``hugetlb_unshare``),
subpools, cgroups, migration.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nicemu.memory.frames import OutOfFrames
from nicemu.mm.compound import HPAGE_PMD_NR, HPAGE_PUD_NR, frames_of, prep_compound_page
from nicemu.mm.huge_split import huge_pages
from nicemu.mm.locks import Mutex
from nicemu.mm.page import PAGE_SHIFT, PG_HUGETLB
from nicemu.mm.vma import VM_HUGE_1GB, VM_HUGETLB, Vma
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

MAP_HUGETLB, MAP_NORESERVE, MAP_HUGE_SHIFT = 0x40000, 0x4000, 26
SIZES = {0: HPAGE_PMD_NR, 21: HPAGE_PMD_NR, 30: HPAGE_PUD_NR}
"""4 KiB pages of a huge page, by the log2 that mmap flags carry above MAP_HUGE_SHIFT."""


@dataclass(eq=False, slots=True)
class Pool:
    """``struct hstate``: huge pages of ``pages`` 4 KiB pages each."""

    pages: int
    nr_hugepages: int = 0
    free: list[int] = field(default_factory=list)
    """Heads."""
    resv_hugepages: int = 0
    """Free pages that mappings have reserved."""
    used: set[int] = field(default_factory=set)
    """Heads of pages that were handed out before: their bytes must be cleared."""

    @property
    def unreserved(self) -> int:
        """Free pages that anybody may have."""
        return len(self.free) - self.resv_hugepages


@dataclass(eq=False, slots=True)
class Reservation:
    """``resv_map`` of one private mapping: indices (in huge pages, within its region) reserved and not used yet."""

    owner: bool = False
    """``HPAGE_RESV_OWNER``."""
    unmapped: bool = False
    """``HPAGE_RESV_UNMAPPED``: the parent took a page back, so further faults fail rather than show zeros."""
    unused: set[int] = field(default_factory=set)


class Hugetlb:
    """The pools of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.pools = {pages: Pool(pages) for pages in (HPAGE_PMD_NR, HPAGE_PUD_NR)}
        self.reservations: dict[tuple[int, int], Reservation] = {}
        """By address space and region."""
        self.fault_mutex = Mutex(host.scheduler, "hugetlb_fault_mutex")
        self.i_mmap_mutex = Mutex(host.scheduler, "i_mmap_mutex")

    def set_nr_hugepages(self, pages: int, count: int) -> int:
        """``nr_hugepages`` of huge pages of ``pages`` 4 KiB pages: take them out of RAM, or give free ones back; gives
        how many there are then."""
        pool, host = self.pools[pages], self.host
        if count:
            host.pages.free_huge = self.free_huge_pages
        while pool.nr_hugepages < count:
            try:
                head = host.blocks.allocate(pages.bit_length() - 1)
            except OutOfFrames:
                break
            host.blocks.park(head, pages)
            pool.free.append(head)
            pool.nr_hugepages += 1
        while pool.nr_hugepages > count and pool.unreserved > 0:
            head = pool.free.pop()
            pool.used.discard(head)
            host.frames.free_many(frames_of(head, pages))
            pool.nr_hugepages -= 1
        return pool.nr_hugepages

    @property
    def parked(self) -> int:
        """4 KiB frames in the pools that nobody uses."""
        return sum(len(pool.free) * pool.pages for pool in self.pools.values())

    def reservation(self, vma: Vma) -> Reservation:
        """That of an area's mapping; a forked child's is empty."""
        return self.reservations.setdefault((vma.mm.number, vma.region.number), Reservation())

    def free_huge_pages(self, frames: np.ndarray) -> None:
        """``free_huge_page``: frames that lost their last reference; a page goes back when all of it has."""
        for pool in self.pools.values():
            for head in np.unique(frames & -pool.pages).tolist():
                if head in pool.used and not self.host.pages.refcounts[head : head + pool.pages].any():
                    self.host.blocks.park(head, pool.pages)
                    pool.free.append(head)

    def alloc_huge_page(self, vma: Vma, page: int) -> int:
        """``alloc_huge_page``: head of a zeroed page for ``page`` of the area, one that it reserved or one that nobody
        did; 0 if there is none."""
        pages = huge_pages(vma)
        pool, unused, index = self.pools[pages], self.reservation(vma).unused, huge_index(vma, page)
        if index in unused:
            unused.remove(index)
            pool.resv_hugepages -= 1
        elif pool.unreserved <= 0:
            return 0
        head = pool.free.pop()
        self.host.blocks.unpark(head, pages)
        if head in pool.used:
            self.host.blocks.clear(head, pages)
        pool.used.add(head)
        prep_compound_page(self.host, head, pages, PG_HUGETLB)
        return head

    def unreserve(self, vma: Vma, start: int, end: int) -> None:
        """``hugetlb_vm_op_close``: bytes [start, end) of the area go; what they had reserved and not used is free."""
        unused = self.reservation(vma).unused
        first, last = huge_index(vma, start >> PAGE_SHIFT), huge_index(vma, (end >> PAGE_SHIFT) - 1)
        gone = {index for index in unused if first <= index <= last}
        unused -= gone
        self.pools[huge_pages(vma)].resv_hugepages -= len(gone)


def huge_index(vma: Vma, page: int) -> int:
    """Number of a huge page within its region."""
    return (vma.pgoff + page - vma.first_page - vma.region.first_page) // huge_pages(vma)


def hugetlb_mmap(mm: AddressSpace, length: int, prot: int, flags: int, address: int = 0) -> Steps[int]:
    """``mmap`` of private anonymous MAP_HUGETLB memory, rounded up to whole huge pages; at ``address`` unless 0.

    :raises OSError: EINVAL, no such size or ``address`` not aligned; ENOMEM, the pool has too few pages that are free
        and not reserved (not with MAP_NORESERVE).
    """
    hugetlb, pages = mm.host.hugetlb, SIZES.get(flags >> MAP_HUGE_SHIFT & 63, 0)
    size = pages << PAGE_SHIFT
    if not pages or address % size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    count = -(-length // size)
    pool, reserve = hugetlb.pools[pages], not flags & MAP_NORESERVE
    if reserve and pool.unreserved < count:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    pool.resv_hugepages += count if reserve else 0
    kind = VM_HUGETLB | (VM_HUGE_1GB if pages == HPAGE_PUD_NR else 0)
    try:
        at = yield from mm.mmap(count * size, prot | kind, FrameKind.MODEL, address, size)
    except OSError:
        pool.resv_hugepages -= count if reserve else 0
        raise
    vma = mm.vmas.find(at)
    assert vma is not None, "just mapped"
    unused = set(range(count)) if reserve else set()
    hugetlb.reservations[mm.number, vma.region.number] = Reservation(True, False, unused)
    return at
