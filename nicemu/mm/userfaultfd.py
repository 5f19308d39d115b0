"""userfaultfd write-protection and the write-protecting PAGEMAP_SCAN (6.12).

A handler of the program registers an area and write-protects pages of it (UFFDIO_WRITEPROTECT: ``change_protection``,
notified as a protection change). A later write, of a CPU or a device's fault, drops mmap_lock, sends the handler a
message and waits until the handler takes the protection away. In an asynchronous registration nobody is asked: the
write takes the protection away, and PAGEMAP_SCAN finds what was written.

Left out: missing and minor faults, markers in empty entries, several handlers per address space, fork events (a child
inherits nothing). Huge pages are split when an area is registered, and it gets none.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.change_protection import change_entries
from nicemu.mm.huge_split import isolate_vmas, split_huge_range
from nicemu.mm.page import MODEL, PAGE_SHIFT
from nicemu.mm.page_table import HUGE, MIGRATION, PRESENT, PROTNONE, SWAP, UFFD_WP, WRITE
from nicemu.mm.uffd_move import uffd_move
from nicemu.mm.vma import VM_UFFD, Vma
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

MAPPED = PRESENT | SWAP | MIGRATION | PROTNONE


class FaultRetry(Exception):
    """VM_FAULT_RETRY: the fault starts over when ``resolved`` is done; mmap_lock must not be held meanwhile."""

    def __init__(self, resolved: Completion) -> None:
        super().__init__(resolved.what)
        self.resolved = resolved


class Userfaultfd:
    """The handler's end. ``asynchronous``: UFFD_FEATURE_WP_ASYNC, writes take the protection away by themselves."""

    def __init__(self, mm: AddressSpace, asynchronous: bool = False) -> None:
        self.mm, self.asynchronous = mm, asynchronous
        self._waiting: dict[int, Completion] = {}
        self._messages: deque[int] = deque()
        self._readable: Completion | None = None

    def register(self, start: int, length: int) -> Steps[None]:
        """UFFDIO_REGISTER, mode WP.

        :raises OSError: EINVAL, no anonymous model memory there, or not whole pages; EBUSY, another handler has it.
        :raises NotInThisKernel: 3.x.
        """
        mm, end = self.mm, start + length
        mm.host.discipline.site("uffd_wp")
        if mm.userfaultfd not in (None, self):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        areas = mm.vmas.overlapping(start, end)
        wrong = any(vma.kind != MODEL or vma.file is not None for vma in areas)
        if not areas or wrong or length <= 0 or (start | length) & (1 << PAGE_SHIFT) - 1:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        yield from mm.mmap_lock.acquire_write(mm.host.thread)
        mm.userfaultfd = self
        for vma in (yield from isolate_vmas(mm, start, end)):
            vma.flags |= VM_UFFD
            yield from split_huge_range(mm, vma.start, vma.end)
        mm.vmas.merge(start, end)
        mm.mmap_lock.release(mm.host.thread)

    def unregister(self, start: int, length: int) -> Steps[None]:
        """UFFDIO_UNREGISTER: protections end and who waits goes on."""
        mm, end = self.mm, start + length
        yield from mm.mmap_lock.acquire_write(mm.host.thread)
        for vma in (yield from isolate_vmas(mm, start, end)):
            if vma.flags & VM_UFFD:
                yield from change_entries(mm, "uffd_wp", vma.start, vma.end, _resolve)
                vma.flags &= ~VM_UFFD
        mm.vmas.merge(start, end)
        if not any(vma.flags & VM_UFFD for vma in mm.vmas):
            mm.userfaultfd = None
        mm.mmap_lock.release(mm.host.thread)
        self.wake(start, length)

    def writeprotect(self, start: int, length: int, protect: bool) -> Steps[None]:
        """UFFDIO_WRITEPROTECT: protect, or take the protection away and wake who waits for it.

        :raises OSError: ENOENT, not a registered area.
        """
        mm, end = self.mm, start + length
        thread = mm.host.thread
        yield from mm.mmap_lock.acquire_read(thread)
        try:
            areas = mm.vmas.overlapping(start, end)
            if mm.vmas.holes(start, end) or not all(vma.flags & VM_UFFD for vma in areas):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            for vma in areas:
                a, b = max(vma.start, start), min(vma.end, end)
                yield from change_entries(mm, "uffd_wp", a, b, _protect if protect else _resolve)
        finally:
            mm.mmap_lock.release(thread)
        if not protect:
            self.wake(start, length)

    def move(self, destination: int, source: int, length: int, allow_holes: bool = False) -> Steps[int]:
        """UFFDIO_MOVE: see :func:`nicemu.mm.uffd_move.uffd_move`."""
        return uffd_move(self.mm, destination, source, length, allow_holes)

    def read(self) -> Steps[int]:
        """The next message (UFFD_EVENT_PAGEFAULT with the WP flag): the address. Waits for one."""
        while not self._messages:
            if self._readable is None:
                self._readable = Completion(self.mm.host.scheduler, "userfaultfd message")
            yield self._readable
        return self._messages.popleft()

    def wake(self, start: int, length: int) -> None:
        """UFFDIO_WAKE."""
        for address in [address for address in self._waiting if start <= address < start + length]:
            self._waiting.pop(address).complete()

    def wait_for(self, address: int) -> Completion:
        """``handle_userfault``: tell the handler; gives what ends when it has resolved the fault."""
        if address not in self._waiting:
            self._waiting[address] = Completion(self.mm.host.scheduler, "userfaultfd handler")
            self._messages.append(address)
        if self._readable is not None:
            readable, self._readable = self._readable, None
            readable.complete()
        return self._waiting[address]


