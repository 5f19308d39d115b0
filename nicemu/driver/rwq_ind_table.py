"""Indirection tables of receive work queues (``mlx5_ib_create_rwq_ind_table``)."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi.command import Command
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.wq import Wq


@dataclass(eq=False, slots=True)
class IndTable:
    """``users``: RSS QPs that hash into it."""

    context: Context
    number: int
    wqs: tuple[Wq, ...]
    handle: int = 0
    users: int = 0


def create(context: Context, log_size: int, wqs: tuple[Wq, ...]) -> Steps[IndTable]:
    """A table of ``1 << log_size`` entries.

    EINVAL: larger than the device has, not one WQ for each entry, a WQ of another context. ENOMEM: out of tables.
    EOPNOTSUPP: no such tables.
    """
    device = context.device
    raw = device.profile.raw_packet
    if raw is None or not raw.max_rwq_indirection_tables:
        raise DriverError(errno.EOPNOTSUPP, "indirection table: the device does not have them")
    most = raw.max_rwq_indirection_table_size
    if not 0 <= log_size < most.bit_length() or len(wqs) != 1 << log_size:
        raise DriverError(errno.EINVAL, f"indirection table: {len(wqs)} WQs, log size {log_size}, at most {most}")
    if any(queue.context is not context for queue in wqs):
        raise DriverError(errno.EINVAL, "indirection table: a WQ of another context")
    table = IndTable(context, device.rqt_numbers.take(), wqs)
    numbers = struct.pack(f"<{len(wqs)}q", *(queue.number for queue in wqs))
    try:
        yield from device.commands.execute(Command.CREATE_RQT, table.number, len(wqs), mailbox=numbers)
    except DriverError:
        device.rqt_numbers.give(table.number)
        raise
    for queue in wqs:
        queue.users += 1
    table.handle = context.driver.ind_tables.add(table)
    return table


def destroy(table: IndTable) -> Steps[None]:
    """EBUSY: an RSS QP uses it."""
    if table.users:
        raise DriverError(errno.EBUSY, f"indirection table: {table.users} QPs use it")
    device = table.context.device
    table.context.driver.ind_tables.remove(table.handle)
    yield from device.commands.execute(Command.DESTROY_RQT, table.number)
    for queue in table.wqs:
        queue.users -= 1
    device.rqt_numbers.give(table.number)
