"""Memory regions (``mlx5_ib_reg_user_mr``): checks, memory keys, pinned or on demand.

Left out: implicit regions, memory windows, device memory, huge pages, re-registration.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nicemu.abi.command import Command, MkeyFlag
from nicemu.abi.verbs import PAGE_SIZE, Access
from nicemu.driver import umem, umem_odp
from nicemu.driver.counters import MrCounters
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.pd import Pd

KEY_BITS, VARIANTS = 8, 256
ADDRESS_END = 1 << 64
WRITABLE = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_ATOMIC | Access.MW_BIND
"""``ib_access_writable``."""
UNSUPPORTED = Access.MW_BIND | Access.HUGETLB
OPTIONAL = ((1 << 10) - 1) << 20
"""``IB_ACCESS_OPTIONAL``: bits a driver may ignore, RELAXED_ORDERING among them."""
KNOWN = sum(Access) | OPTIONAL


@dataclass(eq=False, slots=True)
class Mr:
    """A region. ``key`` is lkey and rkey: mkey index << 8 | variant. ``number``: order of registration, for logs."""

    pd: Pd
    index: int
    key: int
    number: int
    address: int
    length: int
    iova: int
    access: int
    umem: umem.Umem | umem_odp.UmemOdp | None = None
    handle: int = 0
    counters: MrCounters = field(default_factory=MrCounters)

    @property
    def device(self) -> IbDevice:
        """The device it is registered with."""
        return self.pd.context.device

    @property
    def on_demand(self) -> bool:
        """Its pages come by page faults."""
        return bool(self.access & Access.ON_DEMAND)

    @property
    def writable(self) -> bool:
        """The device may write to it."""
        return bool(self.access & WRITABLE)


def check(device: IbDevice, address: int, length: int, access: int, iova: int) -> None:
    """``ib_check_mr_access, ib_umem_get``: EINVAL or EOPNOTSUPP before anything is touched."""
    if access & (Access.REMOTE_WRITE | Access.REMOTE_ATOMIC) and not access & Access.LOCAL_WRITE:
        raise DriverError(errno.EINVAL, "MR: remote write and atomic access need local write access")
    if access & ~KNOWN:
        raise DriverError(errno.EINVAL, f"MR: unknown access flags {access & ~KNOWN:#x}")
    if access & UNSUPPORTED:
        raise DriverError(errno.EOPNOTSUPP, f"MR: access flags {access & UNSUPPORTED:#x} are not supported")
    if length <= 0 or address < 0 or address + length > ADDRESS_END - PAGE_SIZE:
        raise DriverError(errno.EINVAL, f"MR: no range of {length} bytes at {address:#x}")
    if length > device.profile.max_mr_size:
        raise DriverError(errno.EINVAL, f"MR: {length} bytes, the device has {device.profile.max_mr_size}")
    if (address ^ iova) % PAGE_SIZE:
        raise DriverError(errno.EINVAL, "MR: address and iova differ in their offset within a page")


def register(pd: Pd, address: int, length: int, access: int, iova: int) -> Steps[Mr]:
    """A region of [address, address + length) that the device calls ``iova``.

    EINVAL: bad flags or range. EFAULT: pinned memory that is not mapped (or not writable). ENOMEM: out of keys.
    """
    driver, device = pd.context.driver, pd.context.device
    check(device, address, length, access, iova)
    if driver.options.force_odp:
        access |= Access.ON_DEMAND
    index = device.mkey_numbers.take()
    variant = device.key_variants.get(index, -1) + 1 & VARIANTS - 1
    device.key_variants[index] = variant
    key = index << KEY_BITS | variant
    region = Mr(pd, index, key, len(driver.mr_counters) + 1, address, length, iova, access)
    driver.mr_counters[region.number] = region.counters
    pd.users += 1
    try:
        pd.context.mm.adopt(address, length)
        flags = MkeyFlag.ODP if region.on_demand else 0
        yield from device.commands.execute(
            Command.CREATE_MKEY, index, key, pd.number, iova, length, access, flags, region.number
        )
        try:
            region.umem = yield from (umem_odp.create(region) if region.on_demand else umem.create(region))
        except DriverError:
            yield from device.commands.execute(Command.DESTROY_MKEY, index)
            raise
    except DriverError:
        pd.users -= 1
        device.mkey_numbers.give(index)
        raise
    region.handle = driver.mrs.add(region)
    return region


def deregister(region: Mr) -> Steps[None]:
    """``mlx5_ib_dereg_mr``: no new faults, wait for those that run, then the key, then the memory."""
    region.pd.context.driver.mrs.remove(region.handle)
    if isinstance(region.umem, umem_odp.UmemOdp):
        yield from umem_odp.release(region, region.umem)
    elif region.umem is not None:
        yield from umem.destroy_mkey(region)
        yield from umem.release(region, region.umem)
    region.pd.users -= 1
    region.device.mkey_numbers.give(region.index)
