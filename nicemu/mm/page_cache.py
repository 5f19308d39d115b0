"""The page cache (``filemap.c``): pages of files by index, locked while they are read, written or taken out.

A page in the cache has one reference of the cache. It is entered locked and unlocked when its bytes are there, so who
has the lock and finds the page still in the cache may use it. Bytes come from the block device, from swap (shmem), or
are zero (a hole).

Left out: readahead, fault-around, errors of the device, PG_referenced and the active list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.file import File, FileKind
from nicemu.mm.page import PG_DIRTY, PG_FILE, PG_UNEVICTABLE, Fault
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def put_page(host: Host, frame: int, operation: str = "put_page") -> None:
    """``put_page``, with the event if that frees it."""
    if host.pages.put(frame):
        host.event("free", frame=frame, operation=operation)


def unlock_page(host: Host, frame: int, put: bool = True) -> None:
    """``unlock_page`` and, with ``put``, ``put_page``."""
    host.page_locks.clear(frame)
    if put:
        put_page(host, frame)


def is_dirty(host: Host, frame: int) -> bool:
    """``PageDirty``."""
    return bool(host.pages.flags[frame] & PG_DIRTY)


def set_page_dirty(host: Host, frame: int) -> None:
    """``set_page_dirty`` of a page in a page cache; of one that was taken out there is nothing left to write."""
    if host.pages.flags[frame] & PG_FILE:
        host.pages.flags[frame] |= PG_DIRTY


def add_to_page_cache(host: Host, file: File, index: int, frame: int) -> None:
    """``add_to_page_cache_lru``: a new page, which comes locked; the caller's reference stays its own."""
    pages = host.pages
    pages.get(frame)
    pages.flags[frame] |= PG_FILE | (PG_UNEVICTABLE if file.direct else 0)
    pages.anon_vma[frame], pages.index[frame] = file.number, index
    file.pages[index] = frame
    host.page_locks.set(frame)
    if not file.direct:
        host.reclaim.lru.add(frame)


def delete_from_page_cache(host: Host, file: File, frame: int, operation: str) -> None:
    """``delete_from_page_cache``: the page is locked and mapped nowhere; drop the cache's reference."""
    pages = host.pages
    assert pages.mapcount[frame] == 0, f"frame {frame}: taken out of the page cache while it is mapped"
    del file.pages[pages.index[frame]]
    pages.flags[frame] &= ~(PG_FILE | PG_DIRTY)
    host.reclaim.lru.drop(frame)
    put_page(host, frame, operation)


def find_lock_page(host: Host, file: File, index: int) -> Steps[int]:
    """``find_lock_page``: the frame with a reference, locked; 0 if it is not in the cache."""
    while frame := file.pages.get(index, 0):
        host.pages.get(frame)
        yield from host.page_locks.lock(frame)
        if file.pages.get(index) == frame:
            return frame
        unlock_page(host, frame)  # truncated or migrated meanwhile
    return 0


def read_mapping_page(host: Host, file: File, index: int, mm: AddressSpace | None = None) -> Steps[int]:
    """``find_or_create_page`` and ``read_folio``: the frame with a reference, locked, its bytes there.

    ``mm``: whose control group pays. :raises Fault: ENOMEM; EFAULT, it could not be read back from swap.
    """
    while True:
        frame = yield from find_lock_page(host, file, index)
        if frame:
            return frame
        frame = int((yield from host.alloc_pages(FrameKind.MODEL, 1, 0, mm))[0])
        if index not in file.pages:
            break
        host.pages.put(frame)
    add_to_page_cache(host, file, index, frame)
    try:
        yield from _read(host, file, index, frame)
    except Fault:
        delete_from_page_cache(host, file, frame, "read_error")
        unlock_page(host, frame)
        raise
    return frame


def _read(host: Host, file: File, index: int, frame: int) -> Steps[None]:
    """``read_folio``; ``shmem_swapin_folio``."""
    if file.kind == FileKind.SHMEM and index in file.slots:
        slot = file.slots[index]
        yield from host.swap.read([slot], [frame])
        del file.slots[index]
        set_page_dirty(host, frame)
        host.swap.put(slot)
    elif index in file.blocks:
        host.counters["pgmajfault"] += 1
        host.counters["pgpgin"] += 1
        yield Sleep(host.costs.file_read_ns)
        host.frames.bytes_of(frame)[:] = np.frombuffer(file.blocks[index], np.uint8)
    else:
        yield host.costs.zero_page_ns


def cached_pages(file: File, first: int, last: int) -> list[int]:
    """Indices within [first, last) that are in the cache now, in order."""
    if last - first < len(file.pages):
        return [index for index in range(first, last) if index in file.pages]
    return sorted(index for index in file.pages if first <= index < last)


def zero_part(host: Host, frame: int, start: int, end: int = PAGE_SIZE) -> None:
    """``zero_user_segment``: bytes [start, end) of a page."""
    host.frames.bytes_of(frame)[start:end] = 0


def drop_caches(host: Host) -> Steps[int]:
    """``/proc/sys/vm/drop_caches``: drop clean pages of regular files that nobody maps; gives how many."""
    dropped = 0
    for file in [file for file in host.files.values() if file.kind == FileKind.REGULAR]:
        for index in cached_pages(file, 0, 1 << 52):
            frame = yield from find_lock_page(host, file, index)
            if frame and remove_mapping(host, file, frame):
                dropped += 1
            if frame:
                unlock_page(host, frame)
    return dropped


def remove_mapping(host: Host, file: File, frame: int, operation: str = "drop_caches") -> bool:
    """``__remove_mapping``: take a clean page out of the cache; False if it is mapped, dirty, written, or held by
    somebody besides the cache and the caller, who has it locked."""
    pages = host.pages
    if pages.mapcount[frame] or pages.refcount[frame] != 2 or is_dirty(host, frame) or frame in host.writebacks:
        return False
    delete_from_page_cache(host, file, frame, operation)
    return True
