"""Reverse maps (``rmap.c``): from a page to the page-table entries that map it, through its anon_vma or its file.

``try_to_unmap_one`` (reclaim and migration) and ``page_referenced`` are the walks. Nobody moves page tables under a
walk: areas are looked up anew for every entry, and each entry is checked under the page-table lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory import frame_rows
from nicemu.mm.discipline import Invalidation
from nicemu.mm.file import File
from nicemu.mm.locks import RwSemaphore
from nicemu.mm.notifier import Event, NotifierRange, invalidate_range_end, invalidate_range_start
from nicemu.mm.page import PAGE_SHIFT, PG_DIRTY, PG_FILE, PG_IDLE, PG_KSM, PG_MLOCKED
from nicemu.mm.page_table import ACCESSED, DIRTY, ENTRIES, HUGE, MAPS, PFN_SHIFT, PageTable
from nicemu.mm.vma import VM_LOCKED, VM_NONLINEAR, AnonVma, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def page_add_new_anon_rmap(host: Host, vma: Vma, page: int, frame: int) -> None:
    """A new page, mapped once, at ``page`` of the area."""
    pages, anon_vma = host.pages, vma.anon_vma
    pages.mapcount[frame] = 1
    anon_vma.prepared = True
    pages.anon_vma[frame], pages.index[frame] = anon_vma.number, vma.pgoff + page - (vma.start >> PAGE_SHIFT)
    if host.numa.nodes > 1:
        host.numa.place(frame, vma.mm.node)
    if vma.flags & VM_LOCKED:
        pages.flags[frame] |= PG_MLOCKED
    host.reclaim.lru.add(frame)


def page_add_new_anon_rmaps(host: Host, vma: Vma, page_numbers: np.ndarray, frames: np.ndarray) -> None:
    """:func:`page_add_new_anon_rmap` for many pages."""
    frame_rows.map_new(host.frames.world, frames, page_numbers, vma.anon_vma.number, vma.pgoff - vma.first_page)
    host.numa.place(frames, vma.mm.node)
    if vma.flags & VM_LOCKED:
        host.pages.all_flags[frames] |= PG_MLOCKED
    host.reclaim.lru.add_many(frames)


def rmap_places(host: Host, frame: int) -> Iterator[tuple[Vma, int]]:
    """(area, page number) of every entry that could map the frame. Not to be kept over a yield."""
    number, index = host.pages.anon_vma[frame], host.pages.index[frame]
    if host.pages.flags[frame] & PG_KSM:
        for number, index in host.ksm.places(frame):
            yield from _places(host.anon_vma_of.get(number), index)
    elif host.pages.flags[frame] & PG_FILE:
        yield from _places(host.files.get(number), index)
    else:
        yield from _places(host.anon_vma_of.get(number), index)


def _places(mapping: AnonVma | File | None, index: int) -> Iterator[tuple[Vma, int]]:
    return places_in(mapping.vmas if mapping is not None else (), index)


def places_in(vmas: Iterable[Vma], index: int) -> Iterator[tuple[Vma, int]]:
    """(area, page number) of a page index in linear areas (``vma_interval_tree_foreach``)."""
    for vma in vmas:
        page = (vma.start >> PAGE_SHIFT) + index - vma.pgoff
        if vma.start <= page << PAGE_SHIFT < vma.end and not vma.flags & VM_NONLINEAR:
            yield vma, page


def rmap_lock(host: Host, frame: int) -> Steps[RwSemaphore | None]:
    """Take the lock that a walk of the frame's mappings needs: ``i_mmap`` or the anon_vma's, for reading (both are
    mutexes in 3.x). Gives it, to be released; None if nothing maps the frame."""
    number = host.pages.anon_vma[frame]
    mapping: AnonVma | File | None = host.anon_vma_of.get(number)
    if host.pages.flags[frame] & PG_FILE:
        mapping = host.files.get(number)
    if mapping is None:
        return None
    lock = mapping.i_mmap if isinstance(mapping, File) else mapping.lock
    yield from (lock.acquire_read if host.discipline.interval else lock.acquire_write)(host.thread)
    return lock


def rmap_walk(host: Host, frame: int) -> list[tuple[Vma, int]]:
    """``rmap_walk_anon``: (area, page number) of every entry that maps the frame."""
    return [(vma, page) for vma, page in rmap_places(host, frame) if maps(vma.mm.page_table, page, frame)]


def maps(page_table: PageTable, page: int, frame: int) -> bool:
    """``page_check_address``: does the entry of ``page`` map the frame?"""
    entry = page_table.get(page)
    return bool(entry & MAPS) and entry >> PFN_SHIFT == frame


def referenced_at_once(host: Host, frame: int) -> bool | None:
    """:func:`page_referenced` where nothing has to be waited for: one mapping, nobody to ask, the lock free; None: it
    has to be done in full."""
    if host.pages.mapcount[frame] != 1:
        return None
    place = next(rmap_places(host, frame), None)
    if place is None:
        return None
    mm, page = place[0].mm, place[1]
    if mm.notifiers.subscribers or mm.page_table_lock.owner is not None or not maps(mm.page_table, page, frame):
        return None
    young = test_and_clear_young(mm.page_table, page)
    if young:
        host.pages.flags[frame] &= ~PG_IDLE
    return young


def page_referenced(host: Host, frame: int) -> Steps[bool]:
    """``page_referenced``: test and clear the accessed bits, and ask secondary MMUs, under the page-table lock."""
    referenced = False
    for vma, page in rmap_walk(host, frame):
        mm = vma.mm
        yield from mm.page_table_lock.acquire(host.thread)
        if maps(mm.page_table, page, frame):
            if host.broken("young_as_invalidate"):
                range = NotifierRange(mm, page << PAGE_SHIFT, page + 1 << PAGE_SHIFT, Event.CLEAR, "young")
                yield from invalidate_range_start(range)
                yield from invalidate_range_end(range)
            young = yield from mm.notifiers.clear_flush_young(page << PAGE_SHIFT)
            referenced |= test_and_clear_young(mm.page_table, page) or young
        mm.page_table_lock.release(host.thread)
    if referenced:
        host.pages.flags[frame] &= ~PG_IDLE
    return referenced


def test_and_clear_young(page_table: PageTable, page: int) -> bool:
    """``ptep_clear_flush_young``; of all entries of a huge mapping (``pmdp_clear_flush_young``)."""
    entry = page_table.get(page)
    if not entry & HUGE:
        page_table.set(page, entry & ~ACCESSED)
        return bool(entry & ACCESSED)
    view = page_table.view(page & -ENTRIES, (page & -ENTRIES) + ENTRIES)
    young = bool((view & ACCESSED).any())
    view &= ~ACCESSED
    return young


@dataclass(slots=True)
class Unmapping:
    """Why a page is unmapped, and what is left where it was mapped."""

    frame: int
    operation: str
    """As events and reports call it: ``reclaim``, ``migrate``."""
    site: str
    """Its call site: ``unmap_one`` or ``migrate``."""
    replacement: Callable[[int], int]
    """The entry that replaces the one given: a swap entry, a migration entry; the same one, and it stays mapped."""


def ptep_clear_flush(mm: AddressSpace, page: int, operation: str) -> None:
    """``ptep_clear_flush``: the entry goes, and the CPU TLB's copy of it; under the page-table lock."""
    start, end = page << PAGE_SHIFT, page + 1 << PAGE_SHIFT
    mm.page_table.set(page, 0)
    mm.event("pte_clear", start, end, operation=operation)
    mm.flush_tlb(start, end, operation)


