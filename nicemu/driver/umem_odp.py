"""On-demand memory (``ib_umem_odp``): which pages the device has, filled by faults, emptied by invalidations.

The page list and the device's MTT change together, under ``umem_mutex``. A fault reads page-table entries without it,
so it asks under the mutex whether an invalidation came in between, and starts over if so; an invalidation is therefore
ordered wholly before a fault or wholly after it. Lock order: mmap_lock > anon_vma locks > [notifier] > umem_mutex;
nothing is faulted in while the mutex is held.

Left out: huge page shifts, dirtying at unmap (a page is writable only once a fault for write has dirtied it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nicemu.abi.command import Command
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE
from nicemu.driver import mkey
from nicemu.driver.errors import DriverError
from nicemu.driver.notifier import Subscription
from nicemu.driver.page_list import PageList
from nicemu.driver.umem import page_span, update_mtt_page, update_mtt_pages
from nicemu.mm.locks import Mutex
from nicemu.nic.spread import HOST_INVALIDATIONS
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, Steps
from nicemu.timeline.stretched import stretched

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr

T = TypeVar("T")
Runs = list[tuple[int, "np.ndarray | Sequence[int]"]]
"""Pages side by side: the first one's number, and ``frame << 1 | writable`` of each, 0 of one that is absent."""
CHECKED_AT_ONCE = 64
"""Pages of a word of the bitmap of mapped pages."""
ZAP_ALIGN = 8
"""MTT entries are written 64 bytes at a time: a hole ends a block only at such a boundary (``UMR_MTT_ALIGNMENT``)."""


class OnDemand:
    """What all memory that the device faults on has in common: page-fault work holds it while it runs."""

    mutex_name = "umem_mutex"

    def __init__(self, region: Mr, mutex: Mutex | None = None) -> None:
        self.region = region
        self.mutex = mutex or Mutex(region.pd.context.driver.scheduler, self.mutex_name)
        self.dying = False
        self.faults = 0
        """Page-fault work in progress (``mmkey.usecount``)."""
        self.idle: Completion | None = None

    def map_range(self, address: int, length: int, write: bool, stages: dict[str, Any]) -> Steps[int]:
        """Fault the pages of a byte range in and give them to the device; gives how many.

        :raises Fault: a page cannot be had.
        """
        raise NotImplementedError

    def map_present(self, address: int, length: int) -> Steps[int]:
        """The same for the pages that are present, without faulting."""
        raise NotImplementedError

    def begin_fault(self) -> None:
        """A work item uses the memory: it stays."""
        self.faults += 1

    def end_fault(self) -> None:
        """It does not any more."""
        self.faults -= 1
        if not self.faults and self.idle is not None:
            self.idle.complete()
            self.idle = None

    def hide(self) -> Steps[None]:
        """No new fault finds the memory; returns when those that run are done."""
        device = self.region.device
        del device.odp_mkeys[self.region.index]
        if self.faults:
            self.idle = Completion(device.driver.scheduler, f"page faults of MR {self.region.number}")
            yield self.idle

    def show(self) -> None:
        """Faults find the memory."""
        self.region.device.odp_mkeys[self.region.index] = self.region


class UmemOdp(OnDemand):
    """``pages``: what the device has. ``emptied()`` is called when an invalidation has taken the last page."""

    def __init__(self, region: Mr, emptied: Callable[[], None] | None = None) -> None:
        super().__init__(region)
        self.start, count = page_span(region.address, region.length)
        self.end = self.start + (count << PAGE_SHIFT)
        self.pages = PageList()
        self.emptied = emptied
        span = self.start, self.end
        self.notifier: Subscription = region.pd.context.notifiers.subscribe(span, self.mutex, self.zap)

    @property
    def mapped(self) -> int:
        """How many pages the device has."""
        return self.pages.mapped

    def map_range(self, address: int, length: int, write: bool, stages: dict[str, Any]) -> Steps[int]:
        return map_range(self, address, length, write, stages)

    def map_present(self, address: int, length: int) -> Steps[int]:
        return map_present(self, address, address + length)

    def zap(self, start: int, end: int, begin: Callable[[], None], operation: str) -> Steps[None]:
        """An invalidation of [start, end), for its notifier."""
        factor = self.region.pd.context.driver.factor(HOST_INVALIDATIONS)
        yield from stretched(invalidate(self, start, end, begin, operation), factor)

    def pages_between(self, start: int, end: int) -> tuple[int, int]:
        """The part of an address range that lies in this memory, as page numbers [first, last)."""
        return (max(start, self.start) - self.start) >> PAGE_SHIFT, (min(end, self.end) - self.start) >> PAGE_SHIFT


