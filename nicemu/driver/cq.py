"""Completion queues (``mlx5_ib_create_cq``)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi.command import Command
from nicemu.abi.rings import CQE_BYTES, Eqn, power_of_two
from nicemu.driver.errors import DriverError
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


def create(context: Context, cqe: int, comp_vector: int, comp_handler: Callable[[int], None] | None) -> Steps[Cq]:
    """A CQ for at least ``cqe`` entries: the ring holds a power of two, one entry is kept free as mlx5 does.

    EINVAL: ``cqe`` out of 1..max_cqe, no such vector. ENOMEM: ``max_cq`` exist.
    """
    device, driver = context.device, context.driver
    if not 1 <= cqe <= device.profile.max_cqe:
        raise DriverError(errno.EINVAL, f"CQ: {cqe} entries, the device has 1 to {device.profile.max_cqe}")
    if not 0 <= comp_vector < device.profile.num_comp_vectors:
        raise DriverError(errno.EINVAL, f"CQ: no completion vector {comp_vector}")
    slots = power_of_two(cqe + 1)
    number = device.cq_numbers.take()
    queue = Cq(context, number, slots - 1, slots, driver.allocate(slots * CQE_BYTES), device.records.take(),
               comp_handler)  # fmt: skip
    try:
        yield from device.commands.execute(
            Command.CREATE_CQ, number, queue.ring.address, slots, queue.record.address, Eqn.COMPLETION + comp_vector
        )
    except DriverError:
        _release(queue)
        raise
    queue.handle = driver.cqs.add(queue)
    device.cqs[number] = queue
    return queue


def destroy(queue: Cq) -> Steps[None]:
    """EBUSY: a QP uses it."""
    if queue.users:
        raise DriverError(errno.EBUSY, f"CQ: {queue.users} queues of QPs still use it")
    context = queue.context
    context.driver.cqs.remove(queue.handle)
    del context.device.cqs[queue.number]
    yield from context.device.commands.execute(Command.DESTROY_CQ, queue.number)
    _release(queue)


def _release(queue: Cq) -> None:
    device = queue.context.device
    device.records.give(queue.record)
    device.cq_numbers.give(queue.number)