def _protect(_first: int, view: np.ndarray) -> np.ndarray:
    """``change_pte_range`` with MM_CP_UFFD_WP."""
    mapped = ((view & MAPPED) != 0) & (view & HUGE == 0)
    changed: np.ndarray = np.where(mapped, view & ~WRITE | UFFD_WP, view)
    return changed


def _resolve(_first: int, view: np.ndarray) -> np.ndarray:
    """``change_pte_range`` with MM_CP_UFFD_WP_RESOLVE: the next write faults, and is let through."""
    return view & ~UFFD_WP


def do_uffd_wp(mm: AddressSpace, page: int) -> Steps[None]:
    """``do_wp_page`` of a page that userfaultfd write-protects; the caller looks again.

    :raises FaultRetry: the handler was told.
    """
    entry, handler = mm.page_table.get(page), mm.userfaultfd
    if not entry & UFFD_WP:
        return
    if handler is not None and not handler.asynchronous:
        raise FaultRetry(handler.wait_for(page << PAGE_SHIFT))
    mm.page_table.set(page, entry & ~UFFD_WP)
    yield mm.host.costs.pte_ns


def fault_retry(mm: AddressSpace, retry: FaultRetry) -> Steps[None]:
    """Wait without mmap_lock, which the caller holds for read before and after."""
    mm.mmap_lock.release(mm.host.thread)
    yield retry.resolved
    yield from mm.mmap_lock.acquire_read(mm.host.thread)


def pagemap_scan(mm: AddressSpace, start: int, end: int, write_protect: bool = True) -> Steps[list[int]]:
    """PAGEMAP_SCAN for PAGE_IS_WRITTEN, with PM_SCAN_WP_MATCHING if ``write_protect``: addresses of the pages of
    asynchronous areas that were written since they were last protected.

    :raises NotInThisKernel: 3.x.
    """
    written: list[int] = []
    mm.host.discipline.site("pagemap_scan")

    def look(first: int, view: np.ndarray) -> np.ndarray:
        found = np.flatnonzero(((view & (PRESENT | SWAP)) != 0) & (view & (UFFD_WP | HUGE) == 0))
        ours = [i for i in found.tolist() if _asynchronous(mm.vmas.find(first + i << PAGE_SHIFT))]
        written.extend(first + i << PAGE_SHIFT for i in ours)
        new = view.copy()
        if write_protect:
            new[ours] = new[ours] & ~WRITE | UFFD_WP
        return new

    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        if write_protect:
            yield from change_entries(mm, "pagemap_scan", start, end, look)
        else:
            for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
                look(a, mm.page_table.view(a, b))
                yield mm.host.costs.pte_ns * (b - a)
    finally:
        mm.mmap_lock.release(thread)
    return written


def _asynchronous(vma: Vma | None) -> bool:
    """``userfaultfd_wp_async``."""
    handler = vma.mm.userfaultfd if vma is not None and vma.flags & VM_UFFD else None
    return handler is not None and handler.asynchronous
