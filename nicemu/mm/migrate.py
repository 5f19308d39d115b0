"""Page migration (``migrate.c``): the contents of a page move to another frame, and who maps it does not notice.

As ``unmap_and_move`` has it: the page is isolated; every mapping becomes a migration entry, with the notifiers where
the discipline has them for reclaim; if nobody else holds a reference the bytes are copied; the migration entries become
mappings of the new frame (of the old one if the move failed); the old frame is freed last. A fault on a migration entry
waits until all that is over.

Contents of arena and program pages stay in place: the new frame takes over the real address, the old one is retired to
the graveyard as soon as every device was told.

A page of a page cache moves with its entry there (``migrate_page_move_mapping``) unless it is being written back.
A huge page is split first; hugetlb pages stay.

Left out: batches that share one TLB flush (6.12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.compound import compound_head, is_compound
from nicemu.mm.file import File
from nicemu.mm.huge_split import split_huge_page
from nicemu.mm.nonlinear import try_to_unmap_nonlinear
from nicemu.mm.page import (
    MODEL,
    PAGE_SHIFT,
    PG_DEVICE_PRIVATE,
    PG_DIRTY,
    PG_FILE,
    PG_HUGETLB,
    PG_IDLE,
    PG_KSM,
    PG_LAZYFREE,
    PG_MLOCKED,
)  # fmt: skip
from nicemu.mm.page_table import (
    ACCESSED,
    DIRTY,
    MAPS,
    MIGRATION,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    WRITE,
    pte,
)  # fmt: skip
from nicemu.mm.rmap import Unmapping, rmap_lock, rmap_places, rmap_walk, try_to_unmap_one
from nicemu.mm.vma import Vma
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

KEPT = WRITE | ACCESSED | DIRTY | SOFT_DIRTY | UFFD_WP
"""Bits of an entry that a migration entry carries across."""
CARRIED = PG_DIRTY | PG_LAZYFREE | PG_MLOCKED | PG_IDLE
"""Page flags that go with the contents (``folio_migrate_flags``)."""
PASSES = 10
"""``NR_MAX_MIGRATE_PAGES_RETRY``."""


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
    entry = mm.page_table.get(address >> PAGE_SHIFT)
    if not entry & MAPS or entry >> PFN_SHIFT == mm.host.zero_frame:
        return False
    return (yield from migrate_frame(mm.host, entry >> PFN_SHIFT))


def migrate_frame(host: Host, old: int, node: int | None = None) -> Steps[bool]:
    """:func:`migrate_page` of a mapped frame, to a frame of ``node`` (None: the node it is on)."""
    if host.pages.flags[old] & PG_HUGETLB:
        return False
    if is_compound(host, old):
        yield from split_huge_page(host, compound_head(old))
    if is_compound(host, old) or not host.reclaim.isolate(old):
        return False
    thread = host.thread
    thread.context.append("migrate")
    try:
        new = yield from new_page(host, old, node)
        return (yield from unmap_and_move(host, old, new))
    finally:
        thread.context.pop()
        host.reclaim.putback(old, "migrate")


def migrate_pages(host: Host, frames: list[int], node: int | None = None) -> Steps[list[int]]:
    """``migrate_pages``: move the frames, those that cannot go now again in up to ten passes; gives what is left."""
    for _ in range(PASSES):
        left = []
        for frame in frames:
            if host.pages.mapcount[frame] > 0 and not (yield from migrate_frame(host, frame, node)):
                left.append(frame)
        if not left:
            return []
        frames = left
        yield host.costs.tlb_flush_ns
    return frames


def new_page(host: Host, old: int, node: int | None = None) -> Steps[int]:
    """``alloc_migration_target``: a frame for the contents of ``old``. :raises Fault: ENOMEM."""
    kind = FrameKind(host.pages.kind[old])
    pointer = 0 if kind == MODEL else host.frames.graveyard
    new = int((yield from host.alloc_pages(kind, 1, pointer))[0])
    for group in host.pages.groups:
        group.migrate(old, new)
    host.numa.place(new, host.numa.node(old) if node is None else node)
    return new


def begin_migration(host: Host, old: int) -> None:
    """From now on a fault on a migration entry of ``old`` waits for :func:`unmap_and_move`."""
    if old not in host.migrations:
        host.migrations[old] = Completion(host.scheduler, f"migration of frame {old}")


def unmap_and_move(host: Host, old: int, new: int) -> Steps[bool]:
    """The move of an isolated page; the reference to ``new`` is used up."""
    begin_migration(host, old)
    try:
        if host.broken("copy_before_unmap"):
            host.pages.copy(old, new)
        yield from try_to_migrate(host, old)
        moved = yield from move_to_new_page(host, old, new)
        yield from remove_migration_ptes(host, old, new if moved else old)
    finally:
        host.migrations.pop(old).complete()
    host.counters["pgmigrate_success" if moved else "pgmigrate_fail"] += 1
    if new in host.page_locks:
        host.page_locks.clear(new)
    used = host.pages.mapcount[new] > 0 or host.pages.flags[new] & PG_FILE
    if used and not host.pages.flags[new] & PG_DEVICE_PRIVATE:
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
    host.swap.forget(old)
    pages.anon_vma[new], pages.index[new] = pages.anon_vma[old], pages.index[old]
    pages.flags[new] |= pages.flags[old] & CARRIED
    if file is not None:
        _move_mapping(host, file, old, new)
    if pages.flags[old] & PG_KSM:
        host.ksm.migrated(old, new)
    if not host.broken("copy_before_unmap"):
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
        how = PROTNONE | SPECIAL if pages.flags[new] & PG_DEVICE_PRIVATE else PRESENT
        mm.page_table.set(page, pte(new, how | mm.page_table.get(page) & KEPT))
        pages.mapcount[new] += 1
        pages.refcount[new] += 1
        if vma.kind != MODEL and mm.owns_memory:
            pages.pointer[new] = page << PAGE_SHIFT
        mm.event("migrated", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, old=old, new=new)
    mm.page_table_lock.release(host.thread)
    yield host.costs.pte_ns
