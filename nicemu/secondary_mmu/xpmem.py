"""A client that sleeps in every callback, like XPMEM, which shares a process's pages with other partitions: each page
is recalled from afar, under a mutex. It wanted notifiers that may sleep before RDMA did (recalled).

Faults wait for the ranges in progress and compare a sequence under the mutex. It has an end, so its start may not fail:
where nobody may block it spins instead (``non_block.py``). No young bits and no ``change_pte``: those would sleep under
the page-table lock in every era.

Left out: segments and permits, pinning (XPMEM holds its pages, and gives them back in the callback).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.mm.locks import Mutex
from nicemu.mm.notifier import NotifierSubscriber
from nicemu.mm.page import PAGE_SHIFT
from nicemu.secondary_mmu.non_block import lock, pause
from nicemu.secondary_mmu.translation import Stale, Translation, pages_between, stale, translate
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm import AddressSpace

RECALL_NS = 5_000
"""A page is recalled from another partition: chosen, a few microseconds of an interconnect."""


class Xpmem(NotifierSubscriber):
    """One exported address space. Subscribe it with ``mm.notifiers.register``."""

    name = "xpmem"

    def __init__(self, mm: AddressSpace, recall_ns: int = RECALL_NS) -> None:
        self.mm, self.host, self.recall_ns = mm, mm.host, recall_ns
        self.mutex = Mutex(mm.host.scheduler, "xpmem_mutex")
        self.pages: dict[int, Translation] = {}
        """What other partitions have, by page number."""
        self.running = self.sequence = 0
        """Ranges in progress, and those that have ended."""
        self.retries = 0
        self._quiet: Completion | None = None

    def check(self, settled: bool = False) -> list[Stale]:
        """Translations that should be gone; ``settled``: nothing runs."""
        return stale(self.mm, self.name, self.pages, settled)

    def access(self, address: int, write: bool) -> Steps[int]:
        """Another partition reads or writes; gives the frame that it reached. :raises Fault: no such page."""
        page, thread = address >> PAGE_SHIFT, self.host.thread
        while True:
            held = self.pages.get(page)
            if held is not None and (held.writable or not write):
                return held.frame
            sequence = yield from self._when_quiet()
            found = yield from self.mm.fault_in(address & -1 << PAGE_SHIFT, 1, write)
            yield self.host.costs.pte_ns  # anything may happen between the lookup and the lock
            yield from self.mutex.acquire(thread)
            if self.running or self.sequence != sequence:
                self.retries += 1
            else:
                self.pages[page] = translate(self.host, int(found[0]) >> 1, bool(found[0] & 1))
            self.mutex.release(thread)

    def _when_quiet(self) -> Steps[int]:
        while self.running:
            if self._quiet is None:
                self._quiet = Completion(self.host.scheduler, "invalidations of xpmem")
            yield self._quiet
        return self.sequence

    # Callbacks --------------------------------------------------------------------------------------------------------

    def invalidate_range_start(self, mm: AddressSpace, start: int, end: int, blockable: bool) -> Steps[bool]:
        """Recall the pages."""
        self.running += 1
        yield from self._recall(start, end)
        return True

    def invalidate_range_end(self, mm: AddressSpace, start: int, end: int) -> Steps[None]:
        """Faults may go on."""
        thread = self.host.thread
        yield from lock(self.mutex, thread)
        yield pause(thread, self.recall_ns)
        self.sequence += 1
        self.running -= 1
        self.mutex.release(thread)
        if not self.running and self._quiet is not None:
            quiet, self._quiet = self._quiet, None
            quiet.complete()

    def invalidate_page(self, mm: AddressSpace, address: int) -> Steps[None]:
        """3.x: a range of one page, start to end."""
        end = address + (1 << PAGE_SHIFT)
        yield from self.invalidate_range_start(mm, address, end, True)
        yield from self.invalidate_range_end(mm, address, end)

    def release(self, mm: AddressSpace) -> Steps[None]:
        """Recall everything."""
        yield from self._recall(0, max(self.pages, default=0) + 1 << PAGE_SHIFT)

    def _recall(self, start: int, end: int) -> Steps[None]:
        """Sleeps once for the message and once for each page."""
        thread = self.host.thread
        yield from lock(self.mutex, thread)
        yield pause(thread, self.recall_ns)
        for page in pages_between(self.pages, start, end):
            yield pause(thread, self.recall_ns)
            del self.pages[page]
        self.mutex.release(thread)
