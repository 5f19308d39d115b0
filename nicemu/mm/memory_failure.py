"""Memory failure (``memory-failure.c``): a page whose memory went bad is taken from everybody and never used again.

Hard: every mapping becomes a HWPOISON entry, with the notifiers of ``try_to_unmap_one``; who touches it later gets
SIGBUS (a :class:`Fault` with EHWPOISON; the NIC completes with the error of a page that cannot be had). Soft-offline:
the contents move to another frame first, and nobody notices. In both the frame keeps one reference for ever.

A page that a device has pinned stays with the device: it is only marked, its mappings remain, and the last unpin and
unmap leave the one reference. (Linux unmaps it from the CPUs and cannot take it from the device either.)

A huge page is split first. Left out: pages of files and hugetlb pages (EBUSY), free pages, kernel pages, killing early
(``PR_MCE_KILL``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nicemu.mm.compound import compound_head, is_compound
from nicemu.mm.huge_split import split_huge_page
from nicemu.mm.migrate import PASSES, new_page, unmap_and_move
from nicemu.mm.page import EHWPOISON, MODEL, PAGE_SHIFT, PG_FILE, PG_HUGETLB, PG_HWPOISON, PG_KSM, Fault
from nicemu.mm.page_table import HWPOISON, PFN_SHIFT, pte
from nicemu.mm.rmap import Unmapping, rmap_walk, try_to_unmap_one
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def memory_failure(host: Host, frame: int) -> Steps[list[AddressSpace]]:
    """The memory of ``frame`` has failed. Gives the address spaces that lost it: each access there is a SIGBUS.

    :raises OSError: EHWPOISON, it had failed before; EBUSY, the model cannot take this kind of page out of use.
    """
    yield from _check(host, frame)
    host.pages.flags[frame] |= PG_HWPOISON
    host.pages.get(frame)  # for ever: it is never allocated again
    host.swap.forget(frame)
    host.counters["hwpoison"] += 1
    thread = host.thread
    thread.context.append("memory_failure")
    try:
        yield from _lock_page(host, frame)
        return (yield from _hwpoison_user_mappings(host, frame))
    finally:
        thread.context.pop()


def _check(host: Host, frame: int) -> Steps[None]:
    """Can it be taken out of use? A huge page is split for it."""
    pages = host.pages
    if pages.flags[frame] & PG_HWPOISON:
        raise Fault(EHWPOISON, 0, f"the memory of frame {frame} has failed before")
    if pages.kind[frame] != MODEL or frame == host.zero_frame or pages.flags[frame] & (PG_FILE | PG_HUGETLB):
        raise _error(errno.EBUSY)
    if is_compound(host, frame) and not (yield from split_huge_page(host, compound_head(frame))):
        raise _error(errno.EBUSY)


def _lock_page(host: Host, frame: int) -> Steps[None]:
    """``lock_page``: reclaim and migration are done with it."""
    while frame in host.reclaim.isolated:
        yield host.migrations[frame] if frame in host.migrations else Sleep(host.costs.swap_write_ns)


def _hwpoison_user_mappings(host: Host, frame: int) -> Steps[list[AddressSpace]]:
    """``hwpoison_user_mappings``: unmap it everywhere."""
    lost = []
    if host.reclaim.isolate(frame):
        poisoned = Unmapping(frame, "memory_failure", "unmap_one", lambda _: pte(frame, HWPOISON))
        try:
            for vma, page in _mappings(host, frame):
                if (yield from try_to_unmap_one(host, vma, page, poisoned)):
                    vma.mm.event("hwpoison", page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, frame=frame)
                    lost.append(vma.mm)
        finally:
            if not host.pages.mapcount[frame]:
                host.pages.flags[frame] &= ~PG_KSM
            host.reclaim.putback(frame, "memory_failure")
    yield host.costs.tlb_flush_ns
    return lost


def _mappings(host: Host, frame: int) -> Iterator[tuple[Vma, int]]:
    """Every mapping, and those that KSM or fork made meanwhile."""
    for _ in range(PASSES):
        yield from rmap_walk(host, frame)


def soft_offline_page(host: Host, frame: int) -> Steps[None]:
    """``soft_offline_page``: the memory of ``frame`` is about to fail: move the contents and use it no more.

    :raises OSError: EBUSY, the page cannot move now (pinned, held, not movable); EHWPOISON; ENOMEM.
    """
    yield from _check(host, frame)
    if not host.reclaim.isolate(frame):
        raise _error(errno.EBUSY)
    thread = host.thread
    thread.context.append("soft_offline")
    try:
        new = yield from new_page(host, frame)
        if not (yield from unmap_and_move(host, frame, new)):
            raise _error(errno.EBUSY)
        host.pages.flags[frame] |= PG_HWPOISON
        host.pages.get(frame)
        host.counters["hwpoison"] += 1
    finally:
        thread.context.pop()
        host.reclaim.putback(frame, "soft_offline")


def madvise_inject_error(mm: AddressSpace, start: int, end: int, soft: bool) -> Steps[None]:
    """MADV_HWPOISON and MADV_SOFT_OFFLINE: fault each page in, then fail its memory. No lock is held.

    :raises OSError: what :func:`memory_failure` and :func:`soft_offline_page` raise; EFAULT, nothing is mapped there.
    """
    for address in range(start, end, 1 << PAGE_SHIFT):
        yield from mm.fault_in(address, 1, False)
        frame = mm.page_table.get(address >> PAGE_SHIFT) >> PFN_SHIFT
        if soft:
            yield from soft_offline_page(mm.host, frame)
        else:
            yield from memory_failure(mm.host, frame)
