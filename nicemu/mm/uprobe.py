"""uprobes (``uprobe_write_opcode``): a page of a private mapping is replaced by a patched copy.

The copy is anonymous even where a file is mapped, so the file and other programs keep their page. The entry changes in
``__replace_page``, notified like KSM's.

Left out: finding the mappings of a file, single-stepping, taking the breakpoint out again by going back to the file's
page (writing the old bytes makes another copy).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.huge_split import split_huge_range
from nicemu.mm.page import MODEL, PAGE_SHIFT
from nicemu.mm.page_table import DIRTY, HUGE, PFN_SHIFT, PRESENT, SOFT_DIRTY, WRITE, pte
from nicemu.mm.replace_page import replace_page
from nicemu.mm.vma import VM_HUGETLB, VM_SHARED, VM_WRITE, Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

ATTEMPTS = 10


def uprobe_write_opcode(mm: AddressSpace, address: int, opcode: bytes) -> Steps[None]:
    """Patch the bytes at ``address``, within one page of a private mapping that the program cannot write.

    :raises OSError: EINVAL, no such mapping (``valid_vma``), or two pages; EAGAIN, the page changes all the time;
        ENOMEM.
    """
    vma = mm.vmas.find(address)
    valid = vma is not None and vma.kind == MODEL and not vma.flags & (VM_SHARED | VM_HUGETLB | VM_WRITE)
    if not valid or not opcode or (address & PAGE_SIZE - 1) + len(opcode) > PAGE_SIZE:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    thread = mm.host.thread
    thread.context.append("uprobe")
    try:
        for _ in range(ATTEMPTS):
            yield from mm.fault_in(address & -PAGE_SIZE, 1, False)
            yield from split_huge_range(mm, address & -PAGE_SIZE, (address & -PAGE_SIZE) + PAGE_SIZE)
            if (yield from _patch(mm, address, opcode)):
                return
    finally:
        thread.context.pop()
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _patch(mm: AddressSpace, address: int, opcode: bytes) -> Steps[bool]:
    """One attempt: a copy of the page as it is, patched, in its place; False if that has changed meanwhile."""
    host, page = mm.host, address >> PAGE_SHIFT
    thread = host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        vma, entry = mm.vmas.find(address), mm.page_table.get(page)
        if vma is None or vma.flags & VM_WRITE or entry & (PRESENT | HUGE) != PRESENT:
            return False
        old = entry >> PFN_SHIFT
        host.pages.get(old)
        try:
            return (yield from _replace(vma, address, entry, opcode))
        finally:
            if host.pages.put(old):
                host.event("free", frame=old, operation="uprobe")
    finally:
        mm.mmap_lock.release(thread)


def _replace(vma: Vma, address: int, entry: int, opcode: bytes) -> Steps[bool]:
    """The copy takes the place of the page, which the caller holds."""
    host, page, offset = vma.mm.host, address >> PAGE_SHIFT, address & PAGE_SIZE - 1
    new = int((yield from host.alloc_pages(vma.kind, 1, 0, vma.mm))[0])
    host.pages.copy(entry >> PFN_SHIFT, new)
    host.frames.bytes_of(new)[offset : offset + len(opcode)] = np.frombuffer(opcode, np.uint8)
    host.pages.anon_vma[new], host.pages.index[new] = vma.anon_vma.number, vma.pgoff + page - vma.first_page
    yield host.costs.copy_page_ns
    flags = entry & (1 << PFN_SHIFT) - 1 & ~WRITE | DIRTY | SOFT_DIRTY
    replaced: bool = yield from replace_page(vma, page, entry, pte(new, flags), "uprobe")
    if replaced:
        host.reclaim.lru.add(new)
    host.pages.put(new)
    return replaced
