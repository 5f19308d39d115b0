"""Page faults (``handle_mm_fault``, ``hmm_range_fault``, ``pin_user_pages``) for anonymous and program memory.

Work goes leaf by leaf: look at the entries under the page-table lock; if all are there, take the answer; otherwise
resolve what is missing with the lock dropped (pages are allocated, swapped in or copied, which may sleep) and look
again. The answer of a batch is as old as its leaf: users check their notifier sequence, as for ``hmm_range_fault``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.memory import safe_copy
from nicemu.mm.handle_pte_fault import handle_pte_fault, handle_pte_faults
from nicemu.mm.oom_kill import check_alive
from nicemu.mm.page import MODEL, PAGE_SHIFT, PROGRAM, Fault
from nicemu.mm.page_table import ACCESSED, DIRTY, ENTRIES, PFN_SHIFT, PRESENT, WRITE
from nicemu.mm.userfaultfd import FaultRetry, fault_retry
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


def fault_in(mm: AddressSpace, address: int, pages: int, write: bool, pin: bool = False) -> Steps[np.ndarray]:
    """Make ``pages`` pages present (and writable): ``frame << 1 | writable`` of each, as int32.

    :raises Fault: EFAULT with the address of the first page that cannot be had; ENOMEM.
    """
    host, thread = mm.host, mm.host.thread
    first, found = address >> PAGE_SHIFT, np.empty(pages, np.int32)
    last, page = first + pages, first
    thread.context.append("fault")
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        check_alive(mm)
        yield host.costs.fault_ns
        while page < last:
            vma = _find_vma(mm, page, write)
            stop = page + 1 if page + 1 == last else min(last, vma.last_page, (page | ENTRIES - 1) + 1,
                                                         page + host.fault_batch)  # fmt: skip
            try:
                if stop - page == 1:
                    found[page - first] = yield from _fault_page(mm, vma, page, write, pin)
                else:
                    found[page - first : stop - first] = yield from _fault_leaf(mm, vma, page, stop, write, pin)
            except FaultRetry as retry:
                yield from fault_retry(mm, retry)
                continue
            page = stop
    except BaseException:
        if pin and page > first:
            unpin(mm, found[: page - first] >> 1)
        raise
    finally:
        if mm.mmap_lock in thread.held:  # not while it waits for userfaultfd
            mm.mmap_lock.release(thread)
        thread.context.pop()
    return found


def fault_in_page(mm: AddressSpace, page: int, write: bool) -> Steps[int]:
    """:func:`fault_in` of one page, by its number."""
    host = mm.host
    thread = host.thread
    thread.context.append("fault")
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        check_alive(mm)
        yield host.costs.fault_ns
        while True:
            try:
                return (yield from _fault_page(mm, _find_vma(mm, page, write), page, write, False))
            except FaultRetry as retry:
                yield from fault_retry(mm, retry)
    finally:
        if mm.mmap_lock in thread.held:  # not while it waits for userfaultfd
            mm.mmap_lock.release(thread)
        thread.context.pop()


def _find_vma(mm: AddressSpace, page: int, write: bool) -> Vma:
    """The area of a page that may be accessed so. :raises Fault: EFAULT."""
    vma = mm.vmas.find(page << PAGE_SHIFT)
    if vma is None or not vma.allows(write):
        raise Fault.bad_address(page << PAGE_SHIFT, "no access" if vma else "no mapping")
    return vma


def unpin(mm: AddressSpace, frames: np.ndarray) -> None:
    """``unpin_user_pages``; the zero page was never counted."""
    mm.host.pages.unpin(frames[frames != mm.host.zero_frame])


def _fault_page(mm: AddressSpace, vma: Vma, page: int, write: bool, pin: bool) -> Steps[int]:
    """One page of an area."""
    host, table, lock = mm.host, mm.page_table, mm.page_table_lock
    thread = host.thread
    need = PRESENT | WRITE if write else PRESENT
    while True:
        if vma.kind == PROGRAM:
            _probe(page, page + 1, write)
        free = lock.passes(thread)
        if not free:
            yield from lock.acquire(thread)
        at = table.place(page)
        entry = table.words[at]
        if entry & need == need:
            table.words[at] = entry | (ACCESSED | DIRTY if write else ACCESSED)
            frame = entry >> PFN_SHIFT
            if pin and frame != host.zero_frame:
                host.pages.pin_page(frame)
            if not free:
                lock.release(thread)
            return frame << 1 | (entry & WRITE) >> 1
        if not free:
            lock.release(thread)
        yield from handle_pte_fault(mm, vma, page, entry, write)


def _fault_leaf(mm: AddressSpace, vma: Vma, first: int, last: int, write: bool, pin: bool) -> Steps[np.ndarray]:
    """Pages [first, last) of one leaf and one area."""
    thread, lock = mm.host.thread, mm.page_table_lock
    need = PRESENT | WRITE if write else PRESENT
    mark = ACCESSED | DIRTY if write else ACCESSED
    while True:
        if vma.kind == PROGRAM:
            _probe(first, last, write)
        yield from lock.acquire(thread)
        entries = mm.page_table.view(first, last)
        resolved = (entries & need) == need
        if resolved.all():
            entries |= mark
            frames = entries >> PFN_SHIFT
            if pin:
                mm.host.pages.pin(frames[frames != mm.host.zero_frame])
            lock.release(thread)
            return frames << 1 | (entries & WRITE) >> 1
        missing = np.flatnonzero(~resolved)
        wanted = entries[missing]
        lock.release(thread)
        yield from handle_pte_faults(mm, vma, missing + first, wanted, write)


def snapshot(mm: AddressSpace, address: int, pages: int) -> Steps[list[tuple[int, np.ndarray]]]:
    """What is present in ``pages`` pages, without a fault (``hmm_range_fault`` without HMM_PFN_REQ_FAULT).

    Runs of (page number, ``frame << 1 | writable`` of each page, 0 of absent ones, as int32), at most a leaf each. The
    cost is what is mapped, not the range.
    """
    thread, lock = mm.host.thread, mm.page_table_lock
    first, found = address >> PAGE_SHIFT, []
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        for vma in mm.vmas.overlapping(first << PAGE_SHIFT, (first + pages) << PAGE_SHIFT):
            if not vma.allows(False):
                continue
            for a, b in mm.page_table.spans(max(first, vma.first_page), min(first + pages, vma.last_page)):
                yield from lock.acquire(thread)
                entries = mm.page_table.view(a, b).copy()
                lock.release(thread)
                present = np.flatnonzero(entries & PRESENT)
                if not len(present):
                    continue
                entries = entries[present[0] : present[-1] + 1]
                frames = entries >> PFN_SHIFT << 1 | (entries & WRITE) >> 1
                found.append((a + int(present[0]), np.where(entries & PRESENT, frames, 0).astype(np.int32)))
                yield mm.host.costs.pte_ns * len(present)
    finally:
        mm.mmap_lock.release(thread)
    return found


def _probe(first: int, last: int, write: bool) -> None:
    """The real address space is the truth: the program may have unmapped or protected its memory."""
    bad = safe_copy.first_bad_page(first << PAGE_SHIFT, last - first, write)
    if bad is not None:
        raise Fault.bad_address(bad, "the program unmapped or protected the page")


def copy_from_user(mm: AddressSpace, address: int, length: int) -> Steps[bytes]:
    """The program's CPU reads ``length`` bytes: model faults, then the bytes from where they are."""
    check_alive(mm)
    parts = []
    while length:
        part = min(length, (1 << PAGE_SHIFT) - (address & (1 << PAGE_SHIFT) - 1))
        answer = yield from _touch(mm, address, False)
        frame, offset = answer >> 1, address & (1 << PAGE_SHIFT) - 1
        if mm.host.pages.kind[frame] == MODEL:
            parts.append(mm.host.frames.bytes_of(frame)[offset : offset + part].tobytes())
        else:
            data = safe_copy.read(address, part) if mm.owns_memory else b""
            if len(data) < part:
                raise Fault.bad_address(address + len(data))
            parts.append(data)
        address += part
        length -= part
        if mm.host.numa.nodes > 1:
            yield mm.host.numa.access_ns(mm, frame)
    return b"".join(parts)