def try_to_unmap_one(host: Host, vma: Vma, page: int, unmapping: Unmapping) -> Steps[bool]:
    """Replace one mapping of the frame (``try_to_unmap_one``, ``try_to_migrate_one``). The caller holds a reference,
    so the page outlives the notifier wherever the discipline puts it."""
    mm, address, frame = vma.mm, page << PAGE_SHIFT, unmapping.frame
    operation = unmapping.operation
    notify = Invalidation(mm, unmapping.site, address, address + PAGE_SIZE, operation, frame)
    thread, lock, done = host.thread, mm.page_table_lock, False
    yield from notify.start()
    yield from lock.acquire(thread)
    try:
        entry = mm.page_table.get(page)
        if maps(mm.page_table, page, frame) and not entry & HUGE and not host.pages.pinned(frame):
            replacement = unmapping.replacement(entry)
            yield from notify.clearing()
            ptep_clear_flush(mm, page, operation)
            yield from notify.cleared(replacement)
            mm.page_table.set(page, replacement)
            done = replacement != entry
            if done:
                if entry & DIRTY and host.pages.flags[frame] & PG_FILE:
                    host.pages.flags[frame] |= PG_DIRTY
                host.pages.mapcount[frame] -= 1
                host.pages.refcount[frame] -= 1
    finally:
        lock.release(thread)
    if done and host.broken("free_before_invalidate_page"):
        host.pages.put(frame)
    if done:
        yield from notify.unlocked()
    yield from notify.end()
    return done