def create(region: Mr) -> Steps[UmemOdp]:
    """``ib_umem_odp_get``, ``mlx5_ib_init_odp_mr``: from now on the region can fault. What is present already is
    mapped without faulting; not in the 2014 form, whose regions begin empty."""
    memory = UmemOdp(region)
    yield from memory.notifier.insert()
    region.umem = memory  # before faults find the region
    memory.show()
    if region.pd.context.driver.options.subscriber == "interval":
        try:
            yield from map_present(memory, memory.start, memory.end)
        except DriverError:
            yield from memory.hide()
            yield from memory.notifier.remove()
            region.umem = None
            raise
    return memory


def release(memory: UmemOdp, give_up: Steps[None]) -> Steps[None]:
    """``ib_umem_odp_release``: the device gives the memory up (``give_up`` is the command that makes it), the notifier
    goes. The caller has hidden it. A device that refuses changes nothing."""
    thread = memory.region.pd.context.driver.thread
    yield from memory.mutex.acquire(thread)
    try:
        yield from give_up
        memory.pages = PageList()
        memory.dying = True
    finally:
        memory.mutex.release(thread)
    yield from memory.notifier.remove()


def destroy(region: Mr, memory: UmemOdp) -> Steps[None]:
    """``mlx5_ib_dereg_mr`` of an explicit on-demand region."""
    yield from memory.hide()
    try:
        yield from release(memory, mkey.destroy(region))
    except DriverError:
        memory.show()
        raise


# Faults ---------------------------------------------------------------------------------------------------------------


def map_range(memory: UmemOdp, address: int, length: int, write: bool, stages: dict[str, Any]) -> Steps[int]:
    """``ib_umem_odp_map_dma_and_lock`` and the MTT update: fault the pages of a byte range in and give them to the
    device; gives how many: all.

    :raises Fault: a page cannot be had.
    """
    start, count = page_span(address, length)
    return _map(memory, lambda: _fault_in(memory, (start, count), write, stages), stages)


def map_present(memory: UmemOdp, start: int, end: int) -> Steps[int]:
    """The same for what is present in [start, end), without faulting (``hmm_range_fault`` as a snapshot); gives how
    many pages."""
    first = start >> PAGE_SHIFT
    last = (end + PAGE_SIZE - 1) >> PAGE_SHIFT
    mm = memory.region.pd.context.mm
    return _map(memory, lambda: mm.snapshot(first << PAGE_SHIFT, last - first), {})


def _fault_in(memory: UmemOdp, span: tuple[int, int], write: bool, stages: dict[str, Any]) -> Steps[Runs]:
    """``hmm_range_fault`` of so many pages from an address on."""
    region, (start, count) = memory.region, span
    context = region.pd.context
    scheduler = context.driver.scheduler
    if "mm" not in stages:
        stages["mm"] = scheduler.now
    if scheduler.log is not None:
        scheduler.event("fault_in", mr=region.number, pages=count)
    frames: np.ndarray | Sequence[int]
    if count == 1:
        frames = ((yield from context.mm.fault_in_page(start, write)),)
    else:
        frames = yield from context.mm.fault_in(start, count, write)
    stages["mm_done"] = scheduler.now
    if scheduler.log is not None:
        scheduler.event("fault_in_done", mr=region.number)
    return [(start >> PAGE_SHIFT, frames)]


def _map(memory: UmemOdp, look: Callable[[], Steps[Runs]], stages: dict[str, Any]) -> Steps[int]:
    """Look at the page table until no invalidation came in between, then give the device what was found."""
    driver, notifier, mutex = memory.region.pd.context.driver, memory.notifier, memory.mutex
    thread, mutants = driver.thread, driver.options.mutants
    while True:
        sequence = yield from notifier.read_begin()
        runs = yield from (look() if "fault_under_mutex" not in mutants else _look_locked(memory, look))
        unchecked = "retry_not_checked" in mutants or (
            "retry_check_before_mutex" in mutants and not notifier.read_retry(sequence))  # fmt: skip
        yield from mutex.acquire(thread)
        if unchecked or not notifier.read_retry(sequence):
            break
        mutex.release(thread)
        driver.counters.invalidations_faults_contentions += 1
        stages["retries"] = stages.get("retries", 0) + 1
    stamp = driver.stamp()
    if "drop_mutex_before_mtt_write" in mutants:
        mutex.release(thread)
        return (yield from _store(memory, runs, stamp, stages))
    try:
        return (yield from _store(memory, runs, stamp, stages))
    finally:
        mutex.release(thread)


