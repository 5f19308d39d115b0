"""Multicast membership of UD QPs (``ib_attach_mcast, ib_uverbs_attach_mcast``)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nicemu.abi.command import Command
from nicemu.abi.verbs import QpType
from nicemu.driver.ah import HALVES, is_multicast
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.qp import Qp


def _check(pair: Qp, gid: bytes) -> None:
    if pair.type != QpType.UD:
        raise DriverError(errno.EINVAL, f"multicast: a {pair.type.name} QP cannot be a member, UD can")
    if len(gid) != 16 or not is_multicast(gid):
        raise DriverError(errno.EINVAL, f"multicast: {gid.hex()} is not the GID of a group")


def attach(pair: Qp, gid: bytes) -> Steps[None]:
    """Join; a second time does nothing. EINVAL: not UD, no multicast GID. ENOMEM: groups or members of the device."""
    _check(pair, gid)
    if gid in pair.groups:
        return
    _check_room(pair.context.device, gid)
    pair.groups.append(gid)
    try:
        yield from pair.context.device.commands.execute(Command.ATTACH_MCAST, pair.number, *HALVES.unpack(gid))
    except DriverError:
        pair.groups.remove(gid)
        raise


def _check_room(device: IbDevice, gid: bytes) -> None:
    profile = device.profile
    if not profile.max_mcast_grp:
        raise DriverError(errno.EOPNOTSUPP, "multicast: the device has no groups")
    groups = [group for pair in device.qps.values() for group in pair.groups]
    if len(groups) >= profile.max_total_mcast_qp_attach or groups.count(gid) >= profile.max_mcast_qp_attach:
        raise DriverError(errno.ENOMEM, "multicast: all memberships of the device are in use")
    if gid not in groups and len(set(groups)) >= profile.max_mcast_grp:
        raise DriverError(errno.ENOMEM, "multicast: all groups of the device are in use")


def detach(pair: Qp, gid: bytes) -> Steps[None]:
    """Leave. EINVAL: not a member."""
    _check(pair, gid)
    if gid not in pair.groups:
        raise DriverError(errno.EINVAL, f"multicast: QP {pair.number} is not a member of {gid.hex()}")
    pair.groups.remove(gid)
    yield from pair.context.device.commands.execute(Command.DETACH_MCAST, pair.number, *HALVES.unpack(gid))
