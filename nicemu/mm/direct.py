"""Files whose pages are the storage: execute-in-place (``filemap_xip.c``, 3.x) and DAX (6.12).

A block is a frame that never leaves; a fault maps it. What differs is a hole. XIP maps one sparse page read-only, the
same for all holes of all files, and DAX the zero page. When a block is allocated by a write or by a fault of a shared
writable mapping, what maps the hole is unmapped everywhere: XIP page by page (``__xip_unmap``: clear and flush under
the page-table lock, remove the rmap, unlock, invalidate_page, release, all under i_mmap_mutex), DAX by
``unmap_mapping_range``.

Left out: huge DAX mappings, xip_sparse_mutex (the fault looks for the block again under the page-table lock).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import File, FileKind, i_mmap_lock_read
from nicemu.mm.filemap import SHARED_WRITABLE, file_of, page_index, wp_page_shared
from nicemu.mm.page import PAGE_SHIFT, PG_UNEVICTABLE, Fault
from nicemu.mm.page_cache import add_to_page_cache, put_page, set_page_dirty, unlock_page
from nicemu.mm.page_table import ACCESSED, DIRTY, PFN_SHIFT, PRESENT, WRITE, pte
from nicemu.mm.rmap import maps, page_add_new_anon_rmap, places_in, ptep_clear_flush
from nicemu.mm.truncate import unmap_mapping_range
from nicemu.mm.vma import VM_SHARED, Vma
from nicemu.mm.zap_file import ZapDetails
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def do_direct_fault(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """``xip_file_fault``, ``dax_iomap_fault``; the caller looks again. :raises Fault: ENOMEM, SIGBUS."""
    file, index = file_of(vma), page_index(vma, page)
    if index >= file.end:
        raise Fault.bus_error(page << PAGE_SHIFT)
    if write and not vma.flags & VM_SHARED:
        yield from _cow_fault(mm, vma, page, index)
    elif index in file.pages:
        yield from _map_block(mm, vma, page, index, write)
    elif write or (file.kind == FileKind.XIP and vma.flags & SHARED_WRITABLE == SHARED_WRITABLE):
        yield from get_block(mm.host, file, index)
    else:
        yield from _map_hole(mm, file, page, index)


def do_direct_wp(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """``dax_iomap_pfn_mkwrite``: a write to a shared page that is mapped read-only. A hole gets its block, which unmaps
    the page of zeros here too; the caller looks again. :raises Fault: ENOMEM, SIGBUS."""
    host, file, index = mm.host, file_of(vma), page_index(vma, page)
    if entry >> PFN_SHIFT not in (host.zero_frame, host.xip_sparse):
        yield from wp_page_shared(mm, vma, page, entry)
        return
    if index >= file.end:
        raise Fault.bus_error(page << PAGE_SHIFT)
    yield host.costs.pte_ns
    yield from get_block(host, file, index)


def get_block(host: Host, file: File, index: int) -> Steps[int]:
    """``get_xip_mem(create)``, ``dax_insert_entry``: the frame of a block; a new one takes the hole's place."""
    if index in file.pages:
        return file.pages[index]
    frame = int((yield from host.alloc_pages(FrameKind.MODEL, 1))[0])
    if index in file.pages:
        host.pages.put(frame)
        return file.pages[index]
    add_to_page_cache(host, file, index, frame)
    unlock_page(host, frame)
    if file.kind == FileKind.XIP:
        yield from xip_unmap(host, file, index)
    else:
        yield from unmap_mapping_range(host, file, ZapDetails(index, index + 1, False), "dax_insert_entry")
    return frame


def _map_block(mm: AddressSpace, vma: Vma, page: int, index: int, write: bool) -> Steps[None]:
    """``vm_insert_mixed``. XIP enters shared writable memory writable at once; DAX hears of the first write."""
    host, file = mm.host, file_of(vma)
    flags = PRESENT | ACCESSED
    if write or (vma.flags & SHARED_WRITABLE == SHARED_WRITABLE and not file.dirty_accounting):
        flags |= WRITE | (DIRTY if write else 0)
    yield host.costs.pte_ns
    yield from mm.page_table_lock.acquire(host.thread)
    frame = file.pages.get(index, 0)
    if frame and not mm.page_table.get(page) and index < file.end:
        mm.page_table.set(page, pte(frame, flags))
        host.pages.get(frame)
        host.pages.mapcount[frame] += 1
        if flags & WRITE:
            set_page_dirty(host, frame)
    mm.page_table_lock.release(host.thread)


