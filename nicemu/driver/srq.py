"""Shared receive queues (``ib_create_srq_user, ib_modify_srq``): basic ones, those of XRC, and with tag matching.

The library writes WQEs into the ring and a producer counter into the record; the device writes there how many it has
taken, and a slot is free again once its WQE is taken.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import Command, RingOwner
from nicemu.abi.rings import (
    DB_SRQ_CONSUMER,
    DB_SRQ_PRODUCER,
    RECV_HEADER_BYTES,
    SGE_BYTES,
    power_of_two,
    srq_stride,
)
from nicemu.abi.verbs import SrqType
from nicemu.driver import program_ring, tag_list
from nicemu.driver.capabilities import granted_depth
from nicemu.driver.errors import DriverError
from nicemu.driver.program_ring import Placed, Places
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.cq import Cq
    from nicemu.driver.pd import Pd
    from nicemu.driver.tag_list import TagList
    from nicemu.driver.xrcd import Xrcd

MAX_WR, LIMIT = 1, 2
"""``ibv_srq_attr_mask``."""
COUNTER = struct.Struct("<q")


@dataclass(eq=False, slots=True)
class Srq:
    """``users``: QPs that receive from it. ``xrcd, cq``: of an XRC SRQ. ``cq, tags``: of a TM-SRQ."""

    pd: Pd
    type: SrqType
    number: int
    max_wr: int
    max_sge: int
    slots: int
    stride: int
    ring: Memory
    record: Memory
    xrcd: Xrcd | None = None
    cq: Cq | None = None
    tags: TagList | None = None
    handle: int = 0
    users: int = 0
    placed: Placed | None = None
    """Ring and record in memory of the program."""

    @property
    def context(self) -> Context:
        """Who made it."""
        return self.pd.context

    @property
    def outstanding(self) -> int:
        """WQEs posted and not taken yet."""
        words = views(self)[1].cast("q")
        posted, taken = (words[at // COUNTER.size] for at in (DB_SRQ_PRODUCER, DB_SRQ_CONSUMER))
        return int(posted - taken)


def check_depth(profile: object, max_wr: int, max_sge: int) -> None:
    """``rxe_srq_chk_init``: EINVAL: no WQEs, or more or longer ones than the device has."""
    for name, value, least in (("max_wr", max_wr, 1), ("max_sge", max_sge, 0)):
        limit = getattr(profile, f"max_srq_{name.removeprefix('max_')}")
        if not least <= value <= limit:
            raise DriverError(errno.EINVAL, f"SRQ: {name} {value}, the device has {least} to {limit}")


def granted(profile: Any, max_wr: int, max_sge: int) -> tuple[int, int]:
    """What an SRQ has for what was asked (``rxe_srq_from_init``)."""
    return granted_depth(profile, max_wr), max(max_sge, 1) if profile.software.power_of_two_queues else max_sge


def create(pd: Pd, kind: int, size: tuple[int, int], xrcd: Xrcd | None = None, cq: Cq | None = None,
           matching: tuple[int, int] = (0, 0), places: Places | None = None) -> Steps[Srq]:  # fmt: skip
    """``size``: WQEs, SGEs of each. ``matching``: tags and operations of a TM-SRQ. The limit is never armed by
    creation, as in the specification.

    EINVAL: depth, no such type, an XRC SRQ without domain and CQ, a TM-SRQ without CQ or of a size that the device has
    not. ENOMEM: ``max_srq`` exist, no room for the tags. EOPNOTSUPP: no SRQs, no tag matching. ``places``: errors as of
    ``program_ring.hold``.
    """
    context, (max_wr, max_sge) = pd.context, size
    device = context.device
    srq_type = _check_type(context, kind, xrcd, cq)
    check_depth(device.profile, max_wr, max_sge)
    if srq_type == SrqType.TM:
        tag_list.check_size(device, *matching)
    max_wr, max_sge = granted(device.profile, max_wr, max_sge)
    slots, stride = power_of_two(max_wr), srq_stride(max_sge)
    number = device.srq_numbers.take()
    made = Srq(pd, srq_type, number, max_wr, max_sge, slots, stride, context.driver.allocate(slots * stride),
               device.records.take())  # fmt: skip
    if srq_type != SrqType.BASIC:
        made.xrcd, made.cq = xrcd if srq_type == SrqType.XRC else None, cq
    for user in _used(made):
        user.users += 1
    try:
        if srq_type == SrqType.TM:
            made.tags = tag_list.allocate(device, *matching)
        yield from device.commands.execute(
            Command.CREATE_SRQ, number, pd.number, made.ring.address, slots, stride, made.record.address, srq_type,
            made.xrcd.number if made.xrcd else 0, made.cq.number if made.cq else 0,
            mailbox=made.tags.mailbox() if made.tags else b"",
        )  # fmt: skip
    except DriverError:
        _release(made)
        raise
    if places:
        yield from _place(made, places)
    made.handle = context.driver.srqs.add(made)
    device.srqs[number] = made
    return made


def _place(made: Srq, places: Places) -> Steps[None]:
    """Ring and record in memory of the program."""
    try:
        made.placed = yield from program_ring.place(
            made.pd, RingOwner.SRQ, made.number, places, made.slots * made.stride
        )
    except DriverError:
        yield from made.context.device.commands.execute(Command.DESTROY_SRQ, made.number)
        _release(made)
        raise


def views(queue: Srq) -> tuple[Any, Any]:
    """Ring and doorbell record as the library sees them."""
    placed = queue.placed or Placed()
    return (placed.ring or queue.ring).view, (placed.record or queue.record).view


def _check_type(context: Context, kind: int, xrcd: Xrcd | None, cq: Cq | None) -> SrqType:
    if kind not in SrqType.__members__.values():
        raise DriverError(errno.EINVAL, f"SRQ: no type {kind}")
    profile = context.device.profile
    if not profile.max_srq or (kind == SrqType.TM and not profile.tag_matching.max_num_tags):
        raise DriverError(errno.EOPNOTSUPP, "SRQ: the device does not have them")
    if kind == SrqType.XRC and (xrcd is None or cq is None):
        raise DriverError(errno.EINVAL, "SRQ: XRC needs a domain and a CQ")
    if kind == SrqType.TM and cq is None:
        raise DriverError(errno.EINVAL, "SRQ: tag matching needs a CQ")
    if any(other is not None and other.context is not context for other in (xrcd, cq)):
        raise DriverError(errno.EINVAL, "SRQ: domain or CQ of another context")
    return SrqType(kind)


def modify(queue: Srq, size: tuple[int, int], limit: int, mask: int) -> Steps[None]:
    """``ib_modify_srq, rxe_srq_chk_attr``: MAX_WR resizes, LIMIT arms (0: disarms); both checked first.

    EINVAL: unknown mask bit, a depth the device does not have, fewer WQEs than are posted, longer WQEs than a slot of
    this SRQ has room for, a limit above the depth or a depth below the armed limit.
    """
    if mask & ~(MAX_WR | LIMIT):
        raise DriverError(errno.EINVAL, f"modify SRQ: mask {mask:#x}")
    max_wr, max_sge = size if mask & MAX_WR else (queue.max_wr, queue.max_sge)
    if mask & MAX_WR:
        profile = queue.context.device.profile
        check_depth(profile, max_wr, max_sge)
        max_wr, max_sge = granted(profile, max_wr, max_sge)
        if RECV_HEADER_BYTES + SGE_BYTES * max_sge > queue.stride:
            raise DriverError(errno.EINVAL, f"modify SRQ: slots of {queue.stride} bytes, too small for {max_sge} SGEs")
        if max_wr < queue.outstanding:
            raise DriverError(errno.EINVAL, f"modify SRQ: {queue.outstanding} WQEs are posted, {max_wr} are too few")
    armed = limit if mask & LIMIT else (yield from query(queue))
    if not 0 <= armed <= max_wr:
        raise DriverError(errno.EINVAL, f"modify SRQ: limit {armed}, depth {max_wr}")
    if mask & MAX_WR:
        yield from _resize(queue, max_wr, max_sge)
    if mask & LIMIT:
        yield from queue.context.device.commands.execute(Command.MODIFY_SRQ, queue.number, limit)


def _resize(queue: Srq, max_wr: int, max_sge: int) -> Steps[None]:
    """The device copies what is posted into the new ring; counters stay. EOPNOTSUPP: the ring is the program's."""
    context, slots = queue.context, power_of_two(max_wr)
    if slots != queue.slots:
        if queue.placed is not None and queue.placed.ring is not None:
            raise DriverError(errno.EOPNOTSUPP, "modify SRQ: its ring is the program's")
        ring = context.driver.allocate(slots * queue.stride)
        yield from context.device.commands.execute(Command.RESIZE_SRQ, queue.number, ring.address, slots)
        queue.ring, queue.slots = ring, slots
    queue.max_wr, queue.max_sge = max_wr, max_sge


def query(queue: Srq) -> Steps[int]:
    """The armed limit, 0 if it fired or was never set."""
    commands = queue.context.device.commands
    reply = yield from commands.execute(Command.QUERY_SRQ, queue.number, reply_bytes=COUNTER.size)
    return int(COUNTER.unpack(reply)[0])


def destroy(queue: Srq) -> Steps[None]:
    """EBUSY: a QP receives from it."""
    if queue.users:
        raise DriverError(errno.EBUSY, f"SRQ: {queue.users} QPs still use it")
    context = queue.context
    context.driver.srqs.remove(queue.handle)
    del context.device.srqs[queue.number]
    yield from context.device.commands.execute(Command.DESTROY_SRQ, queue.number)
    if queue.placed is not None:
        yield from program_ring.release(queue.placed)
    _release(queue)


def _used(queue: Srq) -> list[Pd | Xrcd | Cq]:
    return [used for used in (queue.pd, queue.xrcd, queue.cq) if used is not None]


def _release(queue: Srq) -> None:
    device = queue.context.device
    for used in _used(queue):
        used.users -= 1
    if queue.tags is not None:
        queue.tags.release()
    device.records.give(queue.record)
    device.srq_numbers.give(queue.number)
