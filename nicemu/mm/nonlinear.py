"""Nonlinear areas (``fremap.c``, ``rmap.c``; 3.x): a shared mapping whose pages are in any order.

``remap_file_pages`` replaces the entries of a range by places in the file (SPECIAL entries), from which pages are
faulted in. Only shmem has true nonlinear areas: a file with dirty accounting gets linear areas instead, since
page_mkclean could not find its pages (``mmap_region``). Nobody can compute where a nonlinear area maps a page, so
reclaim unmaps it cluster by cluster, whatever is there, from a cursor on (``try_to_unmap_cluster``).

Left out: 6.12, whose system call emulates all of it by mmap; populating without MAP_NONBLOCK (pages are faulted in by
use); young bits in a cluster.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import File, link_vma
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY
from nicemu.mm.page_table import DIRTY, PFN_SHIFT, PRESENT, SPECIAL, pte
from nicemu.mm.rmap import ptep_clear_flush
from nicemu.mm.vma import VM_LOCKED, VM_NONLINEAR, VM_SHARED, Region, Vma
from nicemu.mm.zap import do_munmap
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

CLUSTER_PAGES = 32
"""``CLUSTER_SIZE`` of rmap.c."""


def remap_file_pages(mm: AddressSpace, start: int, length: int, pgoff: int) -> Steps[None]:
    """``remap_file_pages``: let the pages of [start, start + length) be those of the file from page ``pgoff`` on.

    :raises OSError: EINVAL. :raises NotInThisKernel: 6.12.
    """
    mm.host.discipline.site("remap_file_pages")
    thread = mm.host.thread
    yield mm.host.costs.syscall_ns
    yield from mm.mmap_lock.acquire_write(thread)
    thread.context.append("remap_file_pages")
    try:
        vma = mm.vmas.find(start)
        if vma is None or vma.file is None or not vma.flags & VM_SHARED or not 0 < length <= vma.end - start:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if vma.file.direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if vma.file.dirty_accounting:
            yield from _emulate(vma, vma.file, start, start + length, pgoff)
        else:
            if not vma.flags & VM_NONLINEAR:
                yield from make_nonlinear(vma)
            yield from _populate(vma, start, start + length, pgoff)
    finally:
        thread.context.pop()
        mm.mmap_lock.release(thread)


def _emulate(vma: Vma, file: File, start: int, end: int, pgoff: int) -> Steps[None]:
    """``mmap_region`` over the range, which leaves linear areas only."""
    mm, host = vma.mm, vma.mm.host
    region = Region(vma.region.number, pgoff)
    new = Vma(mm, start, end, vma.flags, vma.kind, region, host.new_anon_vma(), pgoff, file)
    file.opens += 1  # keeps it while nothing maps it
    yield from do_munmap(mm, start, end, True)
    yield from link_vma(new)
    file.opens -= 1


def make_nonlinear(vma: Vma) -> Steps[None]:
    """``vma_nonlinear_insert``: the area is found by walks of all of it only, from now on."""
    assert vma.file is not None
    thread = vma.mm.host.thread
    yield from vma.file.i_mmap.acquire_write(thread)
    vma.flags |= VM_NONLINEAR
    vma.file.i_mmap.release(thread)


def _populate(vma: Vma, start: int, end: int, pgoff: int) -> Steps[None]:
    """``generic_file_remap_pages`` between the notifier calls: ``install_file_pte`` page by page."""
    mm, host, thread = vma.mm, vma.mm.host, vma.mm.host.thread
    notify = Invalidation(mm, "remap_file_pages", start, end, "remap_file_pages")
    yield from notify.start()
    mm.stamp_range(start, end, "remap_file_pages")
    for page in range(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from mm.page_table_lock.acquire(thread)
        freed = _zap_pte(vma, page, pte(pgoff + page - (start >> PAGE_SHIFT), SPECIAL), "remap_file_pages")
        mm.page_table_lock.release(thread)
        if freed:
            host.event("free", frame=freed, operation="remap_file_pages")
        yield host.costs.pte_ns
    yield from notify.end()


def _zap_pte(vma: Vma, page: int, entry: int, operation: str) -> int:
    """``zap_pte`` and the new entry, under the page-table lock; gives the frame if that freed it."""
    mm, pages, address = vma.mm, vma.mm.host.pages, page << PAGE_SHIFT
    old = mm.page_table.get(page)
    mm.page_table.set(page, 0)
    mm.event("pte_clear", address, address + PAGE_SIZE, operation=operation)
    freed = 0
    if old & PRESENT:
        mm.flush_tlb(address, address + PAGE_SIZE, operation)
        frame = old >> PFN_SHIFT
        if old & DIRTY:
            pages.flags[frame] |= PG_DIRTY
        pages.mapcount[frame] -= 1
        freed = frame if pages.put(frame) else 0
    mm.page_table.set(page, entry)
    return freed


def try_to_unmap_nonlinear(host: Host, file: File, frame: int) -> Steps[None]:
    """The nonlinear part of ``try_to_unmap_file``: clusters of the nonlinear areas, from their cursors on, until the
    page is mapped nowhere or each area was gone through once. The caller has the page lock and ``i_mmap``."""
    for vma in [vma for vma in file.vmas if vma.flags & VM_NONLINEAR]:
        size = vma.last_page - vma.first_page
        for _ in range(0, size, CLUSTER_PAGES):
            if host.pages.mapcount[frame] <= 0 or vma not in file.vmas:
                break
            if vma.cursor >= vma.last_page - vma.first_page:
                vma.cursor = 0
            at, vma.cursor = vma.cursor, vma.cursor + CLUSTER_PAGES
            yield from try_to_unmap_cluster(host, vma, at)


def try_to_unmap_cluster(host: Host, vma: Vma, at: int) -> Steps[None]:
    """``try_to_unmap_cluster``: unmap what is mapped in the cluster ``at`` pages into the area, unless it is mlocked.
    Pages give their reference back inside the page-table lock's section."""
    mm, thread = vma.mm, host.thread
    first = vma.first_page + at
    last = min(first + CLUSTER_PAGES, vma.last_page)
    start, end = first << PAGE_SHIFT, last << PAGE_SHIFT
    notify = Invalidation(mm, "unmap_cluster", start, end, "reclaim", mm.frames_in(start, end))
    yield from notify.start()
    locked = mm.mmap_lock.try_acquire_read(thread)
    try:
        if locked and vma.flags & VM_LOCKED:
            return
        yield from mm.page_table_lock.acquire(thread)
        try:
            for page in range(first, last):
                yield from _unmap_of_cluster(host, vma, page)
        finally:
            mm.page_table_lock.release(thread)
    finally:
        if locked:
            mm.mmap_lock.release(thread)
        yield from notify.end()


def _unmap_of_cluster(host: Host, vma: Vma, page: int) -> Steps[None]:
    """One entry of a cluster, under the page-table lock."""
    mm, address, pages = vma.mm, page << PAGE_SHIFT, host.pages
    entry = mm.page_table.get(page)
    frame = entry >> PFN_SHIFT
    if not entry & PRESENT or pages.pinned(frame):
        return
    index = pages.index[frame]
    notify = Invalidation(mm, "unmap_cluster", address, address + PAGE_SIZE, "reclaim", frame)
    linear = index == vma.pgoff + page - vma.first_page
    ptep_clear_flush(mm, page, "reclaim")
    yield from notify.cleared()
    mm.page_table.set(page, 0 if linear else pte(index, SPECIAL))
    if entry & DIRTY:
        pages.flags[frame] |= PG_DIRTY
    pages.mapcount[frame] -= 1
    if pages.put(frame):
        host.event("free", frame=frame, operation="reclaim")
