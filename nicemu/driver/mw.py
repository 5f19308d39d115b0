"""Memory windows (``mlx5_ib_alloc_mw``): keys that open nothing until a work request binds them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi.command import Command, MkeyFlag
from nicemu.driver import mkey
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.pd import Pd

TYPES = {1: MkeyFlag.MW_TYPE_1, 2: MkeyFlag.MW_TYPE_2}
KEY_BYTES = 8


@dataclass(eq=False, slots=True)
class Mw:
    """A window. ``key``: its first R_Key; binding changes the low eight bits."""

    pd: Pd
    type: int
    index: int
    key: int
    handle: int = 0


def allocate(pd: Pd, kind: int) -> Steps[Mw]:
    """EINVAL: no such type. ENOMEM: ``max_mw`` exist, or out of keys."""
    device = pd.context.device
    if kind not in TYPES:
        raise DriverError(errno.EINVAL, f"MW: no type {kind}")
    if device.mw_count >= device.profile.max_mw:
        raise DriverError(errno.ENOMEM, "all memory windows of the device are in use")
    window = Mw(pd, kind, *mkey.take(device))
    device.mw_count += 1
    pd.users += 1
    try:
        yield from device.commands.execute(
            Command.CREATE_MKEY, window.index, window.key, pd.number, 0, 0, 0, TYPES[kind], 0
        )
    except DriverError:
        _forget(window)
        raise
    window.handle = pd.context.driver.mws.add(window)
    return window


def deallocate(window: Mw) -> Steps[None]:
    """Bound or not: returns when no DMA goes through it any more. The program has changed the key's variant, so the
    device tells the last one, for the next key of this index to be another."""
    device = window.pd.context.device
    window.pd.context.driver.mws.remove(window.handle)
    reply = yield from device.commands.execute(Command.DESTROY_MKEY, window.index, reply_bytes=KEY_BYTES)
    device.key_variants[window.index] = reply[0]
    _forget(window)


def _forget(window: Mw) -> None:
    device = window.pd.context.device
    device.mw_count -= 1
    window.pd.users -= 1
    mkey.give(device, window.index)
