"""``do_wp_page``: a write to a page that is mapped read-only.

A page that nobody else maps is reused without a notifier. Otherwise (shared after fork, or the zero page) the page is
copied and the entry replaced, with the notifiers where the discipline has them.

Contents of arena and program pages stay in place: in the address space that owns the real memory the copy takes over
the real address, and the old frame is retired to the graveyard once every device was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.filemap import wp_page_shared
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_FILE, PG_KSM, PG_UNEVICTABLE
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, PFN_SHIFT, PRESENT, SOFT_DIRTY, UFFD_WP, WRITE, WRITTEN, pte
from nicemu.mm.rmap import page_add_new_anon_rmap, ptep_clear_flush
from nicemu.mm.vma import VM_SHARED, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def can_reuse(mm: AddressSpace, frame: int) -> bool:
    """``reuse_swap_page``: no other page table maps it, and it is neither KSM's nor a page cache's. Not while the page
    is locked: an entry of another page table may have become a swap or migration entry, and expects the bytes as they
    were."""
    host = mm.host
    return (
        frame != host.zero_frame and host.pages.mapcount[frame] == 1 and frame not in host.reclaim.isolated
        and not host.pages.flags[frame] & (PG_KSM | PG_FILE | PG_UNEVICTABLE)
    )  # fmt: skip


def do_wp_page(mm: AddressSpace, vma: Vma, page: int) -> Steps[None]:
    """Make the entry of ``page`` writable, unless it changed meanwhile; the caller looks again."""
    entry = mm.page_table.get(page)
    if not entry & PRESENT or entry & (WRITE | HUGE):
        return
    if vma.flags & VM_SHARED and vma.file is not None:
        yield from wp_page_shared(mm, vma, page, entry)
        return
    if can_reuse(mm, entry >> PFN_SHIFT):
        mm.host.swap.forget(entry >> PFN_SHIFT)
        mm.page_table.set(page, entry | WRITTEN | ACCESSED)
        yield mm.host.costs.pte_ns
        return
    context = mm.host.thread.context
    context.append("cow")
    try:
        yield from wp_page_copy(mm, vma, page)
    finally:
        context.pop()


def wp_page_copy(mm: AddressSpace, vma: Vma, page: int) -> Steps[None]:
    """Copy the page and replace the entry."""
    host, address = mm.host, page << PAGE_SHIFT
    new = int((yield from host.alloc_pages(vma.kind, 1, mm.pointers(vma, page), mm))[0])
    entry = mm.page_table.get(page)
    old = entry >> PFN_SHIFT
    if not entry & PRESENT or entry & (WRITE | HUGE):
        host.pages.put(new)
        return
    host.pages.get(old)
    host.pages.copy(old, new)
    yield host.costs.zero_page_ns if old == host.zero_frame else host.costs.copy_page_ns
    writable = vma.flags & VM_WRITE and not entry & UFFD_WP
    kept = entry & UFFD_WP | ACCESSED | PRESENT
    replacement = pte(new, kept | (WRITTEN if writable else DIRTY | SOFT_DIRTY))
    notify = Invalidation(mm, "cow", address, address + PAGE_SIZE, "cow", old)
    yield from notify.start()
    replaced = yield from _replace(vma, page, entry, replacement, notify)
    if replaced:
        host.counters["cow"] += 1
        if old != host.zero_frame:
            yield from notify.unlocked()
            if vma.kind != MODEL and mm.owns_memory:
                host.frames.retire(old)
            if host.pages.put(old):
                host.event("free", frame=old, operation="cow")
    else:
        host.pages.put(new)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    if host.pages.put(old):
        host.event("free", frame=old, operation="cow")


def _replace(vma: Vma, page: int, entry: int, replacement: int, notify: Invalidation) -> Steps[bool]:
    """Under the page-table lock: clear and flush, notify (3.x), set; False if the entry changed meanwhile."""
    mm, address = vma.mm, page << PAGE_SHIFT
    host, thread = mm.host, mm.host.thread
    old, new = entry >> PFN_SHIFT, replacement >> PFN_SHIFT
    yield from mm.page_table_lock.acquire(thread)
    try:
        if mm.page_table.get(page) != entry and not host.broken("cow_without_recheck"):
            return False
        yield from notify.clearing()
        ptep_clear_flush(mm, page, "cow")
        page_add_new_anon_rmap(host, vma, page, new)
        yield from notify.cleared(replacement)
        mm.page_table.set(page, replacement)
        mm.event("cow", address, address + PAGE_SIZE, old=old, new=new)
        if old != host.zero_frame:
            host.pages.mapcount[old] -= 1
        return True
    finally:
        mm.page_table_lock.release(thread)
