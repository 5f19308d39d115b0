"""Protection domains (``ib_alloc_pd``). They exist in the driver only: the device gets their numbers."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.driver.errors import DriverError

if TYPE_CHECKING:
    from nicemu.driver.context import Context


@dataclass(eq=False, slots=True)
class Pd:
    """``users``: MRs, QPs, SRQs and AHs in it (``ib_pd.usecnt``)."""

    context: Context
    number: int
    handle: int = 0
    users: int = 0


def allocate(context: Context) -> Pd:
    """ENOMEM: ``max_pd`` exist."""
    domain = Pd(context, context.device.pd_numbers.take())
    domain.handle = context.driver.pds.add(domain)
    return domain


def deallocate(domain: Pd) -> None:
    """EBUSY: something still uses it."""
    if domain.users:
        raise DriverError(errno.EBUSY, f"PD: {domain.users} objects still use it")
    domain.context.driver.pds.remove(domain.handle)
    domain.context.device.pd_numbers.give(domain.number)
