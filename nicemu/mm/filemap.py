"""Faults on file mappings (``memory.c`` ``do_fault``, ``filemap_fault``).

A page is looked up, or read, and comes locked; it is entered under the page-table lock before the page lock is given
up, so truncation, writeback and reclaim, which take the page lock, find it mapped or not there. A read maps the page, a
write of a private mapping a copy, a write of a shared one the page after ``page_mkwrite`` has marked it dirty. Beyond
the end of the file the access is a SIGBUS; a device sees EFAULT.

A shared writable mapping of shmem has no dirty accounting, so a read enters it writable, as Linux does; the model calls
the page dirty from then on, for a device's writes leave no trace in the entry.

Left out: fault-around, huge pages, balance_dirty_pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.file import File, FileKind
from nicemu.mm.page import PAGE_SHIFT, Fault
from nicemu.mm.page_cache import find_lock_page, read_mapping_page, set_page_dirty, unlock_page
from nicemu.mm.page_table import ACCESSED, DIRTY, PFN_SHIFT, PRESENT, SPECIAL, WRITE, pte
from nicemu.mm.rmap import page_add_new_anon_rmap
from nicemu.mm.vma import VM_SHARED, VM_WRITE, Vma
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

SHARED_WRITABLE = VM_SHARED | VM_WRITE


def page_index(vma: Vma, page: int, entry: int = 0) -> int:
    """``linear_page_index``, or what a nonlinear entry says."""
    return entry >> PFN_SHIFT if entry & SPECIAL else vma.pgoff + page - vma.first_page


def do_fault(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """A page of a file that is not there; the caller looks again. :raises Fault: ENOMEM, SIGBUS."""
    if not write:
        yield from do_read_fault(mm, vma, page, entry)
    elif vma.flags & VM_SHARED:
        yield from do_shared_fault(mm, vma, page, entry)
    else:
        yield from do_cow_fault(mm, vma, page)


def do_read_fault(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """Map the page of the cache, read-only unless nobody wants to hear of the first write."""
    file = file_of(vma)
    frame = yield from filemap_fault(mm, file, page_index(vma, page, entry), page)
    flags = PRESENT | ACCESSED
    if vma.flags & SHARED_WRITABLE == SHARED_WRITABLE and not file.dirty_accounting:
        set_page_dirty(mm.host, frame)
        flags |= WRITE
    yield from finish_fault(mm, page, entry, pte(frame, flags))
    unlock_page(mm.host, frame)


def do_shared_fault(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """Map the page of the cache writable, and dirty."""
    host = mm.host
    frame = yield from filemap_fault(mm, file_of(vma), page_index(vma, page, entry), page)
    yield from _mkwrite(mm, file_of(vma), frame)
    yield from finish_fault(mm, page, entry, pte(frame, PRESENT | WRITE | DIRTY | ACCESSED))
    unlock_page(host, frame)


def do_cow_fault(mm: AddressSpace, vma: Vma, page: int) -> Steps[None]:
    """Map a copy."""
    host = mm.host
    new = int((yield from host.alloc_pages(FrameKind.MODEL, 1, 0, mm))[0])
    try:
        frame = yield from filemap_fault(mm, file_of(vma), page_index(vma, page), page)
    except Fault:
        host.pages.put(new)
        raise
    host.pages.copy(frame, new)
    yield host.costs.copy_page_ns
    yield from mm.page_table_lock.acquire(host.thread)
    if mm.page_table.get(page):
        host.pages.put(new)
    else:
        mm.page_table.set(page, pte(new, PRESENT | WRITE | DIRTY | ACCESSED))
        page_add_new_anon_rmap(host, vma, page, new)
        host.counters["cow"] += 1
    mm.page_table_lock.release(host.thread)
    unlock_page(host, frame)


def filemap_fault(mm: AddressSpace, file: File, index: int, page: int) -> Steps[int]:
    """``filemap_fault``: the frame, locked, with a reference. :raises Fault: ENOMEM, SIGBUS beyond the end."""
    host = mm.host
    frame = 0
    if index < file.end:
        frame = yield from find_lock_page(host, file, index)
    if index < file.end and not frame:
        yield from file.invalidate_lock.acquire_read(host.thread)
        try:
            if index < file.end:
                frame = yield from read_mapping_page(host, file, index, mm)
        finally:
            file.invalidate_lock.release(host.thread)
    if frame and index < file.end:
        return frame
    if frame:
        unlock_page(host, frame)
    raise Fault.bus_error(page << PAGE_SHIFT)


def finish_fault(mm: AddressSpace, page: int, expected: int, entry: int) -> Steps[bool]:
    """``finish_fault``: map a page of the cache (``page_add_file_rmap``) where the entry is still ``expected``."""
    host, frame = mm.host, entry >> PFN_SHIFT
    yield from mm.page_table_lock.acquire(host.thread)
    same = mm.page_table.get(page) == expected
    if same:
        mm.page_table.set(page, entry)
        host.pages.get(frame)
        host.pages.mapcount[frame] += 1
    mm.page_table_lock.release(host.thread)
    return same


def wp_page_shared(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """``wp_page_shared``: a write to a page of a shared mapping that is mapped read-only: it becomes dirty."""
    host, file, frame = mm.host, file_of(vma), entry >> PFN_SHIFT
    host.pages.get(frame)
    yield from host.page_locks.lock(frame)
    if file.pages.get(host.pages.index[frame]) == frame and host.pages.anon_vma[frame] == file.number:
        yield from _mkwrite(mm, file, frame)
        yield from mm.page_table_lock.acquire(host.thread)
        now = mm.page_table.get(page)
        if now & PRESENT and now >> PFN_SHIFT == frame:
            mm.page_table.set(page, now | WRITE | DIRTY | ACCESSED)
        mm.page_table_lock.release(host.thread)
    else:
        yield host.costs.pte_ns  # somebody is about to unmap it
    unlock_page(host, frame)


def _mkwrite(mm: AddressSpace, file: File, frame: int) -> Steps[None]:
    """``page_mkwrite`` of a locked page, ``wait_for_stable_page``, ``fault_dirty_shared_page``."""
    host = mm.host
    if file.stable_writes:
        yield from host.writebacks.wait(frame)
    set_page_dirty(host, frame)
    host.counters["page_mkwrite"] += file.dirty_accounting
    yield host.costs.pte_ns


def file_of(vma: Vma) -> File:
    """The file of a file mapping."""
    assert vma.file is not None
    return vma.file


def vma_needs_dirty_tracking(vma: Vma) -> bool:
    """``vma_needs_dirty_tracking`` (6.12)."""
    return vma.file is not None and vma.flags & SHARED_WRITABLE == SHARED_WRITABLE and vma.file.dirty_accounting


def vma_is_fsdax(vma: Vma) -> bool:
    """``vma_is_fsdax`` (6.12)."""
    return vma.file is not None and vma.file.kind == FileKind.DAX
