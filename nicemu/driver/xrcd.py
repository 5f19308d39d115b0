"""XRC domains (``ib_uverbs_open_xrcd``): who may name whose SRQs.

A domain belongs to an inode, so that processes can share it, or to one opener. It lives in the driver: the device gets
its number.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.driver.errors import DriverError

if TYPE_CHECKING:
    from nicemu.driver.context import Context

Inode = tuple[int, int]


@dataclass(eq=False, slots=True)
class Domain:
    """What all opens of one inode share. ``opens``: how many they are."""

    number: int
    inode: Inode | None
    opens: int = 0


@dataclass(eq=False, slots=True)
class Xrcd:
    """One open of a domain. ``users``: SRQs and QPs made through it."""

    context: Context
    domain: Domain
    handle: int = 0
    users: int = 0

    @property
    def number(self) -> int:
        """The domain's number on the device."""
        return self.domain.number


def open_domain(context: Context, inode: Inode | None, flags: int) -> Xrcd:
    """The domain of an inode, or a new one that belongs to nobody else (``inode`` None). ``flags``: O_CREAT, O_EXCL.

    EAGAIN: the inode has none and O_CREAT is not set. EINVAL: it has one and O_EXCL is set. EOPNOTSUPP: no XRC.
    """
    device = context.device
    if not device.profile.max_xrcd:
        raise DriverError(errno.EOPNOTSUPP, "XRC domain: the device has no XRC")
    domain = device.xrc_domains.get(inode) if inode else None
    if inode and domain is None and not flags & os.O_CREAT:
        raise DriverError(errno.EAGAIN, "XRC domain: the file has none, and O_CREAT is not set")
    if domain is not None and flags & os.O_EXCL:
        raise DriverError(errno.EINVAL, "XRC domain: the file has one already, and O_EXCL is set")
    if domain is None:
        domain = Domain(device.xrcd_numbers.take(), inode)
        if inode:
            device.xrc_domains[inode] = domain
    domain.opens += 1
    opened = Xrcd(context, domain)
    opened.handle = context.driver.xrcds.add(opened)
    return opened


def close(opened: Xrcd) -> None:
    """The last close ends the domain. EBUSY: a QP or SRQ made through it exists."""
    if opened.users:
        raise DriverError(errno.EBUSY, f"XRC domain: {opened.users} QPs and SRQs still use it")
    device, domain = opened.context.device, opened.domain
    opened.context.driver.xrcds.remove(opened.handle)
    domain.opens -= 1
    if not domain.opens:
        if domain.inode:
            del device.xrc_domains[domain.inode]
        device.xrcd_numbers.give(domain.number)
