"""Reclaim of pages in a page cache (``shrink_folio_list``).

A page is locked and unmapped everywhere, which moves the dirty bits of its entries to it. A dirty one is written, shmem
to swap (``shmem_writepage``: the cache remembers the slot instead of the page), the others to their device; then it is
taken out of the cache, unless somebody else holds it.

Left out: pages under writeback are passed over rather than waited for; 6.12 leaves the writing of regular files to the
flusher threads, the model writes them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.file import File, FileKind
from nicemu.mm.nonlinear import try_to_unmap_nonlinear
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY
from nicemu.mm.page_cache import is_dirty, put_page, remove_mapping
from nicemu.mm.rmap import Unmapping, rmap_lock, rmap_walk, try_to_unmap_one
from nicemu.mm.writeback import start_writeback
from nicemu.timeline.host import Completion, Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host


def shrink_file_pages(host: Host, victims: list[int]) -> Steps[int]:
    """Reclaim these pages, taken off the list by the caller; those that cannot go come back to it. Gives the number
    freed."""
    host.thread.context.append("reclaim")
    try:
        written = Completion(host.scheduler, "writeback")
        slots: list[int] = []
        cost = 0
        for frame in victims:
            yield from try_to_unmap_file(host, frame)
            cost = max(cost, _pageout(host, frame, slots, written))
        unmapping = (host.costs.pte_ns + host.costs.tlb_flush_ns) * len(victims)
        yield Sleep(cost + unmapping) if cost else unmapping
    finally:
        host.thread.context.pop()
        for slot in slots:
            host.swap.writeback.pop(slot, None)
        written.complete()
    return sum(_free(host, frame) for frame in victims)


def try_to_unmap_file(host: Host, frame: int) -> Steps[None]:
    """``try_to_unmap`` of a locked page of a file. The entries become empty: the page cache knows where it is."""
    file = host.files[host.pages.anon_vma[frame]]
    unmapping = Unmapping(frame, "reclaim", "unmap_one", lambda _: 0)
    lock = yield from rmap_lock(host, frame)
    assert lock is not None
    try:
        for vma, page in rmap_walk(host, frame):
            if (yield from try_to_unmap_one(host, vma, page, unmapping)):
                vma.mm.event("page_out", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, frame=frame)
        yield from try_to_unmap_nonlinear(host, file, frame)
    finally:
        lock.release(host.thread)


def _pageout(host: Host, frame: int, slots: list[int], written: Completion) -> int:
    """``pageout``: begin to write a page that nobody maps or holds any more; gives how long that takes, 0: nothing to
    write."""
    pages = host.pages
    file = host.files[pages.anon_vma[frame]]
    if pages.mapcount[frame] or pages.refcount[frame] != 2 or not is_dirty(host, frame):
        return 0
    if file.kind == FileKind.SHMEM:
        return _shmem_writepage(host, file, frame, slots, written)
    pages.flags[frame] &= ~PG_DIRTY
    start_writeback(host, file, frame)
    return int(host.costs.file_write_ns)


def _shmem_writepage(host: Host, file: File, frame: int, slots: list[int], written: Completion) -> int:
    """``shmem_writepage``: to a swap slot, which the file holds from now on; nothing happens if swap is full."""
    slot = host.swap.get_slot()
    if not slot:
        return 0
    index = host.pages.index[frame]
    host.swap.writeback[slot] = written
    slots.append(slot)
    host.swap.write([slot], [frame])
    host.pages.flags[frame] &= ~PG_DIRTY
    removed = remove_mapping(host, file, frame, "reclaim")
    assert removed, f"frame {frame}: shmem page taken by somebody"
    file.slots[index] = slot
    return int(host.costs.swap_write_ns)


def _free(host: Host, frame: int) -> bool:
    """``__remove_mapping`` and the end of the isolation; True if the page was freed."""
    pages = host.pages
    if frame in host.writebacks:
        host.writebacks.clear(frame)
    file = host.files.get(pages.anon_vma[frame])
    cached = file is not None and file.pages.get(pages.index[frame]) == frame
    if cached and file is not None and remove_mapping(host, file, frame, "reclaim"):
        cached = False
    host.reclaim.isolated.pop(frame, None)
    if cached:
        host.reclaim.lru.add(frame)
    freed = pages.refcount[frame] == 1
    host.page_locks.clear(frame)
    put_page(host, frame, "reclaim")
    return freed
