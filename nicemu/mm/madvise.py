"""``madvise``: the advices that are page operations of their own, with Linux's errno (``madvise_behavior_valid``).

MADV_MERGEABLE and UNMERGEABLE split areas, so they hold mmap_lock for write; FREE and COLD hold it for read; the rest
fault pages in and take it as they need it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nicemu.mm.aging import madvise_cold
from nicemu.mm.ksm import ksm_madvise
from nicemu.mm.madvise_free import madvise_free
from nicemu.mm.memory_failure import madvise_inject_error
from nicemu.mm.page import EHWPOISON, PAGE_SHIFT, Fault
from nicemu.mm.page_table import SWAP
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

MADV_WILLNEED, MADV_FREE, MADV_MERGEABLE, MADV_UNMERGEABLE = 3, 8, 12, 13
MADV_COLD, MADV_POPULATE_READ, MADV_POPULATE_WRITE = 20, 22, 23
MADV_HWPOISON, MADV_SOFT_OFFLINE = 100, 101


@dataclass(frozen=True, slots=True)
class Advice:
    """What an advice does and how it holds mmap_lock: ``w``, ``r``, or not at all."""

    name: str
    act: Callable[[AddressSpace, int, int], Steps[None]]
    lock: str = ""
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


ADVICE = {
    MADV_WILLNEED: Advice("willneed", madvise_willneed),
    MADV_FREE: Advice("madvise_free", madvise_free, "r", modern=True),
    MADV_MERGEABLE: Advice("mergeable", partial(ksm_madvise, mergeable=True), "w"),
    MADV_UNMERGEABLE: Advice("unmergeable", partial(ksm_madvise, mergeable=False), "w"),
    MADV_COLD: Advice("cold", madvise_cold, "r", modern=True),
    MADV_POPULATE_READ: Advice("populate", partial(madvise_populate, write=False), modern=True, holes=False),
    MADV_POPULATE_WRITE: Advice("populate", partial(madvise_populate, write=True), modern=True, holes=False),
    MADV_HWPOISON: Advice("hwpoison", partial(madvise_inject_error, soft=False), holes=False),
    MADV_SOFT_OFFLINE: Advice("soft_offline", partial(madvise_inject_error, soft=True), holes=False),
}


def do_madvise(mm: AddressSpace, start: int, end: int, number: int) -> Steps[None]:
    """An advice of :data:`ADVICE` on whole pages.

    :raises OSError: ENOMEM for holes; what the advice raises.
    :raises NotInThisKernel: the era has no such advice.
    """
    advice, thread = ADVICE[number], mm.host.thread
    if advice.modern:
        mm.host.discipline.need_modern(f"madvise {number} ({advice.name})")
    yield mm.host.costs.syscall_ns
    thread.context.append(advice.name)
    try:
        if advice.lock == "w":
            yield from mm.mmap_lock.acquire_write(thread)
        elif advice.lock:
            yield from mm.mmap_lock.acquire_read(thread)
        try:
            yield from advice.act(mm, start, end)
        finally:
            if advice.lock:
                mm.mmap_lock.release(thread)
    finally:
        thread.context.pop()
    if advice.holes and mm.vmas.holes(start, end):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
