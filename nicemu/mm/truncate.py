"""Truncation and hole punching (``truncate.c``, ``memory.c`` ``unmap_mapping_range``), and the end of an inode.

Pages leave in this order: every area that maps them is zapped (one notifier pair an area, CPU TLB flush, the mapping's
reference), the pages are taken out of the cache one by one under their locks, the storage is given back. Truncation
zaps private copies too (``even_cows``) and does so twice, for a private copy may be made meanwhile; a hole punch keeps
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.file import File, FileKind, i_mmap_lock_read
from nicemu.mm.gather import MmuGather
from nicemu.mm.notifier import Event
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY
from nicemu.mm.page_cache import (
    cached_pages,
    delete_from_page_cache,
    find_lock_page,
    read_mapping_page,
    set_page_dirty,
    unlock_page,
    zero_part,
)  # fmt: skip
from nicemu.mm.vma import VM_NONLINEAR, Vma
from nicemu.mm.zap import unmap_vmas
from nicemu.mm.zap_file import ZapDetails
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host

ALL = 1 << 52


def unmap_mapping_range(host: Host, file: File, details: ZapDetails, operation: str) -> Steps[None]:
    """``unmap_mapping_range``: zap pages [details.first, details.last) of the file wherever they are mapped.

    An area may be split meanwhile by somebody who holds only mmap_lock, so new ones are looked for again."""
    yield from i_mmap_lock_read(file, host.thread)
    done: set[Vma] = set()
    try:
        while parts := [part for part in _mapped_parts(file, details) if part[0] not in done]:
            for vma, start, end in parts:
                done.add(vma)
                yield from zap_page_range_single(vma, start, end, details, operation)
    finally:
        file.i_mmap.release(host.thread)


def zap_page_range_single(vma: Vma, start: int, end: int, details: ZapDetails, operation: str) -> Steps[None]:
    """``zap_page_range_single`` with ``zap_details``."""
    gather = MmuGather(vma.mm, operation, details)
    yield from unmap_vmas(vma.mm, [vma], start, end, gather, Event.CLEAR, False)
    yield from gather.finish(start, end)


def _mapped_parts(file: File, details: ZapDetails) -> Iterator[tuple[Vma, int, int]]:
    """(area, bytes [start, end)) of what could map the pages: of a nonlinear area all of it."""
    for vma in file.vmas:
        if vma.flags & VM_NONLINEAR:
            yield vma, vma.start, vma.end
            continue
        start = max(vma.start, vma.start + (details.first - vma.pgoff << PAGE_SHIFT))
        end = min(vma.end, vma.start + (details.last - vma.pgoff << PAGE_SHIFT))
        if start < end:
            yield vma, start, end


def truncate_inode_pages(host: Host, file: File, first: int, last: int, operation: str) -> Steps[None]:
    """``truncate_inode_pages_range``: whole pages with indices in [first, last), from cache, swap and storage."""
    while indices := cached_pages(file, first, last):
        for index in indices:
            frame = yield from find_lock_page(host, file, index)
            if not frame:
                continue
            yield from host.writebacks.wait(frame)
            while host.pages.mapcount[frame]:  # ``truncate_cleanup_page``; nobody can map it now
                yield from unmap_mapping_range(host, file, ZapDetails(index, index + 1, False), operation)
            host.pages.flags[frame] &= ~PG_DIRTY
            delete_from_page_cache(host, file, frame, operation)
            unlock_page(host, frame)
            yield host.costs.pte_ns
    for index in [index for index in file.slots if first <= index < last]:
        host.swap.put(file.slots.pop(index))
    for index in [index for index in file.blocks if first <= index < last]:
        del file.blocks[index]


def do_truncate(host: Host, file: File, size: int) -> Steps[None]:
    """``do_truncate``: set the size of a file; what is cut off reads as zeros if it ever grows again."""
    thread = host.thread
    yield from file.i_rwsem.acquire(thread)
    yield from file.invalidate_lock.acquire_write(thread)
    try:
        old, file.size = file.size, size
        if size < old:
            gone = ZapDetails(file.end, ALL, True)
            yield from unmap_mapping_range(host, file, gone, "truncate")
            yield from truncate_inode_pages(host, file, file.end, ALL, "truncate")
            yield from unmap_mapping_range(host, file, gone, "truncate")
        yield from zero_partial_page(host, file, min(size, old), PAGE_SIZE)
    finally:
        file.invalidate_lock.release(thread)
        file.i_rwsem.release(thread)


def zero_partial_page(host: Host, file: File, start: int, end: int) -> Steps[None]:
    """``truncate_inode_partial_folio``, ``block_truncate_page``: zero bytes [start, end) of the page of ``start``;
    ``end`` counts within the page."""
    index, offset = divmod(start, PAGE_SIZE)
    if offset == end or (not offset and end == PAGE_SIZE):
        return
    if index not in file.pages and index not in file.blocks and index not in file.slots:
        return
    frame = yield from read_mapping_page(host, file, index)
    yield from host.writebacks.wait(frame)
    zero_part(host, frame, offset, end)
    set_page_dirty(host, frame)
    unlock_page(host, frame)


def punch_hole(host: Host, file: File, start: int, end: int) -> Steps[None]:
    """``fallocate(PUNCH_HOLE | KEEP_SIZE)`` of bytes [start, end): they read as zeros, private copies stay."""
    thread = host.thread
    end = min(end, max(start, -(-file.size // PAGE_SIZE) * PAGE_SIZE))
    first, last = -(-start // PAGE_SIZE), end // PAGE_SIZE
    yield from file.i_rwsem.acquire(thread)
    yield from file.invalidate_lock.acquire_write(thread)
    try:
        if first < last:
            yield from unmap_mapping_range(host, file, ZapDetails(first, last, False), "punch_hole")
            yield from truncate_inode_pages(host, file, first, last, "punch_hole")
        if start // PAGE_SIZE == end // PAGE_SIZE:
            yield from zero_partial_page(host, file, start, end % PAGE_SIZE)
        else:
            yield from zero_partial_page(host, file, start, PAGE_SIZE)
            if end % PAGE_SIZE:
                yield from zero_partial_page(host, file, last * PAGE_SIZE, end % PAGE_SIZE)
    finally:
        file.invalidate_lock.release(thread)
        file.i_rwsem.release(thread)


def evict_inode(host: Host, file: File) -> Steps[None]:
    """``evict_inode``: a file that nobody can reach any more gives everything back."""
    if not file.unused or file.number not in host.files:
        return
    yield from truncate_inode_pages(host, file, 0, ALL, "evict_inode")
    host.files.pop(file.number, None)


def may_punch(file: File) -> bool:
    """Does the file system know FALLOC_FL_PUNCH_HOLE?"""
    return file.kind != FileKind.XIP
