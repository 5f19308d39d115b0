"""Pages that a device uses alone: device-private memory and device-exclusive access (``migrate_device.c``, 6.12).

``migrate_vma``: pages of a range move to the device's own memory. They are collected into migration entries between a
``range_start`` (MIGRATE, with the owner: a subscriber that is the owner may skip it) and its end; other mappings follow
as in any migration; then each entry names the device's frame. A CPU's touch, or another device's, brings the page back
(``migrate_to_ram``).

``make_device_exclusive``: the page stays where it is and only the device may use it, for atomics. A range (EXCLUSIVE,
with the owner) is notified around the change of the entry; a CPU's touch gives it back, notified the same way.

Left out: device memory of its own size (its frames are of the host's RAM), holes of the range (a device gets no zeroed
pages), huge pages, file pages (exclusive access to those), devices that are coherent with the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.migrate import begin_migration, migration_entry, new_page, remove_migration_ptes, unmap_and_move
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_DEVICE_PRIVATE, PG_FILE, PG_KSM, Fault
from nicemu.mm.page_table import HUGE, PFN_SHIFT, PRESENT, PROTNONE, SPECIAL
from nicemu.mm.rmap import ptep_clear_flush
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

DEVICE = PROTNONE | SPECIAL
"""Bits of an entry whose page only a device uses."""


def migrate_vma(mm: AddressSpace, start: int, end: int, owner: object) -> Steps[int]:
    """``migrate_vma_setup``, ``_pages`` and ``_finalize``: move [start, end) to the memory of the device of ``owner``;
    gives how many pages went. The others stay.

    :raises NotInThisKernel: 3.x.
    """
    host = mm.host
    host.discipline.site("device_private")
    thread = host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    thread.context.append("device_private")
    collected: list[int] = []
    moved = 0
    try:
        for vma in mm.vmas.overlapping(start, end):
            if vma.kind == MODEL and vma.file is None:
                collected += yield from migrate_vma_collect(vma, max(vma.start, start), min(vma.end, end), owner)
        while collected:
            moved += yield from _migrate_one(host, collected[0])
            del collected[0]
    finally:
        thread.context.pop()
        mm.mmap_lock.release(thread)
    return moved


def migrate_vma_collect(vma: Vma, start: int, end: int, owner: object) -> Steps[list[int]]:
    """``migrate_vma_collect``: isolate the pages and leave migration entries; gives their frames."""
    mm, host = vma.mm, vma.mm.host
    notify = Invalidation(mm, "device_private", start, end, "device_private")
    notify.owner = owner
    collected: list[int] = []
    yield from notify.start()
    mm.stamp_range(start, end, "device_private")
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        yield from mm.page_table_lock.acquire(host.thread)
        collected += _collect_pmd(mm, a, b)
        mm.page_table_lock.release(host.thread)
        yield host.costs.pte_ns * (b - a)
    yield from notify.end()
    return collected


def _collect_pmd(mm: AddressSpace, a: int, b: int) -> list[int]:
    """``migrate_vma_collect_pmd``: pages that only this address space maps and nobody holds."""
    host, view, found = mm.host, mm.page_table.view(a, b), []
    pages = host.pages
    for i in np.flatnonzero((view & (PRESENT | HUGE)) == PRESENT).tolist():
        frame = int(view[i]) >> PFN_SHIFT
        ours = frame != host.zero_frame and pages.mapcount[frame] == pages.refcount[frame] == 1
        if not ours or pages.flags[frame] & (PG_KSM | PG_FILE) or not host.reclaim.isolate(frame):
            continue
        begin_migration(host, frame)
        view[i] = migration_entry(int(view[i]))
        pages.mapcount[frame] -= 1
        pages.put(frame)
        found.append(frame)
    address = a << PAGE_SHIFT
    mm.event("pte_clear", address, b << PAGE_SHIFT, operation="device_private", present=len(found))
    if found:
        mm.flush_tlb(address, b << PAGE_SHIFT, "device_private")
    return found


def _migrate_one(host: Host, frame: int) -> Steps[bool]:
    """``migrate_vma_pages`` and ``migrate_vma_finalize`` of one page."""
    try:
        new = yield from new_page(host, frame)
        host.pages.flags[new] |= PG_DEVICE_PRIVATE
        moved = yield from unmap_and_move(host, frame, new)
    except Fault:  # the device has no memory: the page stays
        yield from remove_migration_ptes(host, frame, frame)
        host.migrations.pop(frame).complete()
        return False
    finally:
        host.reclaim.putback(frame, "device_private")
    host.counters["device_private"] += moved
    return moved


def migrate_to_ram(mm: AddressSpace, page: int, entry: int) -> Steps[None]:
    """``migrate_to_ram``: a fault on a page in a device's memory brings it back; the caller looks again."""
    host, frame = mm.host, entry >> PFN_SHIFT
    if not host.reclaim.isolate(frame):  # another thread is at it
        yield host.migrations[frame] if frame in host.migrations else Sleep(host.costs.pte_ns)
        return
    thread = host.thread
    thread.context.append("device_private")
    try:
        new = yield from new_page(host, frame)
        yield from unmap_and_move(host, frame, new)
        mm.event("migrate_to_ram", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, old=frame, new=new)
    finally:
        thread.context.pop()
        host.reclaim.putback(frame, "device_private")


