"""On-demand memory (``ib_umem_odp``): which pages the device has, filled by faults, emptied by invalidations.

The page list and the device's MTT change together, under ``umem_mutex``. A fault reads page-table entries without it,
so it asks under the mutex whether an invalidation came in between, and starts over if so; an invalidation is therefore
ordered wholly before a fault or wholly after it. Lock order: mmap_lock > anon_vma locks > [notifier] > umem_mutex;
nothing is faulted in while the mutex is held.

Left out: the snapshot at registration (the MTT starts empty), huge page shifts, dirtying at unmap (a fault for write
has dirtied the page already).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver.notifier import Subscription
from nicemu.driver.umem import destroy_mkey, mtt_entries, page_span, update_mtt
from nicemu.mm.locks import Mutex
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr

ZAP_ALIGN = 8
"""MTT entries are written 64 bytes at a time: a hole ends a block only at such a boundary (``UMR_MTT_ALIGNMENT``)."""


class UmemOdp:
    """``frames``: ``frame << 1 | writable`` of each page that the device has, 0 of the others; ``mapped``: how many."""

    def __init__(self, region: Mr) -> None:
        context = region.pd.context
        self.region = region
        self.start, self.pages = page_span(region.address, region.length)
        self.end = self.start + (self.pages << PAGE_SHIFT)
        self.frames = np.zeros(self.pages, np.int64)
        self.mapped = 0
        self.mutex = Mutex(context.driver.scheduler, "umem_mutex")
        self.dying = False
        self.faults = 0
        """Page-fault work in progress (``mmkey.usecount``)."""
        self.idle: Completion | None = None
        span = self.start, self.end
        self.notifier: Subscription = context.notifiers.subscribe(span, self.mutex, self.zap)

    def zap(self, start: int, end: int, begin: Callable[[], None], operation: str) -> Steps[None]:
        """An invalidation of [start, end), for its notifier."""
        yield from invalidate(self, start, end, begin, operation)

    def pages_between(self, start: int, end: int) -> tuple[int, int]:
        """The part of an address range that lies in this memory, as page numbers [first, last)."""
        return (max(start, self.start) - self.start) >> PAGE_SHIFT, (min(end, self.end) - self.start) >> PAGE_SHIFT


def create(region: Mr) -> Steps[UmemOdp]:
    """``ib_umem_odp_get``: nothing is mapped yet. From now on the region can fault."""
    memory = UmemOdp(region)
    yield from memory.notifier.insert()
    region.device.odp_mkeys[region.index] = region
    return memory


def release(region: Mr, memory: UmemOdp) -> Steps[None]:
    """``mlx5_ib_dereg_mr`` of an on-demand region, ``ib_umem_odp_release``."""
    driver = region.pd.context.driver
    thread = driver.thread
    del region.device.odp_mkeys[region.index]
    if memory.faults:
        memory.idle = Completion(driver.scheduler, f"page faults of MR {region.number}")
        yield memory.idle
    yield from memory.mutex.acquire(thread)
    try:
        yield from destroy_mkey(region)
        memory.frames[:] = 0
        memory.mapped, memory.dying = 0, True
    finally:
        memory.mutex.release(thread)
    yield from memory.notifier.remove()


# Faults ---------------------------------------------------------------------------------------------------------------


def begin_fault(memory: UmemOdp) -> None:
    """A page-fault work item uses the memory: it stays."""
    memory.faults += 1


def end_fault(memory: UmemOdp) -> None:
    """It does not any more."""
    memory.faults -= 1
    if not memory.faults and memory.idle is not None:
        memory.idle.complete()


def map_pages(memory: UmemOdp, first: int, count: int, write: bool, stages: dict[str, Any]) -> Steps[None]:
    """``ib_umem_odp_map_dma_and_lock`` and the MTT update: fault pages in and give them to the device.

    :raises Fault: a page cannot be had.
    """
    region = memory.region
    driver = region.pd.context.driver
    thread = driver.thread
    address = memory.start + (first << PAGE_SHIFT)
    while True:
        sequence = yield from memory.notifier.read_begin()
        stages.setdefault("mm", driver.scheduler.clock())
        frames = yield from region.pd.context.mm.fault_in(address, count, write)
        stages["mm_done"] = driver.scheduler.clock()
        yield from memory.mutex.acquire(thread)
        if not memory.notifier.read_retry(sequence):
            break
        memory.mutex.release(thread)
        driver.counters.invalidations_faults_contentions += 1
        stages["retries"] = stages.get("retries", 0) + 1
    entries = mtt_entries(frames, region.writable, driver.stamp())
    if driver.broken("drop_mutex_before_mtt_write"):
        memory.mutex.release(thread)
        yield from _store(memory, first, frames, entries, stages)
        return
    try:
        yield from _store(memory, first, frames, entries, stages)
    finally:
        memory.mutex.release(thread)


def _store(memory: UmemOdp, first: int, frames: np.ndarray, entries: np.ndarray, stages: dict[str, Any]) -> Steps[None]:
    """The page list and the device's translations, both."""
    driver = memory.region.pd.context.driver
    yield driver.costs.driver_fault_page_ns * len(frames)
    stages["update"] = driver.scheduler.clock()
    window = memory.frames[first : first + len(frames)]
    memory.mapped += int(np.count_nonzero(frames) - np.count_nonzero(window))
    window[:] = frames
    yield from update_mtt(memory.region, first, entries)
    stages["update_done"] = driver.scheduler.clock()