def _map_hole(mm: AddressSpace, file: File, page: int, index: int) -> Steps[None]:
    """``xip_sparse_page``, ``dax_load_hole``: a page of zeros, read-only, unless a block came meanwhile."""
    host = mm.host
    frame = yield from (xip_sparse_page(host) if file.kind == FileKind.XIP else host.zero_page())
    yield host.costs.pte_ns
    yield from mm.page_table_lock.acquire(host.thread)
    if not mm.page_table.get(page) and index not in file.pages and index < file.end:
        mm.page_table.set(page, pte(frame, PRESENT | ACCESSED))
        if frame != host.zero_frame:
            host.pages.get(frame)
            host.pages.mapcount[frame] += 1
    mm.page_table_lock.release(host.thread)


def _cow_fault(mm: AddressSpace, vma: Vma, page: int, index: int) -> Steps[None]:
    """``dax_iomap_cow_copy``: a private copy of the block, or of zeros."""
    host, file = mm.host, file_of(vma)
    new = int((yield from host.alloc_pages(FrameKind.MODEL, 1, 0, mm))[0])
    yield host.costs.copy_page_ns
    yield from mm.page_table_lock.acquire(host.thread)
    if mm.page_table.get(page) or index >= file.end:
        host.pages.put(new)
    else:
        if index in file.pages:
            host.pages.copy(file.pages[index], new)
        mm.page_table.set(page, pte(new, PRESENT | WRITE | DIRTY | ACCESSED))
        page_add_new_anon_rmap(host, vma, page, new)
    mm.page_table_lock.release(host.thread)


def xip_sparse_page(host: Host) -> Steps[int]:
    """``__xip_sparse_page``, made when first needed; it keeps one reference of its own."""
    if not host.xip_sparse:
        frame = int((yield from host.alloc_pages(FrameKind.MODEL, 1))[0])
        _sparse_page_once(host, frame)
    return host.xip_sparse


def _sparse_page_once(host: Host, frame: int) -> None:
    """``frame`` is the sparse page, unless another thread made it meanwhile."""
    if host.xip_sparse:
        host.pages.put(frame)
    else:
        host.xip_sparse = frame
        host.pages.flags[frame] |= PG_UNEVICTABLE


def xip_unmap(host: Host, file: File, index: int) -> Steps[None]:
    """``__xip_unmap``: take the sparse page out of every mapping of page ``index`` of the file."""
    host.thread.context.append("xip_unmap")
    yield from i_mmap_lock_read(file, host.thread)
    try:
        for vma, page in list(places_in(file.vmas, index)):
            if maps(vma.mm.page_table, page, host.xip_sparse):
                yield from _xip_unmap_one(vma, page)
    finally:
        file.i_mmap.release(host.thread)
        host.thread.context.pop()


def _xip_unmap_one(vma: Vma, page: int) -> Steps[None]:
    mm, host, address = vma.mm, vma.mm.host, page << PAGE_SHIFT
    frame = host.xip_sparse
    notify = Invalidation(mm, "xip_unmap", address, address + PAGE_SIZE, "xip_unmap")
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    found = maps(mm.page_table, page, frame)
    try:
        if found:
            yield from notify.clearing()
            ptep_clear_flush(mm, page, "xip_unmap")
            yield from notify.cleared()
            host.pages.mapcount[frame] -= 1
    finally:
        mm.page_table_lock.release(host.thread)
    if found:
        yield from notify.unlocked()
        if not host.pages.mapcount[frame]:
            mm.stamp_page(frame, "xip_unmap", address, address + PAGE_SIZE)
        put_page(host, frame, "xip_unmap")
    yield from notify.end()
