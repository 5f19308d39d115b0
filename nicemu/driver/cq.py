"""Completion queues (``mlx5_ib_create_cq``, ``mlx5_ib_resize_cq``, ``mlx5_ib_modify_cq``)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import Command, CqFlag, RingOwner
from nicemu.abi.rings import CQE_BYTES, Eqn, cq_slots
from nicemu.driver import program_ring
from nicemu.driver.errors import DriverError
from nicemu.driver.pd import Pd
from nicemu.driver.program_ring import Placed, Places
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context


@dataclass(eq=False, slots=True)
class Cq:
    """``users``: queues of QPs, and XRC SRQs, that complete into it. ``comp_handler`` gets its handle at each event."""

    context: Context
    number: int
    cqe: int
    slots: int
    ring: Memory
    record: Memory
    comp_handler: Callable[[int], None] | None = None
    handle: int = 0
    users: int = 0
    parent_domain: Pd | None = None
    placed: Placed | None = None
    """Ring and record in memory of the program."""


MAX_MODERATION_COUNT, MAX_MODERATION_US = 65535, 4095
"""``ibv_cq_moderation_caps``: 16 bits of count and 12 of period, as in mlx5's CQ context."""


def slots_for(context: Context, cqe: int) -> int:
    """Ring slots for at least ``cqe`` entries: a power of two, one of them kept free as mlx5 does. EINVAL: too many."""
    most = context.device.profile.max_cqe
    if not 1 <= cqe <= most:
        raise DriverError(errno.EINVAL, f"CQ: {cqe} entries, the device has 1 to {most}")
    return cq_slots(cqe)


def create(context: Context, cqe: int, comp_vector: int, comp_handler: Callable[[int], None] | None,
           ignore_overrun: bool = False, home: tuple[Pd, Places] | None = None) -> Steps[Cq]:  # fmt: skip
    """A CQ for at least ``cqe`` entries.

    ``home``: a parent domain, and where in the program's memory ring and record lie: errors as of
    ``program_ring.hold``. EINVAL: ``cqe`` out of 1..max_cqe, no such vector. ENOMEM: ``max_cq`` exist. EOPNOTSUPP:
    ``ignore_overrun``, and the device lacks it.
    """
    device, driver = context.device, context.driver
    slots = slots_for(context, cqe)
    if not 0 <= comp_vector < device.profile.num_comp_vectors:
        raise DriverError(errno.EINVAL, f"CQ: no completion vector {comp_vector}")
    if ignore_overrun and "ignore_overrun" in device.profile.software.lacks:
        raise DriverError(errno.EOPNOTSUPP, "CQ: that an overrun is ignored is not supported")
    if home is not None:
        program_ring.check_context(home[0], context)
    number = device.cq_numbers.take()
    queue = Cq(context, number, slots - 1, slots, driver.allocate(slots * CQE_BYTES), device.records.take(),
               comp_handler)  # fmt: skip
    try:
        yield from device.commands.execute(
            Command.CREATE_CQ, number, queue.ring.address, slots, queue.record.address, Eqn.COMPLETION + comp_vector,
            CqFlag.IGNORE_OVERRUN if ignore_overrun else 0,
        )  # fmt: skip
    except DriverError:
        _release(queue)
        raise
    if home is not None:
        yield from _settle(queue, *home)
    queue.handle = driver.cqs.add(queue)
    device.cqs[number] = queue
    return queue


def _settle(queue: Cq, pd: Pd, places: Places) -> Steps[None]:
    """Ring and record in memory of the program; the parent domain is in use."""
    queue.parent_domain = pd
    pd.users += 1
    if not places:
        return
    commands, size = queue.context.device.commands, queue.slots * CQE_BYTES
    try:
        queue.placed = yield from program_ring.place(pd, RingOwner.CQ, queue.number, places, size)
    except DriverError:
        yield from commands.execute(Command.DESTROY_CQ, queue.number)
        _release(queue)
        raise


def views(queue: Cq) -> tuple[Any, Any]:
    """Ring and doorbell record as the library sees them."""
    placed = queue.placed or Placed()
    return (placed.ring or queue.ring).view, (placed.record or queue.record).view


def resize(queue: Cq, cqe: int) -> Steps[None]:
    """A ring for at least ``cqe`` entries; those that wait are in it, in order.

    EINVAL: out of 1..max_cqe, or more than ``cqe`` wait (``ibv_resize_cq(3)``); the CQ is then as before. EOPNOTSUPP:
    the ring lies in memory of the program.
    """
    if queue.placed is not None and queue.placed.ring is not None:
        raise DriverError(errno.EOPNOTSUPP, "CQ: its ring is the program's")
    slots = slots_for(queue.context, cqe)
    ring = queue.context.driver.allocate(slots * CQE_BYTES)
    yield from queue.context.device.commands.execute(Command.RESIZE_CQ, queue.number, ring.address, slots, cqe)
    queue.cqe, queue.slots, queue.ring = slots - 1, slots, ring


def moderate(queue: Cq, count: int, period_us: int) -> Steps[None]:
    """``rdma_set_cq_moderation``: events after ``count`` CQEs or ``period_us``; 0, 0: after each. EINVAL: too many."""
    if not (0 <= count <= MAX_MODERATION_COUNT and 0 <= period_us <= MAX_MODERATION_US):
        limits = f"{MAX_MODERATION_COUNT} CQEs and {MAX_MODERATION_US} us"
        raise DriverError(errno.EINVAL, f"CQ moderation: {count} CQEs, {period_us} us; the device has {limits}")
    yield from queue.context.device.commands.execute(Command.MODIFY_CQ, queue.number, count, period_us)


def destroy(queue: Cq) -> Steps[None]:
    """EBUSY: a QP uses it."""
    if queue.users:
        raise DriverError(errno.EBUSY, f"CQ: {queue.users} queues of QPs still use it")
    context = queue.context
    context.driver.cqs.remove(queue.handle)
    del context.device.cqs[queue.number]
    yield from context.device.commands.execute(Command.DESTROY_CQ, queue.number)
    if queue.placed is not None:
        yield from program_ring.release(queue.placed)
    _release(queue)


def _release(queue: Cq) -> None:
    device = queue.context.device
    if queue.parent_domain is not None:
        queue.parent_domain.users -= 1
    device.records.give(queue.record)
    device.cq_numbers.give(queue.number)