# Invalidations --------------------------------------------------------------------------------------------------------


def invalidate(memory: UmemOdp, start: int, end: int, begin: Callable[[], None], operation: str) -> Steps[None]:
    """``mlx5_ib_invalidate_range``: returns when no DMA uses the pages of [start, end) any more.

    ``begin()`` is called under the mutex, whether anything is mapped or not: it makes running faults start over.
    """
    region = memory.region
    driver = region.pd.context.driver
    scheduler, costs = driver.scheduler, driver.costs
    thread = driver.thread
    entered = scheduler.clock()
    yield from memory.mutex.acquire(thread)
    try:
        begin()
        yield costs.invalidate_check_ns
        if not memory.mapped:
            return
        first, last = memory.pages_between(start, end)
        blocks = mapped_blocks(memory.frames[first:last], first)
        if not blocks:
            return
        pages = int(np.count_nonzero(memory.frames[first:last]))
        stages = {
            "device": region.device.index,
            "mr": region.number,
            "pages": pages,
            "operation": operation,
            "notifier": entered,
        }
        yield from _zap(memory, blocks, stages)
        memory.frames[first:last] = 0
        memory.mapped -= pages
        yield costs.invalidate_page_ns * pages + costs.invalidate_done_ns
        region.counters.page_invalidations += pages
        region.counters.page_invalidations_handled += 1
        stages["returned"] = scheduler.clock()
        driver.stages.invalidations.append(stages)
    finally:
        memory.mutex.release(thread)


def _zap(memory: UmemOdp, blocks: list[tuple[int, int]], stages: dict[str, Any]) -> Steps[None]:
    """One ZAP_MTT a block; each sleeps until the device has drained and its interrupt has come."""
    device, driver = memory.region.device, memory.region.pd.context.driver
    clock = driver.scheduler.clock
    stages["command"] = clock()
    for first, pages in blocks:
        completion = yield from device.commands.post(Command.ZAP_MTT, memory.region.index, first, pages)
        if driver.broken("skip_device_wait"):
            continue
        status, _, done = yield completion
        assert status == Status.OK, f"MR {memory.region.number}: ZAP_MTT failed with {status.name}"
        if done >= stages["command"]:  # the device stamps its completions
            stages["drained"] = done
    stages["interrupt"] = clock()


def mapped_blocks(frames: np.ndarray, first: int) -> list[tuple[int, int]]:
    """(first page, pages) of the blocks to clear; ``first`` is the page number of ``frames[0]``.

    A block runs from a mapped page to the last mapped page before a hole that reaches a multiple of ``ZAP_ALIGN``:
    smaller holes are cleared through.
    """
    mapped = np.flatnonzero(frames) + first
    if not len(mapped):
        return []
    before, after = mapped[:-1], mapped[1:]
    cuts = np.flatnonzero((after - 1) // ZAP_ALIGN * ZAP_ALIGN > before) + 1
    return [(int(block[0]), int(block[-1] - block[0] + 1)) for block in np.split(mapped, cuts)]