def copy_to_user(mm: AddressSpace, address: int, data: bytes) -> Steps[None]:
    """The program's CPU writes: model faults (COW, swap-in), then the bytes."""
    check_alive(mm)
    at = 0
    while at < len(data):
        offset = address + at & (1 << PAGE_SHIFT) - 1
        part = data[at : at + (1 << PAGE_SHIFT) - offset]
        answer = yield from _touch(mm, address + at, True)
        frame = answer >> 1
        if mm.host.pages.kind[frame] == MODEL:
            mm.host.frames.bytes_of(frame)[offset : offset + len(part)] = np.frombuffer(part, np.uint8)
        else:
            done = safe_copy.write(address + at, part) if mm.owns_memory else 0
            if done < len(part):
                raise Fault.bad_address(address + at + done)
        at += len(part)
        if mm.host.numa.nodes > 1:
            yield mm.host.numa.access_ns(mm, frame)


def _touch(mm: AddressSpace, address: int, write: bool) -> Steps[int]:
    """A CPU access: no fault if the entry allows it. No yield between the look and the caller's access."""
    page = address >> PAGE_SHIFT
    need = PRESENT | WRITE if write else PRESENT
    while True:
        vma = mm.vmas.find(address)
        if vma is None or not vma.allows(write):
            raise Fault.bad_address(address)
        entry = mm.page_table.get(page)
        if entry & need == need and vma.kind != PROGRAM:
            mm.page_table.set(page, entry | ACCESSED | (DIRTY if write else 0))
            return entry >> PFN_SHIFT << 1 | (entry & WRITE) >> 1
        answer = yield from fault_in_page(mm, page, write)
        if vma.kind == PROGRAM:
            return answer
