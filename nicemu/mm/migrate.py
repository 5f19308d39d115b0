"""Page migration (``migrate.c``): the contents of a page move to another frame, and who maps it does not notice.

As ``unmap_and_move`` has it: the page is isolated; every mapping becomes a migration entry, with the notifiers where
the discipline has them for reclaim; if nobody else holds a reference the bytes are copied; the migration entries become
mappings of the new frame (of the old one if the move failed); the old frame is freed last. A fault on a migration entry
waits until all that is over.

Contents of arena and program pages stay in place: the new frame takes over the real address, the old one is retired to
the graveyard as soon as every device was told.

A page of a page cache moves with its entry there (``migrate_page_move_mapping``) unless it is being written back.
A huge page is split first; hugetlb pages stay.

Left out: NUMA nodes, retries (the caller tries again), batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.compound import compound_head
from nicemu.mm.file import File
from nicemu.mm.huge_split import split_huge_page
from nicemu.mm.nonlinear import try_to_unmap_nonlinear
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_DIRTY, PG_FILE
from nicemu.mm.page_table import ACCESSED, DIRTY, HUGE, MIGRATION, PFN_SHIFT, PRESENT, WRITE, pte
from nicemu.mm.rmap import Unmapping, rmap_lock, rmap_places, rmap_walk, try_to_unmap_one
from nicemu.mm.vma import VM_HUGETLB, Vma
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

KEPT = WRITE | ACCESSED | DIRTY
"""Bits of an entry that a migration entry carries across."""


def migration_entry(entry: int) -> int:
    """``make_migration_entry``: what is left where ``entry`` mapped a page."""
    return pte(entry >> PFN_SHIFT, MIGRATION | entry & KEPT)


def migration_entry_wait(mm: AddressSpace, entry: int) -> Steps[None]:
    """A fault on a migration entry; the caller looks again."""
    migration = mm.host.migrations.get(entry >> PFN_SHIFT)
    if migration is not None:
        mm.host.counters["migration_wait"] += 1
        yield migration


def migrate_page(mm: AddressSpace, address: int) -> Steps[bool]:
    """Move the page at ``address`` to another frame; False if there is none or it cannot go now (EAGAIN): it is pinned,
    somebody else holds a reference, reclaim has it.

    :raises Fault: ENOMEM, no frame to move it to.
    """
    host = mm.host
    entry, vma = mm.page_table.get(address >> PAGE_SHIFT), mm.vmas.find(address)
    old = entry >> PFN_SHIFT
    if entry & HUGE and vma is not None and not vma.flags & VM_HUGETLB:
        yield from split_huge_page(host, compound_head(old))
        entry, vma = mm.page_table.get(address >> PAGE_SHIFT), mm.vmas.find(address)
        old = entry >> PFN_SHIFT
    if not entry & PRESENT or entry & HUGE or vma is None or old == host.zero_frame or not host.reclaim.isolate(old):
        return False
    host.thread.context.append("migrate")
    try:
        canonical = vma.canonical(address >> PAGE_SHIFT)
        pointer = 0 if vma.kind == MODEL else host.frames.graveyard
        new = int((yield from host.alloc_pages(vma.kind, 1, pointer, canonical))[0])
        return (yield from unmap_and_move(host, old, new))
    finally:
        host.thread.context.pop()
        host.reclaim.putback(old, "migrate")


def unmap_and_move(host: Host, old: int, new: int) -> Steps[bool]:
    """The move of an isolated page; the reference to ``new`` is used up."""
    end = host.migrations[old] = Completion(host.scheduler, f"migration of frame {old}")
    try:
        yield from try_to_migrate(host, old)
        moved = yield from move_to_new_page(host, old, new)
        yield from remove_migration_ptes(host, old, new if moved else old)
    finally:
        del host.migrations[old]
        end.complete()
    host.counters["pgmigrate_success" if moved else "pgmigrate_fail"] += 1
    if new in host.page_locks:
        host.page_locks.clear(new)
    if host.pages.mapcount[new] > 0 or host.pages.flags[new] & PG_FILE:
        host.reclaim.lru.add(new)
    host.pages.put(new)
    return moved


def try_to_migrate(host: Host, old: int) -> Steps[None]:
    """``try_to_migrate``: a migration entry for every mapping."""
    unmapping = Unmapping(old, "migrate", "migrate", migration_entry)
    lock = yield from rmap_lock(host, old)
    try:
        for vma, page in rmap_walk(host, old):
            yield from try_to_unmap_one(host, vma, page, unmapping)
        if host.pages.flags[old] & PG_FILE:
            yield from try_to_unmap_nonlinear(host, host.files[host.pages.anon_vma[old]], old)
    finally:
        if lock is not None:
            lock.release(host.thread)


def move_to_new_page(host: Host, old: int, new: int) -> Steps[bool]:
    """``migrate_page_move_mapping`` and the copy; False if somebody maps or holds the page still."""
    pages = host.pages
    file = host.files.get(pages.anon_vma[old]) if pages.flags[old] & PG_FILE else None
    if pages.mapcount[old] > 0 or pages.refcount[old] != 1 + (file is not None) or old in host.writebacks:
        return False
    pages.anon_vma[new], pages.index[new] = pages.anon_vma[old], pages.index[old]
    if file is not None:
        _move_mapping(host, file, old, new)
    pages.copy(old, new)
    if pages.kind[old] != MODEL:
        host.frames.retire(old)
    host.event("migrate", old=old, new=new)
    yield host.costs.copy_page_ns
    return True


def _move_mapping(host: Host, file: File, old: int, new: int) -> None:
    """The page cache has ``new`` instead of ``old``, with its reference and its dirty bit."""
    pages = host.pages
    file.pages[pages.index[old]] = new
    pages.get(new)
    host.page_locks.set(new)
    pages.flags[new] |= pages.flags[old] & (PG_FILE | PG_DIRTY)
    pages.flags[old] &= ~(PG_FILE | PG_DIRTY)
    pages.put(old)


def remove_migration_ptes(host: Host, old: int, new: int) -> Steps[None]:
    """``remove_migration_ptes``: map ``new`` wherever a migration entry names ``old``.

    Areas come and go meanwhile (fork, mremap), so the search starts over after each entry until it finds none.
    """
    lock = yield from rmap_lock(host, new)
    try:
        while True:
            place = next(((vma, page) for vma, page in rmap_places(host, new) if _awaits(vma, page, old)), None)
            if place is None:
                return
            yield from remove_migration_pte(host, *place, old, new)
    finally:
        if lock is not None:
            lock.release(host.thread)


def _awaits(vma: Vma, page: int, old: int) -> bool:
    entry = vma.mm.page_table.get(page)
    return bool(entry & MIGRATION) and entry >> PFN_SHIFT == old


def remove_migration_pte(host: Host, vma: Vma, page: int, old: int, new: int) -> Steps[None]:
    """One entry, unless it went away."""
    mm, pages = vma.mm, host.pages
    yield from mm.page_table_lock.acquire(host.thread)
    if _awaits(vma, page, old):
        mm.page_table.set(page, pte(new, PRESENT | mm.page_table.get(page) & KEPT))
        pages.mapcount[new] += 1
        pages.refcount[new] += 1
        if vma.kind != MODEL and mm.owns_memory:
            pages.pointer[new] = page << PAGE_SHIFT
        mm.event("migrated", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, old=old, new=new)
    mm.page_table_lock.release(host.thread)
    yield host.costs.pte_ns
