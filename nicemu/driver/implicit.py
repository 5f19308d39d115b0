"""Implicit on-demand regions (``mlx5_ib_alloc_implicit_mr``, ``pagefault_implicit_mr``): the whole address space.

The parent key holds no pages but child keys, one for each GiB in which a page was ever needed. A fault makes the
children it needs, faults their pages in, and then tells the device of new children in one update of the parent: a
fault that runs in parallel may meet a child that the parent does not show yet, and faults again. An invalidation that
empties a child lets a worker free it. The parent's mutex orders children; it is never taken under a child's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nicemu.abi.command import IMPLICIT_BITS, IMPLICIT_SHIFT, MkeyFlag
from nicemu.driver import mkey, umem_odp
from nicemu.driver.errors import DriverError
from nicemu.driver.umem import update_mtt
from nicemu.driver.umem_odp import OnDemand, UmemOdp
from nicemu.mm.page import Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr

CHILD_BYTES = 1 << IMPLICIT_SHIFT
SLOTS = 1 << IMPLICIT_BITS - IMPLICIT_SHIFT
Work = Callable[[UmemOdp, int, int], Steps[int]]
"""What to do with (a child, address, bytes); gives a number of pages."""


class ImplicitUmem(OnDemand):
    """``children`` by GiB (``implicit_children``). Its mutex is a lock class of its own: children are made and enter
    the notifiers under it, and no callback takes it."""

    mutex_name = "implicit_children"

    def __init__(self, region: Mr) -> None:
        super().__init__(region)
        self.children: dict[int, Mr] = {}

    @property
    def mapped(self) -> int:
        """How many pages the device has."""
        return sum(child_memory(child).mapped for child in self.children.values())

    def map_range(self, address: int, length: int, write: bool, stages: dict[str, Any]) -> Steps[int]:
        self.region.pd.context.mm.adopt(address, length)
        return _for_children(
            self, address, length, lambda child, at, size: umem_odp.map_range(child, at, size, write, stages)
        )

    def map_present(self, address: int, length: int) -> Steps[int]:
        return _for_children(self, address, length, lambda child, at, size: child.map_present(at, size))


def child_memory(child: Mr) -> UmemOdp:
    """The memory of a child region."""
    assert isinstance(child.umem, UmemOdp)
    return child.umem


def create(region: Mr) -> Steps[ImplicitUmem]:
    """A parent without children."""
    yield from mkey.create(region, MkeyFlag.ODP | MkeyFlag.IMPLICIT)
    memory = ImplicitUmem(region)
    memory.show()
    return memory


def destroy(region: Mr, memory: ImplicitUmem) -> Steps[None]:
    """``mlx5_ib_free_odp_mr``: the parent's key first, so that nothing reaches the children, then they."""
    yield from memory.hide()
    try:
        yield from mkey.destroy(region)
    except DriverError:
        memory.show()
        raise
    memory.dying = True
    for child in list(memory.children.values()):
        yield from _free(child)
    memory.children.clear()


# Faults ---------------------------------------------------------------------------------------------------------------


def _for_children(memory: ImplicitUmem, address: int, length: int, work: Work) -> Steps[int]:
    """Do the work for each GiB of a byte range, then publish the children."""
    end = address + length
    used: list[Mr] = []
    pages = 0
    try:
        while address < end:
            child = yield from _child(memory, address >> IMPLICIT_SHIFT)
            used.append(child)
            stop = min(end, child.address + CHILD_BYTES)
            pages += yield from work(child_memory(child), address, stop - address)
            address = stop
    finally:
        if used:
            yield from _publish(memory, used)
        for child in used:
            child_memory(child).end_fault()
            _free_if_empty(memory, child)
    return pages


def _child(memory: ImplicitUmem, slot: int) -> Steps[Mr]:
    """``implicit_get_child_mr``: the child for a GiB, made if there is none; the caller holds it (``begin_fault``)."""
    if not 0 <= slot < SLOTS:
        raise Fault.bad_address(slot << IMPLICIT_SHIFT, "outside the address space")
    thread = memory.region.pd.context.driver.thread
    yield from memory.mutex.acquire(thread)
    try:
        child = memory.children.get(slot)
        if child is None:
            child = yield from _create_child(memory, slot)
            memory.children[slot] = child
        child_memory(child).begin_fault()
    finally:
        memory.mutex.release(thread)
    return child


def _create_child(memory: ImplicitUmem, slot: int) -> Steps[Mr]:
    parent = memory.region
    index, key = mkey.take(parent.device)
    start = slot << IMPLICIT_SHIFT
    child = replace(parent, index=index, key=key, address=start, length=CHILD_BYTES, iova=start, umem=None, handle=0)
    try:
        yield from mkey.create(child, MkeyFlag.ODP)
    except DriverError:
        mkey.give(parent.device, index)
        raise
    child.umem = UmemOdp(child, lambda: _free_if_empty(memory, child))
    yield from child.umem.notifier.insert()
    return child


def _publish(memory: ImplicitUmem, used: list[Mr]) -> Steps[None]:
    """One update of the parent for all GiB from the first to the last child used."""
    slots = [child.address >> IMPLICIT_SHIFT for child in used]
    thread = memory.region.pd.context.driver.thread
    yield from memory.mutex.acquire(thread)
    try:
        keys = [memory.children[slot].key if slot in memory.children else 0 for slot in range(slots[0], slots[-1] + 1)]
        yield from update_mtt(memory.region, slots[0], np.array(keys, np.int64))
    finally:
        memory.mutex.release(thread)


# Children that are empty ----------------------------------------------------------------------------------------------


def _free_if_empty(memory: ImplicitUmem, child: Mr) -> None:
    """``destroy_unused_implicit_child_mr``: leave it to a worker, for this may be a notifier."""
    inside = child_memory(child)
    if inside.mapped or inside.faults or inside.dying or memory.dying:
        return
    memory.begin_fault()
    memory.region.pd.context.driver.scheduler.spawn(_free_work(memory, child), "kworker/free-implicit-child")


def _free_work(memory: ImplicitUmem, child: Mr) -> Steps[None]:
    """``free_implicit_child_mr_work``: the parent's entry first, then the child, unless it is used again."""
    slot = child.address >> IMPLICIT_SHIFT
    inside = child_memory(child)
    thread = memory.region.pd.context.driver.thread
    try:
        yield from memory.mutex.acquire(thread)
        try:
            if inside.mapped or inside.faults or memory.children.get(slot) is not child:
                return
            del memory.children[slot]
            yield from update_mtt(memory.region, slot, np.zeros(1, np.int64))
        finally:
            memory.mutex.release(thread)
        yield from _free(child)
    finally:
        memory.end_fault()


def _free(child: Mr) -> Steps[None]:
    yield from umem_odp.release(child_memory(child), mkey.destroy(child))
    mkey.give(child.device, child.index)
