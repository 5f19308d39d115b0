"""``handle_pte_fault``: what a fault does by the state of the page-table entry, for a page and in bulk.

The bulk form does for up to a leaf what the other does for a page, with one allocation and one pass over the entries.
In both, nothing is entered where the entry has changed since the caller looked. Huge mappings, hugetlb and files have
files of their own, to which this one hands their faults.

Left out: the zero page for arena and program memory (the program's own stores are not seen by the model, so a page
read first gets its own frame, mapped read-only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.cow import can_reuse, do_wp_page
from nicemu.mm.device_memory import do_device_page
from nicemu.mm.direct import do_direct_fault, do_direct_wp
from nicemu.mm.filemap import do_fault
from nicemu.mm.huge_memory import handle_huge_fault, thp_enabled
from nicemu.mm.hugetlb_fault import hugetlb_fault
from nicemu.mm.migrate import migration_entry_wait
from nicemu.mm.numa import do_numa_page
from nicemu.mm.page import EHWPOISON, MODEL, PAGE_SHIFT, PG_KSM, Fault
from nicemu.mm.page_table import (
    ACCESSED,
    DIRTY,
    HUGE,
    HWPOISON,
    MIGRATION,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    SPECIAL,
    SWAP,
    UFFD_WP,
    WRITE,
    WRITTEN,
    pte,
)  # fmt: skip
from nicemu.mm.rmap import page_add_new_anon_rmap, page_add_new_anon_rmaps
from nicemu.mm.swap import SWAP_KEPT
from nicemu.mm.userfaultfd import do_uffd_wp
from nicemu.mm.vma import VM_HUGETLB, VM_SHARED, VM_SPECIAL, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def handle_pte_fault(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """One page whose entry was ``entry``; the caller looks again."""
    if not entry and vma.file is None and (write or vma.kind != MODEL) and not _may_be_huge(vma, entry):
        return do_anonymous_page(mm, vma, page, write)
    return _handle_pte_fault(mm, vma, page, entry, write)


def _handle_pte_fault(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """By the state of the entry, whatever it is."""
    if _may_be_huge(vma, entry) and (yield from _huge(mm, vma, page, entry, write)):
        return
    if entry & PRESENT:
        _count(mm, "wp_fault", page, 1, True)
        if entry & UFFD_WP:
            yield from do_uffd_wp(mm, page)
        elif vma.file is not None and vma.file.direct and vma.flags & VM_SHARED:
            yield from do_direct_wp(mm, vma, page, entry)
        else:
            yield from do_wp_page(mm, vma, page)
    elif entry & HWPOISON:
        raise Fault(EHWPOISON, page << PAGE_SHIFT, "the memory of the page has failed")
    elif entry & PROTNONE:
        yield from (do_device_page if entry & SPECIAL else do_numa_page)(mm, vma, page, entry)
    elif entry & SWAP:
        yield from do_swap_page(mm, vma, page, entry, write)
    elif entry & MIGRATION:
        yield from migration_entry_wait(mm, entry)
    elif vma.file is not None:
        _count(mm, "fault", page, 1, write)
        yield from (do_direct_fault if vma.file.direct else do_fault)(mm, vma, page, entry, write)
    elif write or vma.kind != MODEL:
        yield from do_anonymous_page(mm, vma, page, write)
    else:
        zero = yield from mm.host.zero_page()
        _count(mm, "fault", page, 1, False)
        yield from _install_one(mm, page, 0, pte(zero, PRESENT | ACCESSED))


def _may_be_huge(vma: Vma, entry: int) -> bool:
    """Can it be a matter of huge pages?"""
    if entry & HUGE or vma.flags & VM_HUGETLB:
        return True
    return vma.mm.host.transparent_hugepage != "never" and thp_enabled(vma)


def _huge(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[bool]:
    """Is it done with huge pages?"""
    if vma.flags & VM_HUGETLB:
        yield from hugetlb_fault(mm, vma, page, write)
        return True
    return (yield from handle_huge_fault(mm, vma, page, entry, write))


def do_anonymous_page(mm: AddressSpace, vma: Vma, page: int, write: bool) -> Steps[None]:
    """A fresh zeroed page; of a real page, a frame that points at it."""
    host = mm.host
    pointer = mm.pointers(vma, page)
    frame = host.get_page_from_freelist(vma.kind, pointer, mm)
    if not frame:
        frame = int((yield from host.alloc_pages(vma.kind, 1, pointer, mm))[0])
    _count(mm, "fault", page, 1, write)
    yield host.costs.zero_page_ns
    flags = PRESENT | ACCESSED | (WRITTEN if write else 0)
    if (yield from _install_one(mm, page, 0, pte(frame, flags))):
        page_add_new_anon_rmap(host, vma, page, frame)
    else:
        host.pages.put(frame)


def do_swap_page(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """A major fault; a minor one if the swap cache has the page."""
    if vma.kind == MODEL:
        yield from _do_cached_swap_page(mm, vma, page, entry, write)
        return
    host = mm.host
    frame = int((yield from host.alloc_pages(vma.kind, 1, mm.pointers(vma, page), mm))[0])
    _count(mm, "swap_in", page, 1, write)
    slot = entry >> PFN_SHIFT
    yield from _read_swap(host, [slot], [frame])
    flags = PRESENT | ACCESSED | DIRTY | entry & SWAP_KEPT
    if write and vma.flags & VM_WRITE and not entry & UFFD_WP:
        flags |= WRITTEN
    if (yield from _install_one(mm, page, entry, pte(frame, flags))):
        page_add_new_anon_rmap(host, vma, page, frame)
        host.swap.put(slot)
    else:
        host.pages.put(frame)


def _read_swap(host: Host, slots: list[int], frames: list[int]) -> Steps[None]:
    """Read pages into new frames, which go if that fails."""
    try:
        yield from host.swap.read(slots, frames)
    except Fault:
        host.pages.put_many(np.array(frames, np.int64))
        raise


def _do_cached_swap_page(mm: AddressSpace, vma: Vma, page: int, entry: int, write: bool) -> Steps[None]:
    """:func:`do_swap_page` of model memory. Nobody else having the slot, a write takes the page out of the cache."""
    host, swap, slot = mm.host, mm.host.swap, entry >> PFN_SHIFT
    _count(mm, "swap_in", page, 1, write)
    frame = yield from swap.read_cached(slot, mm)
    if not frame:
        return
    if not _is_of(vma, page, frame):
        yield from _copy_swapped(mm, vma, page, entry, frame)
        return
    write = write and bool(vma.flags & VM_WRITE) and not entry & UFFD_WP
    yield from mm.page_table_lock.acquire(host.thread)
    if mm.page_table.get(page) == entry and swap.slot_of.get(frame) == slot and _is_of(vma, page, frame):
        flags = PRESENT | ACCESSED | entry & SWAP_KEPT
        alone = not host.pages.mapcount[frame] and swap.users(slot) == 1 and frame not in host.reclaim.isolated
        if alone and (write or swap.full):
            swap.forget(frame)
            flags |= WRITTEN if write else DIRTY
        if host.pages.mapcount[frame]:
            host.pages.mapcount[frame] += 1
        else:
            page_add_new_anon_rmap(host, vma, page, frame)
        mm.page_table.set(page, pte(frame, flags))
        swap.put(slot)
    else:
        host.pages.put(frame)
    mm.page_table_lock.release(host.thread)


def _is_of(vma: Vma, page: int, frame: int) -> bool:
    """Would the reverse map of a cached page find it there? Not if KSM had merged it (``ksm_might_need_to_copy``)."""
    pages = vma.mm.host.pages
    if pages.flags[frame] & PG_KSM:
        return False
    place = vma.anon_vma.number, vma.pgoff + page - vma.first_page
    return not pages.mapcount[frame] or (pages.anon_vma[frame], pages.index[frame]) == place


def _copy_swapped(mm: AddressSpace, vma: Vma, page: int, entry: int, frame: int) -> Steps[None]:
    """A copy of a cached page that is mapped elsewhere, mapped read-only; the reference to it is used up."""
    host = mm.host
    new = int((yield from host.alloc_pages(vma.kind, 1, 0, mm))[0])
    cached = host.swap.slot_of.get(frame) == entry >> PFN_SHIFT  # not written to meanwhile
    if cached:
        host.pages.copy(frame, new)
    host.pages.put(frame)
    yield host.costs.copy_page_ns
    if cached and (yield from _install_one(mm, page, entry, pte(new, PRESENT | ACCESSED | DIRTY | entry & SWAP_KEPT))):
        page_add_new_anon_rmap(host, vma, page, new)
        host.swap.put(entry >> PFN_SHIFT)
    else:
        host.pages.put(new)


def _install_one(mm: AddressSpace, page: int, expected: int, entry: int) -> Steps[bool]:
    """Enter a page where the entry is still ``expected``."""
    thread, lock = mm.host.thread, mm.page_table_lock
    free = lock.passes(thread)
    if not free:
        yield from lock.acquire(thread)
    same = mm.page_table.get(page) == expected or mm.host.broken("install_without_recheck")
    if same:
        mm.page_table.set(page, entry)
    if not free:
        lock.release(thread)
    return same


def _count(mm: AddressSpace, kind: str, page: int, pages: int, write: bool) -> None:
    """Count and log a fault."""
    mm.host.counters["pgfault"] += pages
    if mm.host.log is not None:
        mm.event(kind, page << PAGE_SHIFT, (page + pages) << PAGE_SHIFT, write=int(write))


def handle_pte_faults(mm: AddressSpace, vma: Vma, numbers: np.ndarray, entries: np.ndarray, write: bool) -> Steps[None]:
    """:func:`handle_pte_fault` for the pages ``numbers`` whose entries were ``entries``, in bulk."""
    entry = int(entries[0])
    if _may_be_huge(vma, entry) and (yield from _huge(mm, vma, int(numbers[0]), entry, write)):
        return
    if vma.flags & VM_SPECIAL or vma.file is not None:
        for page, entry in zip(numbers.tolist(), entries.tolist(), strict=True):
            yield from handle_pte_fault(mm, vma, page, entry, write)
        return
    empty = numbers[entries == 0]
    if len(empty):
        if write or vma.kind != MODEL:
            yield from do_anonymous_pages(mm, vma, empty, write)
        else:
            yield from _map_zero_page(mm, empty)
    if len(empty) == len(numbers):
        return
    swapped = (entries & SWAP) != 0
    if vma.kind == MODEL:
        for i in np.flatnonzero(swapped).tolist():
            slot = int(entries[i]) >> PFN_SHIFT
            if slot in mm.host.swap.cache or mm.host.swap.users(slot) > 1:
                swapped[i] = False
                yield from do_swap_page(mm, vma, int(numbers[i]), int(entries[i]), write)
    if swapped.any():
        yield from do_swap_pages(mm, vma, numbers[swapped], entries[swapped], write)
    for entry in entries[(entries & MIGRATION) != 0].tolist():
        yield from migration_entry_wait(mm, entry)
    marked = (entries & (HWPOISON | PROTNONE)) != 0
    for page, entry in zip(numbers[marked].tolist(), entries[marked].tolist(), strict=True):
        yield from handle_pte_fault(mm, vma, page, entry, write)
    protected = numbers[(entries & PRESENT) != 0]
    if len(protected):
        yield from _wp_pages(mm, vma, protected)


def _count_many(mm: AddressSpace, kind: str, numbers: np.ndarray, write: bool) -> int:
    """Count and log a bulk fault; gives the cost of the pages after the first."""
    _count(mm, kind, int(numbers[0]), len(numbers), write)
    return int(mm.host.costs.fault_page_ns) * (len(numbers) - 1)


def do_anonymous_pages(mm: AddressSpace, vma: Vma, numbers: np.ndarray, write: bool) -> Steps[None]:
    """:func:`do_anonymous_page` in bulk."""
    host = mm.host
    frames = yield from host.alloc_pages(vma.kind, len(numbers), mm.pointers(vma, numbers), mm)
    yield _count_many(mm, "fault", numbers, write) + host.costs.zero_page_ns * len(numbers)
    flags = PRESENT | ACCESSED | (WRITTEN if write else 0)
    yield from _install(mm, vma, numbers, np.zeros_like(numbers), frames, flags)


def do_swap_pages(mm: AddressSpace, vma: Vma, numbers: np.ndarray, entries: np.ndarray, write: bool) -> Steps[None]:
    """:func:`do_swap_page` in bulk: one read for neighbouring pages."""
    host = mm.host
    frames = yield from host.alloc_pages(vma.kind, len(numbers), mm.pointers(vma, numbers), mm)
    yield _count_many(mm, "swap_in", numbers, write)
    yield from _read_swap(host, (entries >> PFN_SHIFT).tolist(), frames.tolist())
    keep = vma.kind == MODEL and not write and not host.swap.full
    flags = PRESENT | ACCESSED | (0 if keep else DIRTY) | (WRITTEN if write and vma.flags & VM_WRITE else 0)
    installed = yield from _install(mm, vma, numbers, entries, frames, flags | entries & SWAP_KEPT)
    if keep:
        for slot, frame in zip((entries[installed] >> PFN_SHIFT).tolist(), frames[installed].tolist(), strict=True):
            if slot not in host.swap.cache:
                host.swap.add_to_cache(slot, frame)
    host.swap.put_entries(entries[installed])


def _install(mm: AddressSpace, vma: Vma, numbers: np.ndarray, expected: np.ndarray, frames: np.ndarray,
             flags: np.ndarray | int) -> Steps[np.ndarray]:  # fmt: skip
    """Enter new pages where the entry is still ``expected``; the rest is freed. Gives which were entered."""
    host, thread = mm.host, mm.host.thread
    yield from mm.page_table_lock.acquire(thread)
    first = int(numbers[0])
    view = mm.page_table.view(first, int(numbers[-1]) + 1)
    same: np.ndarray = (view[numbers - first] == expected) | host.broken("install_without_recheck")
    used = frames[same]
    view[numbers[same] - first] = (frames << PFN_SHIFT | flags)[same]
    page_add_new_anon_rmaps(host, vma, numbers[same], used)
    mm.page_table_lock.release(thread)
    if len(used) < len(frames):
        host.pages.put_many(frames[~same])
    return same


def _map_zero_page(mm: AddressSpace, numbers: np.ndarray) -> Steps[None]:
    """Read faults of model memory: the zero page, read-only."""
    zero = yield from mm.host.zero_page()
    yield _count_many(mm, "fault", numbers, False)
    yield from mm.page_table_lock.acquire(mm.host.thread)
    first = int(numbers[0])
    view = mm.page_table.view(first, int(numbers[-1]) + 1)
    empty = numbers[view[numbers - first] == 0] - first
    view[empty] = pte(zero, PRESENT | ACCESSED)
    mm.page_table_lock.release(mm.host.thread)


def _wp_pages(mm: AddressSpace, vma: Vma, numbers: np.ndarray) -> Steps[None]:
    """Write faults on pages mapped read-only: those nobody shares at once, the others one by one."""
    host = mm.host
    yield _count_many(mm, "wp_fault", numbers, True)
    shared = []
    for page in numbers.tolist():
        entry = mm.page_table.get(page)
        if entry & PRESENT and not entry & (WRITE | HUGE):
            if can_reuse(mm, entry >> PFN_SHIFT):
                host.swap.forget(entry >> PFN_SHIFT)
                mm.page_table.set(page, entry | WRITTEN | ACCESSED)
            else:
                shared.append(page)
    yield host.costs.pte_ns * len(numbers)
    for page in shared:
        yield from do_wp_page(mm, vma, page)