def _look_locked(memory: UmemOdp, look: Callable[[], Steps[T]]) -> Steps[T]:
    """The mutant ``fault_under_mutex``."""
    thread = memory.region.pd.context.driver.thread
    yield from memory.mutex.acquire(thread)
    try:
        return (yield from look())
    finally:
        memory.mutex.release(thread)


def _store(memory: UmemOdp, runs: Runs, stamp: int, stages: dict[str, Any]) -> Steps[int]:
    """The page list and the device's translations, both."""
    region = memory.region
    driver = region.pd.context.driver
    scheduler = driver.scheduler
    found = 0
    for _, frames in runs:
        found += int(np.count_nonzero(frames)) if len(frames) > 1 else int(frames[0] != 0)
    yield driver.costs.driver_fault_page_ns * found
    stages["update"] = scheduler.now
    if scheduler.log is not None:
        scheduler.event("mtt_update", mr=region.number, pages=found)
    for page, frames in runs:
        first = page - (memory.start >> PAGE_SHIFT)
        if len(frames) == 1:
            frame = int(frames[0])
            memory.pages.store_page(first, frame)
            yield from update_mtt_page(region, first, frame, stamp)
        else:
            assert isinstance(frames, np.ndarray)
            memory.pages.store(first, frames)
            yield from update_mtt_pages(region, first, frames, stamp)
    stages["update_done"] = scheduler.now
    if scheduler.log is not None:
        scheduler.event("mtt_update_done", mr=region.number)
    return found


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
        if not driver.broken("seq_not_set") and (memory.mapped or not driver.broken("seq_set_if_mapped")):
            begin()
        if driver.broken("allocates_in_callback"):
            mm = region.pd.context.mm
            mm.host.pages.put_many((yield from mm.host.alloc_pages(FrameKind.MODEL, 1)))
        yield costs.invalidate_check_ns
        if not memory.mapped:
            return
        first, last = memory.pages_between(start, end - driver.broken("last_page_forgotten") * PAGE_SIZE)
        numbers = memory.pages.numbers(first, last)
        if not len(numbers):
            return
        pages = len(numbers)
        if costs.invalidate_check_batch_ns:
            yield (pages - 1) // CHECKED_AT_ONCE * costs.invalidate_check_batch_ns
        stages = {
            "device": region.device.index,
            "mr": region.number,
            "pages": pages,
            "operation": operation,
            "notifier": entered,
        }
        scheduler.event("invalidate", mr=region.number, pages=pages, operation=operation)
        yield from take_back(memory, blocks(numbers), stages)
        memory.pages.clear(first, last)
        yield costs.invalidate_page_ns * pages + costs.invalidate_done_ns
        region.counters.page_invalidations += pages
        region.counters.page_invalidations_handled += 1
        stages["returned"] = scheduler.clock()
        scheduler.event("invalidate_done", mr=region.number)
        driver.stages.invalidations.append(stages)
        if not memory.mapped and memory.emptied is not None:
            memory.emptied()
    finally:
        memory.mutex.release(thread)


def take_back(memory: OnDemand, ranges: list[tuple[int, int]], stages: dict[str, Any]) -> Steps[None]:
    """One ZAP_MTT a block (first page, pages); each sleeps until the device has drained and its interrupt has come."""
    device, driver = memory.region.device, memory.region.pd.context.driver
    clock = driver.scheduler.clock
    stages["command"] = clock()
    for first, pages in ranges:
        completion = yield from device.commands.post(Command.ZAP_MTT, (memory.region.index, first, pages))
        if driver.broken("skip_device_wait"):
            continue
        _, _, done = yield completion  # as mlx5, which does not look at the answer: the pages go all the same
        if done >= stages["command"]:  # the device stamps its completions
            stages["drained"] = done
    stages["interrupt"] = clock()


def blocks(mapped: np.ndarray) -> list[tuple[int, int]]:
    """(first page, pages) of the blocks to clear so that the ``mapped`` page numbers (ascending) are gone.

    A block runs from a mapped page to the last mapped page before a hole that reaches a multiple of ``ZAP_ALIGN``:
    smaller holes are cleared through.
    """
    if len(mapped) <= 1:
        return [(page, 1) for page in mapped.tolist()]
    before, after = mapped[:-1], mapped[1:]
    cuts = np.flatnonzero((after - 1) // ZAP_ALIGN * ZAP_ALIGN > before) + 1
    return [(int(block[0]), int(block[-1] - block[0] + 1)) for block in np.split(mapped, cuts)]
