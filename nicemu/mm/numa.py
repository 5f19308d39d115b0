"""NUMA nodes as a cost, and NUMA balancing.

Every frame has a node: the one its first user runs on (``mm.node``), or where it was migrated. A CPU access to a frame
of another node takes longer. Balancing (6.12) makes the entries of a range inaccessible (PROTNONE) between a
``range_start`` and its end; the fault that follows migrates the page to the node of who touched it, or gives the entry
its bits back (``change_prot_numa``, ``do_numa_page``).

Left out: memory of a node of its own size, distances (all nodes are equally far), per-task statistics, a scan that
paces itself; huge pages and pages that several address spaces share are not scanned.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.change_protection import change_entries
from nicemu.mm.migrate import migrate_frame, migrate_pages
from nicemu.mm.page import MODEL, PAGE_SHIFT, PG_KSM
from nicemu.mm.page_table import ACCESSED, HUGE, MAPS, PFN_SHIFT, PRESENT, PROTNONE
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host


class Numa:
    """The nodes of a host. With one node nothing of this costs anything."""

    def __init__(self, host: Host, nodes: int) -> None:
        self.host, self.nodes = host, nodes
        self._nodes: np.ndarray = np.zeros(len(host.frames.table) if nodes > 1 else 0, np.int8)

    def node(self, frame: int) -> int:
        """``page_to_nid``."""
        return int(self._nodes[frame]) if self.nodes > 1 else 0

    def place(self, frames: np.ndarray | int, node: int) -> None:
        """New frames come from a node."""
        if self.nodes > 1:
            self._nodes[frames] = node

    def access_ns(self, mm: AddressSpace, frame: int) -> int:
        """What an access from the address space's node takes longer than a local one."""
        return int(self.host.costs.numa_remote_ns) if self.node(frame) != mm.node else 0


def change_prot_numa(mm: AddressSpace, start: int, end: int) -> Steps[int]:
    """One step of the balancing scan (``task_numa_work``): entries of [start, end) that the next access will fault on.

    :raises NotInThisKernel: 3.7 and before.
    """
    changed = 0
    thread = mm.host.thread
    yield from mm.mmap_lock.acquire_read(thread)
    try:
        mm.host.discipline.site("numa_hint")
        for vma in mm.vmas.overlapping(start, end):
            if vma.kind == MODEL and vma.allows(False) and vma.file is None:
                a, b = max(vma.start, start), min(vma.end, end)
                changed += yield from change_entries(mm, "numa_hint", a, b, partial(_protnone, mm.host))
    finally:
        mm.mmap_lock.release(thread)
    mm.host.counters["numa_pte_updates"] += changed
    return changed


def _protnone(host: Host, _first: int, view: np.ndarray) -> np.ndarray:
    """``change_pte_range`` with MM_CP_PROT_NUMA."""
    new, pages = view.copy(), host.pages
    present = np.flatnonzero((view & (PRESENT | HUGE)) == PRESENT)
    frames = view[present] >> PFN_SHIFT
    ours = (frames != host.zero_frame) & (pages.mapcounts[frames] == 1) & (pages.all_flags[frames] & PG_KSM == 0)
    new[present[ours]] += PROTNONE - PRESENT
    return new


def do_numa_page(mm: AddressSpace, vma: Vma, page: int, entry: int) -> Steps[None]:
    """``do_numa_page``: a hinting fault; the caller looks again."""
    host, address, frame = mm.host, page << PAGE_SHIFT, entry >> PFN_SHIFT
    host.counters["numa_hint_faults"] += 1
    mm.event("numa_fault", address, address + (1 << PAGE_SHIFT), frame=frame)
    if host.numa.node(frame) != mm.node and (yield from migrate_frame(host, frame, mm.node)):
        host.counters["numa_pages_migrated"] += 1
        return
    yield from mm.page_table_lock.acquire(host.thread)
    if mm.page_table.get(page) == entry:
        mm.page_table.set(page, entry + PRESENT - PROTNONE | ACCESSED)
    mm.page_table_lock.release(host.thread)
    yield host.costs.pte_ns


def move_pages(mm: AddressSpace, addresses: list[int], node: int) -> Steps[list[int]]:
    """``move_pages(2)``: the node of each page afterwards, or -ENOENT (nothing there), -EBUSY (it cannot go now).

    :raises OSError: ENODEV, there is no such node.
    """
    host = mm.host
    if not 0 <= node < host.numa.nodes:
        raise OSError(errno.ENODEV, "no such node")
    status = []
    for address in addresses:
        entry = mm.page_table.get(address >> PAGE_SHIFT)
        frame = entry >> PFN_SHIFT
        if not entry & MAPS or frame == host.zero_frame:
            status.append(-errno.ENOENT)
        elif host.numa.node(frame) != node and (yield from migrate_pages(host, [frame], node)):
            status.append(-errno.EBUSY)
        else:
            status.append(node)
    return status
