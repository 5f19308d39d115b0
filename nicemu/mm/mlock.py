"""``mlock`` and ``munlock`` (``mlock.c``): the pages of an area stay in memory.

The area gets VM_LOCKED, its pages are faulted in (writable where it is, which breaks COW) and marked; reclaim leaves
marked pages alone as long as an area that maps them is locked. Migration and a device's invalidations go on: a locked
page may move. ``mm.locked_vm`` counts locked pages, up to RLIMIT_MEMLOCK.

Left out: ``mlockall``, MLOCK_ONFAULT.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from nicemu.mm.huge_split import isolate_vmas
from nicemu.mm.memlock import check_locked
from nicemu.mm.page import PAGE_SHIFT, PG_MLOCKED
from nicemu.mm.rmap import rmap_walk
from nicemu.mm.vma import VM_LOCKED
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def mlocked(host: Host, frame: int) -> bool:
    """Is the page mapped by a locked area? It loses its mark if not."""
    if any(vma.flags & VM_LOCKED for vma, _ in rmap_walk(host, frame)):
        return True
    host.pages.flags[frame] &= ~PG_MLOCKED
    return False


def do_mlock(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``do_mlock``: mark the areas, then populate them.

    :raises OSError: ENOMEM, more than the limit, or part of the range is not mapped (the rest is locked); EPERM, the
        limit is 0; EAGAIN, no memory to populate it.
    """
    locked = sum(min(vma.end, end) - max(vma.start, start) for vma in mm.vmas.overlapping(start, end)
                 if vma.flags & VM_LOCKED)  # fmt: skip
    check_locked(mm, end - start - locked >> PAGE_SHIFT)
    yield from _apply(mm, start, end, True)
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        yield from mm_populate(mm, start, end)
    except OSError as error:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error


def do_munlock(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``munlock``. :raises OSError: ENOMEM, part of the range is not mapped (the rest is unlocked)."""
    yield from _apply(mm, start, end, False)
    if mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _apply(mm: AddressSpace, start: int, end: int, lock: bool) -> Steps[None]:
    """``apply_vma_lock_flags``."""
    yield from mm.mmap_lock.acquire_write(mm.host.thread)
    for vma in (yield from isolate_vmas(mm, start, end)):
        if bool(vma.flags & VM_LOCKED) != lock:
            vma.flags ^= VM_LOCKED
            mm.locked_vm += (vma.last_page - vma.first_page) * (1 if lock else -1)
    mm.vmas.merge(start, end)
    mm.mmap_lock.release(mm.host.thread)


def mm_populate(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``populate_vma_page_range`` of each area; pages of locked ones are marked. :raises Fault: as ``fault_in``."""
    for vma in mm.vmas.overlapping(start, end):
        a, b = max(vma.start, start), min(vma.end, end)
        if vma.allows(False):
            yield from mm.fault_in(a, b - a >> PAGE_SHIFT, vma.allows(True))
        if vma.flags & VM_LOCKED:
            mm.host.pages.all_flags[mm.frames_in(a, b)] |= PG_MLOCKED