def make_device_exclusive(mm: AddressSpace, address: int, owner: object) -> Steps[bool]:
    """``make_device_exclusive_range`` of one page: only the device of ``owner`` may use it from now on, until a CPU
    touches it. False if the page is not there or shared.

    :raises Fault: EFAULT, the program may not write there. :raises NotInThisKernel: 3.x.
    """
    host, page = mm.host, address >> PAGE_SHIFT
    host.discipline.site("device_exclusive")
    yield from mm.fault_in(page << PAGE_SHIFT, 1, True)
    thread = host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        vma, entry = mm.vmas.find(address), mm.page_table.get(page)
        frame = entry >> PFN_SHIFT
        if vma is None or vma.kind != MODEL or entry & (PRESENT | HUGE) != PRESENT or host.pages.mapcount[frame] != 1:
            return False
        return (yield from _change_exclusive(vma, page, entry, entry + DEVICE - PRESENT, owner))
    finally:
        mm.mmap_lock.release(thread)


def remove_device_exclusive_entry(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """``remove_device_exclusive_entry``: a CPU touches the page; the caller looks again."""
    yield from _change_exclusive(vma, page, entry, entry + PRESENT - DEVICE, None)
    mm.host.counters["device_exclusive_end"] += 1


def _change_exclusive(vma: Vma, page: int, entry: int, new: int, owner: object | None) -> Steps[bool]:
    """``page_make_device_exclusive_one`` and ``restore_exclusive_pte``; False if the entry has changed."""
    mm, address = vma.mm, page << PAGE_SHIFT
    host = mm.host
    notify = Invalidation(mm, "device_exclusive", address, address + PAGE_SIZE, "device_exclusive", entry >> PFN_SHIFT)
    notify.owner = owner
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    same = mm.page_table.get(page) == entry and not host.pages.pinned(entry >> PFN_SHIFT)
    if same:
        yield from notify.clearing()
        ptep_clear_flush(mm, page, "device_exclusive")
        yield from notify.cleared(new)
        mm.page_table.set(page, new)
        frame = entry >> PFN_SHIFT
        mm.event("pte_set", address, address + PAGE_SIZE, operation="device_exclusive", old=frame, new=frame)
    mm.page_table_lock.release(host.thread)
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    return same


def do_device_page(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """A fault on a page that a device uses alone."""
    if mm.host.pages.flags[entry >> PFN_SHIFT] & PG_DEVICE_PRIVATE:
        yield from migrate_to_ram(mm, page, entry)
    else:
        yield from remove_device_exclusive_entry(mm, vma, page, entry)


def device_frame(mm: AddressSpace, address: int) -> int:
    """The frame at ``address`` if a device uses it alone, 0 otherwise: what the device itself translates to."""
    entry = mm.page_table.get(address >> PAGE_SHIFT)
    return entry >> PFN_SHIFT if entry & DEVICE == DEVICE else 0
