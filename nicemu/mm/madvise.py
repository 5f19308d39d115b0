"""``madvise``: what each advice does, and how it holds mmap_lock, with Linux's errno (``madvise_behavior_valid``).

Advices that split areas hold mmap_lock for write, those that change entries for read; the rest fault pages in and take
it as they need it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from nicemu.memory import arena as real_memory
from nicemu.mm.aging import madvise_cold
from nicemu.mm.huge_memory import madvise_hugepage
from nicemu.mm.huge_split import isolate_vmas
from nicemu.mm.khugepaged import madvise_collapse
from nicemu.mm.ksm import ksm_madvise
from nicemu.mm.madvise_free import madvise_free
from nicemu.mm.memory_failure import madvise_inject_error
from nicemu.mm.page import EHWPOISON, MODEL, PAGE_SHIFT, Fault
from nicemu.mm.page_table import SWAP
from nicemu.mm.vma import VM_DONTCOPY, VM_HUGETLB
from nicemu.mm.zap import madvise_dontneed
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_DONTFORK, MADV_DOFORK = 3, 4, 8, 10, 11
MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 12, 13, 14, 15
MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE = 20, 21, 22, 23, 25
MADV_HWPOISON, MADV_SOFT_OFFLINE = 100, 101


@dataclass(frozen=True, slots=True)
class Advice:
    """What an advice does and how it holds mmap_lock: ``w``, ``r``, or not at all."""

    name: str
    act: Callable[[AddressSpace, int, int], Steps[None]]
    lock: Literal["", "r", "w"] = ""
    modern: bool = False
    """3.x has no such advice."""
    holes: bool = True
    """ENOMEM for a range with holes, the rest being done."""


def madvise_willneed(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``madvise_willneed``: what is in swap is read ahead. An error is no error: it is advice."""
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        for page in [page for page in range(a, b) if mm.page_table.get(page) & SWAP]:
            try:
                yield from mm.fault_in(page << PAGE_SHIFT, 1, False)
            except Fault:
                return


def madvise_populate(mm: AddressSpace, start: int, end: int, write: bool) -> Steps[None]:
    """``madvise_populate``: fault every page in. :raises OSError: ENOMEM, a hole; EHWPOISON; EFAULT; EINVAL, not
    allowed (``faultin_page_range``)."""
    at = start
    while at < end:
        vma = mm.vmas.find(at)
        if vma is None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if not vma.allows(write):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        stop = min(vma.end, end)
        try:
            yield from mm.fault_in(at, stop - at >> PAGE_SHIFT, write)
        except Fault as fault:
            if fault.errno in (EHWPOISON, errno.ENOMEM):
                raise
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from fault
        at = stop


def madvise_pageout(mm: AddressSpace, start: int, end: int) -> Steps[None]:
    """``madvise_pageout``: reclaim the range. :raises OSError: EINVAL, hugetlb memory."""
    if any(vma.flags & VM_HUGETLB for vma in mm.vmas.overlapping(start, end)):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    yield from mm.host.reclaim.reclaim_range(mm, start, end)


def madvise_fork(mm: AddressSpace, start: int, end: int, copy: bool) -> Steps[None]:
    """MADV_DOFORK (``copy``) and MADV_DONTFORK."""
    for vma in (yield from isolate_vmas(mm, start, end)):
        vma.flags = vma.flags & ~VM_DONTCOPY if copy else vma.flags | VM_DONTCOPY
    mm.vmas.merge(start, end)


ADVICE = {
    MADV_WILLNEED: Advice("willneed", madvise_willneed),
    MADV_DONTNEED: Advice("dontneed", partial(madvise_dontneed, real=True), "r", holes=False),
    MADV_FREE: Advice("madvise_free", madvise_free, "r", modern=True),
    MADV_DONTFORK: Advice("madvise", partial(madvise_fork, copy=False), "w", holes=False),
    MADV_DOFORK: Advice("madvise", partial(madvise_fork, copy=True), "w", holes=False),
    MADV_MERGEABLE: Advice("mergeable", partial(ksm_madvise, mergeable=True), "w"),
    MADV_UNMERGEABLE: Advice("unmergeable", partial(ksm_madvise, mergeable=False), "w"),
    MADV_HUGEPAGE: Advice("madvise", partial(madvise_hugepage, wanted=True), "w", holes=False),
    MADV_NOHUGEPAGE: Advice("madvise", partial(madvise_hugepage, wanted=False), "w", holes=False),
    MADV_COLD: Advice("cold", madvise_cold, "r", modern=True),
    MADV_PAGEOUT: Advice("pageout", madvise_pageout, "r", holes=False),
    MADV_POPULATE_READ: Advice("populate", partial(madvise_populate, write=False), modern=True, holes=False),
    MADV_POPULATE_WRITE: Advice("populate", partial(madvise_populate, write=True), modern=True, holes=False),
    MADV_COLLAPSE: Advice("madvise", madvise_collapse, holes=False),
    MADV_HWPOISON: Advice("hwpoison", partial(madvise_inject_error, soft=False), holes=False),
    MADV_SOFT_OFFLINE: Advice("soft_offline", partial(madvise_inject_error, soft=True), holes=False),
}


def do_madvise(mm: AddressSpace, start: int, end: int, number: int) -> Steps[None]:
    """An advice of :data:`ADVICE` on whole pages; others concern the program's real memory only.

    :raises OSError: ENOMEM for holes; what the advice raises; EINVAL, an advice that the kernel does not know.
    :raises NotInThisKernel: the era has no such advice.
    """
    advice = ADVICE.get(number)
    if advice is None:
        for vma in mm.vmas.overlapping(start, end):
            if vma.kind != MODEL and mm.owns_memory:
                real_memory.madvise(max(vma.start, start), min(vma.end, end) - max(vma.start, start), number)
        return
    if advice.modern:
        mm.host.discipline.need_modern(f"madvise {number} ({advice.name})")
    yield from mm.locked(advice.name, advice.act(mm, start, end), advice.lock)
    if advice.holes and mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
