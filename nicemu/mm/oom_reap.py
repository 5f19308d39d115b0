"""The OOM reaper (6.12, mm/oom_kill.c): takes the private memory of a victim that does not exit by itself.

It may not block: a notifier that would have to sleep refuses, the area is skipped and tried again later. RDMA's
on-demand regions always refuse (odp.md 3.5), so their areas stay until the process gives its regions up. Pinned pages
lose their mapping but stay the device's. Left out: real memory of a program (it goes on in truth), and hugetlb areas,
as in Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.discipline import Invalidation
from nicemu.mm.gather import MmuGather
from nicemu.mm.page import MODEL
from nicemu.mm.vma import VM_HUGETLB, VM_SHARED, Vma
from nicemu.mm.zap import zap_pte_ranges
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

RETRY_NS = 100_000_000
"""HZ / 10."""
OOM_REAPER_DELAY = 20
"""In those: 2 s, in which the victim may exit by itself."""
MAX_OOM_REAP_RETRIES = 10


def oom_reaper(victim: AddressSpace) -> Steps[None]:
    """``oom_reap_task``: at the end the victim is hidden from the OOM killer, whatever was reaped."""
    host = victim.host
    host.thread.context.append("oom_reap")
    for _ in range(OOM_REAPER_DELAY):
        if victim.oom_skip:
            return
        yield Sleep(RETRY_NS)
    for _ in range(MAX_OOM_REAP_RETRIES):
        if (yield from oom_reap_task_mm(victim)):
            break
        yield Sleep(RETRY_NS)
    else:
        host.counters["oom_reap_gave_up"] += 1
        host.event("oom_reap_gave_up", mm=victim.number)
    victim.dead()


def oom_reap_task_mm(victim: AddressSpace) -> Steps[bool]:
    """``oom_reap_task_mm``: with mmap_lock, if it is free; False: something is left, try again later."""
    thread, lock = victim.host.thread, victim.mmap_lock
    if lock.writer is not None or lock.waiters:
        return False
    yield from lock.acquire_read(thread)
    try:
        if victim.oom_skip:
            return True
        return (yield from _reap_areas(victim))
    finally:
        lock.release(thread)


def _reap_areas(victim: AddressSpace) -> Steps[bool]:
    """``__oom_reap_task_mm``."""
    all_of_it = True
    for vma in list(victim.vmas):
        if vma.flags & (VM_HUGETLB | VM_SHARED) or (vma.kind != MODEL and victim.owns_memory):
            continue
        all_of_it = (yield from reap_area(victim, vma)) and all_of_it
    return all_of_it


def reap_area(victim: AddressSpace, vma: Vma) -> Steps[bool]:
    """One area, without blocking; False: a notifier refused."""
    start, end = vma.start, vma.end
    notify, gather = Invalidation(victim, "oom_reap", start, end, "oom_reap"), MmuGather(victim, "oom_reap")
    if not (yield from notify.start(blockable=False)):
        victim.host.counters["oom_reap_skipped"] += 1
        victim.event("oom_reap_skip", start, end)
        if victim.host.broken("reaper_ignores_refusal"):
            yield from zap_pte_ranges(vma, start, end, gather)
            yield from gather.finish(start, end)
        return False
    victim.stamp_range(start, end, "oom_reap")
    yield from zap_pte_ranges(vma, start, end, gather)
    yield from notify.end()
    yield from gather.finish(start, end)
    return True
