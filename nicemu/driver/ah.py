"""Address vectors and handles (``rdma_create_user_ah``), and which GIDs are multicast groups.

A vector is any object with the fields of ``ibv_ah_attr``: ``is_global, port_num, sgid_index, dgid, flow_label,
traffic_class, hop_limit, sl``.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import ADDRESS_VECTOR, AvField, Command
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.pd import Pd

PORTS = PKEYS = 1  # a device has one port, its P_Key table one entry
V4_MAPPED = bytes(10) + b"\xff\xff"
HALVES = struct.Struct(">qq")
"""The two halves of a GID as the device takes them."""


@dataclass(eq=False, slots=True)
class Ah:
    """An address vector for UD sends. ``number``: what a send WQE calls it."""

    pd: Pd
    vector: Any
    number: int
    handle: int = 0


def is_multicast(gid: bytes) -> bool:
    """``rdma_is_multicast_addr``: IPv6 ff00::/8, or an IPv4 group (224.0.0.0/4) mapped into IPv6."""
    return gid[0] == 0xFF or (gid[:12] == V4_MAPPED and gid[12] >> 4 == 0xE)


def check_vector(device: IbDevice, vector: Any) -> None:
    """``rdma_check_ah_attr, rdma_fill_sgid_attr``: port, GRH (a must on RoCE) and source GID."""
    if not 1 <= vector.port_num <= PORTS:
        raise DriverError(errno.EINVAL, f"address: port {vector.port_num} does not exist")
    if not vector.is_global or vector.dgid is None:
        raise DriverError(errno.EINVAL, "address: RoCE needs a global route (GRH)")
    gids = device.device.gids
    if not 0 <= vector.sgid_index < len(gids) or gids[vector.sgid_index] is None:
        raise DriverError(errno.EINVAL, f"address: GID table has no entry {vector.sgid_index}")


def words(device: IbDevice, vector: Any) -> dict[AvField, int]:
    """The device's words of a vector. A GID that no device has is NIC 0: packets to it are lost."""
    high, low = HALVES.unpack(vector.dgid)
    group = is_multicast(vector.dgid)
    return {
        AvField.DEST_NIC: 0 if group else device.device.route(vector.dgid), AvField.SGID_INDEX: vector.sgid_index,
        AvField.DGID_HIGH: high, AvField.DGID_LOW: low, AvField.FLOW_LABEL: vector.flow_label,
        AvField.TRAFFIC_CLASS: vector.traffic_class, AvField.HOP_LIMIT: vector.hop_limit, AvField.SL: vector.sl,
        AvField.MULTICAST: int(group),
    }  # fmt: skip


def create(pd: Pd, vector: Any) -> Steps[Ah]:
    """EINVAL: a vector that RoCE cannot use. ENOMEM: ``max_ah`` exist."""
    device = pd.context.device
    check_vector(device, vector)
    created = Ah(pd, vector, device.ah_numbers.take())
    pd.users += 1
    fields = words(device, vector)
    try:
        mailbox = ADDRESS_VECTOR.pack(*(fields[field] for field in AvField))
        yield from device.commands.execute(Command.CREATE_AH, created.number, pd.number, mailbox=mailbox)
    except DriverError:
        _release(created)
        raise
    created.handle = pd.context.driver.ahs.add(created)
    return created


def destroy(handle: Ah) -> Steps[None]:
    """Datagrams that are on their way keep their address."""
    context = handle.pd.context
    context.driver.ahs.remove(handle.handle)
    yield from context.device.commands.execute(Command.DESTROY_AH, handle.number)
    _release(handle)


def _release(handle: Ah) -> None:
    handle.pd.users -= 1
    handle.pd.context.device.ah_numbers.give(handle.number)
