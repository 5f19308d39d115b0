"""Writeback of dirty file pages (``page-writeback.c``, ``page_mkclean``), fsync and msync.

A dirty page is locked; every shared mapping is made clean and read-only with the notifiers of the discipline
(``page_mkclean``), so whatever a CPU or a device wrote is in the page, and the next write faults and makes it dirty
again; its bytes go to the device while it is marked as under writeback. DAX has nothing to write: its mappings are made
clean and the CPU caches flushed.

Left out: the flusher threads and dirty limits (balance_dirty_pages), write errors, periodic writeback.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import File, FileKind, i_mmap_lock_read
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY
from nicemu.mm.page_cache import cached_pages, find_lock_page, is_dirty, put_page, unlock_page, zero_part
from nicemu.mm.page_table import DIRTY, WRITE
from nicemu.mm.rmap import maps, ptep_clear_flush, rmap_walk
from nicemu.mm.vma import VM_SHARED, Vma
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

WRITEBACK_CLUSTER = 32
"""Pages of one request to the device (chosen)."""
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4
ALL = 1 << 52


def page_mkclean(host: Host, file: File, frame: int) -> Steps[int]:
    """``page_mkclean``: make every shared mapping of a locked page clean and read-only; gives how many were not."""
    cleaned = 0
    host.thread.context.append("mkclean")
    yield from i_mmap_lock_read(file, host.thread)
    try:
        for vma, page in rmap_walk(host, frame):
            if vma.flags & VM_SHARED:
                cleaned += yield from page_mkclean_one(host, vma, page, frame)
    finally:
        file.i_mmap.release(host.thread)
        host.thread.context.pop()
    return cleaned


def page_mkclean_one(host: Host, vma: Vma, page: int, frame: int) -> Steps[bool]:
    """``page_mkclean_one`` (``page_vma_mkclean_one`` in 6.12): one mapping; False if it was clean and read-only."""
    mm, address, thread = vma.mm, page << PAGE_SHIFT, host.thread
    notify = Invalidation(mm, "mkclean", address, address + PAGE_SIZE, "mkclean")
    yield from notify.start()
    yield from mm.page_table_lock.acquire(thread)
    entry = mm.page_table.get(page)
    changed = maps(mm.page_table, page, frame) and bool(entry & (DIRTY | WRITE))
    try:
        if changed:
            clean = entry & ~(DIRTY | WRITE)
            yield from notify.clearing()
            ptep_clear_flush(mm, page, "mkclean")
            yield from notify.cleared(clean)
            mm.page_table.set(page, clean)
            mm.event("pte_set", address, address + PAGE_SIZE, operation="mkclean")
    finally:
        mm.page_table_lock.release(thread)
    if changed:
        yield from notify.unlocked()
        mm.stamp_protected(np.array([frame]), "mkclean")
    yield from notify.end()
    return changed


def clear_page_dirty_for_io(host: Host, file: File, frame: int) -> Steps[bool]:
    """``clear_page_dirty_for_io`` of a locked page: was it dirty?"""
    if (yield from page_mkclean(host, file, frame)):
        host.pages.flags[frame] |= PG_DIRTY
    dirty = is_dirty(host, frame)
    host.pages.flags[frame] &= ~PG_DIRTY
    return dirty


def start_writeback(host: Host, file: File, frame: int) -> None:
    """``set_page_writeback`` and the submission: the bytes as they are now, zeros beyond the end of the file."""
    index = host.pages.index[frame]
    host.writebacks.set(frame)
    zero_part(host, frame, max(0, min(PAGE_SIZE, file.size - index * PAGE_SIZE)))
    file.blocks[index] = host.frames.bytes_of(frame).tobytes()
    host.counters["pgpgout"] += 1


def writeback_range(host: Host, file: File, first: int = 0, last: int = ALL) -> Steps[int]:
    """``filemap_write_and_wait_range``: write the dirty pages with indices in [first, last); gives how many."""
    if file.kind == FileKind.SHMEM:
        return 0
    dirty = [index for index in cached_pages(file, first, last) if is_dirty(host, file.pages[index])]
    written = 0
    for at in range(0, len(dirty), WRITEBACK_CLUSTER):
        written += yield from _write_cluster(host, file, dirty[at : at + WRITEBACK_CLUSTER])
    for index in cached_pages(file, first, last):
        yield from host.writebacks.wait(file.pages.get(index, 0))
    return written


def _write_cluster(host: Host, file: File, indices: list[int]) -> Steps[int]:
    """``write_cache_pages`` of a few pages, and one wait for the device."""
    frames = []
    for index in indices:
        frame = yield from find_lock_page(host, file, index)
        if not frame:
            continue
        yield from host.writebacks.wait(frame)
        if is_dirty(host, frame) and (yield from clear_page_dirty_for_io(host, file, frame)) and not file.direct:
            start_writeback(host, file, frame)
            frames.append(frame)
            unlock_page(host, frame, put=False)
        else:
            unlock_page(host, frame)
    yield host.costs.dax_flush_ns * len(indices) if file.direct else Sleep(host.costs.file_write_ns * bool(frames))
    for frame in frames:
        host.writebacks.clear(frame)
        put_page(host, frame)
    return len(indices) if file.direct else len(frames)


def fsync(host: Host, file: File) -> Steps[int]:
    """``fsync``; gives the number of pages written."""
    yield host.costs.syscall_ns
    return (yield from writeback_range(host, file))


def msync(mm: AddressSpace, start: int, end: int, flags: int) -> Steps[None]:
    """``msync``: MS_SYNC writes the pages of the shared file mappings in [start, end); MS_ASYNC does nothing.

    :raises OSError: EINVAL; ENOMEM for a hole (what is mapped is written all the same).
    """
    if start % PAGE_SIZE or flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or (flags & MS_ASYNC and flags & MS_SYNC):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    thread = mm.host.thread
    yield mm.host.costs.syscall_ns
    yield from mm.mmap_lock.acquire_read(thread)
    holes = bool(mm.vmas.holes(start, end))
    ranges = []
    for vma in mm.vmas.overlapping(start, end):
        if vma.file is not None and vma.flags & VM_SHARED and flags & MS_SYNC:
            first = vma.pgoff + (max(start, vma.start) - vma.start >> PAGE_SHIFT)
            ranges.append((vma.file, first, first + (min(end, vma.end) - max(start, vma.start) >> PAGE_SHIFT)))
    mm.mmap_lock.release(thread)
    for file, first, last in ranges:
        yield from writeback_range(mm.host, file, first, last)
    if holes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
