"""Address handles (``rdma_create_user_ah``): checked address vectors.

The vector is any object with the fields of ``ibv_ah_attr``: ``is_global, port_num, sgid_index, dgid``.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.driver.errors import DriverError

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.pd import Pd

PORTS = 1


@dataclass(eq=False, slots=True)
class Ah:
    """An address vector for UD sends."""

    pd: Pd
    vector: Any
    handle: int = 0


def check_vector(device: IbDevice, vector: Any) -> None:
    """``rdma_check_ah_attr, rdma_fill_sgid_attr``: port, GRH (a must on RoCE) and source GID."""
    if not 1 <= vector.port_num <= PORTS:
        raise DriverError(errno.EINVAL, f"address: port {vector.port_num} does not exist")
    if not vector.is_global or vector.dgid is None:
        raise DriverError(errno.EINVAL, "address: RoCE needs a global route (GRH)")
    gids = device.device.gids
    if not 0 <= vector.sgid_index < len(gids) or gids[vector.sgid_index] is None:
        raise DriverError(errno.EINVAL, f"address: GID table has no entry {vector.sgid_index}")


def create(pd: Pd, vector: Any) -> Ah:
    """EINVAL: a vector that RoCE cannot use. ENOMEM: ``max_ah`` exist."""
    device = pd.context.device
    check_vector(device, vector)
    if device.ah_count >= device.profile.max_ah:
        raise DriverError(errno.ENOMEM, "all address handles of the device are in use")
    created = Ah(pd, vector)
    created.handle = pd.context.driver.ahs.add(created)
    device.ah_count += 1
    pd.users += 1
    return created


def destroy(handle: Ah) -> None:
    """Forget it."""
    context = handle.pd.context
    context.driver.ahs.remove(handle.handle)
    context.device.ah_count -= 1
    handle.pd.users -= 1
