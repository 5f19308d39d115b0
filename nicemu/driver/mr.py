"""Memory regions (``mlx5_ib_reg_user_mr``): checks, pinned or on demand; null regions and regions of device memory.

Left out: huge pages of on-demand regions.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nicemu.abi.command import IMPLICIT_BITS, MkeyFlag
from nicemu.abi.verbs import PAGE_SIZE, Access
from nicemu.driver import dmabuf, implicit, mkey, umem, umem_odp
from nicemu.driver.counters import MrCounters
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.dm import Dm
    from nicemu.driver.pd import Pd
    from nicemu.mm.dma_buf import DmaBuf

KEY_BITS = mkey.KEY_BITS
ADDRESS_END = 1 << 64
WHOLE_ADDRESS_SPACE = ADDRESS_END - 1
WRITABLE = int(Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_ATOMIC | Access.MW_BIND)
"""``ib_access_writable``. An int, as what a page fault asks must not be an enum: their operators cost a microsecond."""
OPTIONAL = ((1 << 10) - 1) << 20
"""``IB_ACCESS_OPTIONAL``: bits a driver may ignore, RELAXED_ORDERING among them."""
KNOWN = sum(Access) | OPTIONAL


@dataclass(eq=False, slots=True)
class Mr:
    """A region. ``key`` is lkey and rkey: mkey index << 8 | variant. ``number``: order of registration, for logs.

    ``umem`` is None for null regions, device memory, and what a failed re-registration left.
    """

    pd: Pd
    index: int
    key: int
    number: int
    address: int
    length: int
    iova: int
    access: int
    umem: umem.Umem | umem_odp.UmemOdp | implicit.ImplicitUmem | dmabuf.UmemDmabuf | None = None
    dm: Dm | None = None
    handle: int = 0
    counters: MrCounters = field(default_factory=MrCounters)

    @property
    def device(self) -> IbDevice:
        """The device it is registered with."""
        return self.pd.context.device

    @property
    def on_demand(self) -> bool:
        """The program asked for pages that come by page faults."""
        return bool(self.access & Access.ON_DEMAND)

    @property
    def implicit(self) -> bool:
        """It is the whole address space."""
        return self.length == WHOLE_ADDRESS_SPACE

    @property
    def writable(self) -> bool:
        """The device may write to it."""
        return self.access & WRITABLE != 0

    @property
    def device_length(self) -> int:
        """What the device takes for its length: of the whole address space, the part that programs have."""
        return 1 << IMPLICIT_BITS if self.implicit else self.length

    @property
    def flags(self) -> int:
        """``MkeyFlag`` of its key."""
        if self.dm is not None:
            return MkeyFlag.DEVICE_MEMORY
        faults = self.on_demand or isinstance(self.umem, dmabuf.UmemDmabuf)
        return (MkeyFlag.ODP if faults else 0) | (MkeyFlag.IMPLICIT if self.implicit else 0)


def check_access(access: int) -> None:
    """``ib_check_mr_access``: EINVAL."""
    if access & (Access.REMOTE_WRITE | Access.REMOTE_ATOMIC) and not access & Access.LOCAL_WRITE:
        raise DriverError(errno.EINVAL, "MR: remote write and atomic access need local write access")
    if access & ~KNOWN:
        raise DriverError(errno.EINVAL, f"MR: unknown access flags {access & ~KNOWN:#x}")


def forced(device: IbDevice, length: int, access: int) -> int:
    """``access``, on demand as well under ``force_odp``. Huge pages cannot be on demand; the whole address space only
    a program can mean."""
    if not device.driver.options.force_odp or access & Access.HUGETLB or length == WHOLE_ADDRESS_SPACE:
        return access
    return access | Access.ON_DEMAND


def check(device: IbDevice, address: int, length: int, access: int, iova: int) -> None:
    """``ib_check_mr_access, ib_umem_get, mlx5_ib_reg_user_mr``: EINVAL or EOPNOTSUPP before anything is touched."""
    check_access(access)
    lacks = device.profile.software.lacks
    if access & Access.ZERO_BASED and "zero_based" in lacks:
        raise DriverError(errno.EOPNOTSUPP, "MR: zero-based regions are not supported")
    if access & Access.FLUSH_PERSISTENT and "persistent_memory" in lacks:
        raise DriverError(errno.EINVAL, "MR: the memory is not persistent")
    if access & Access.ON_DEMAND and access & Access.HUGETLB:
        raise DriverError(errno.EOPNOTSUPP, "MR: on-demand memory of huge pages is not supported")
    if access & Access.ON_DEMAND and length == WHOLE_ADDRESS_SPACE:
        if not device.profile.odp.implicit:
            raise DriverError(errno.EINVAL, "MR: the device has no regions of the whole address space")
        if address or iova:
            raise DriverError(errno.EINVAL, "MR: the whole address space begins at 0")
        return
    if length <= 0 or address < 0 or address + length > ADDRESS_END - PAGE_SIZE:
        raise DriverError(errno.EINVAL, f"MR: no range of {length} bytes at {address:#x}")
    if not 0 <= iova <= ADDRESS_END - length:
        raise DriverError(errno.EINVAL, f"MR: no {length} bytes can be at iova {iova:#x}")
    if length > device.profile.max_mr_size:
        raise DriverError(errno.EINVAL, f"MR: {length} bytes, the device has {device.profile.max_mr_size}")


def create(pd: Pd, address: int, length: int, access: int, iova: int) -> Mr:
    """A region with a key, unknown to the device yet. ENOMEM: out of keys."""
    driver = pd.context.driver
    index, key = mkey.take(pd.context.device)
    region = Mr(pd, index, key, len(driver.mr_counters) + 1, address, length, iova, access)
    driver.mr_counters[region.number] = region.counters
    region.counters.device = pd.context.device.name
    pd.users += 1
    return region


def discard(region: Mr) -> None:
    """Undo :func:`create`."""
    region.pd.users -= 1
    mkey.give(region.device, region.index)


def register(pd: Pd, address: int, length: int, access: int, iova: int) -> Steps[Mr]:
    """A region of [address, address + length) that the device calls ``iova`` (0 if it is zero-based).

    EINVAL: bad flags or range. EFAULT: pinned memory that is not mapped (or not writable). ENOMEM: out of keys.
    """
    driver = pd.context.driver
    iova = 0 if access & Access.ZERO_BASED else iova
    access = forced(pd.context.device, length, access)
    check(pd.context.device, address, length, access, iova)
    region = create(pd, address, length, access, iova)
    try:
        yield from attach(region)
    except DriverError:
        discard(region)
        raise
    region.handle = driver.mrs.add(region)
    return region


def attach(region: Mr) -> Steps[None]:
    """Give a new region its key and its memory; an error leaves neither."""
    if region.implicit:
        region.umem = yield from implicit.create(region)
        return
    region.pd.context.mm.adopt(region.address, region.length)
    pinned = None if region.on_demand else (yield from umem.pin(region))
    try:
        yield from mkey.create(region, region.flags, pinned.page_shift if pinned else 0)
        try:
            yield from fill(region, pinned)
        except DriverError:
            yield from mkey.destroy(region)
            raise
    except DriverError:
        if pinned is not None:
            umem.release(region, pinned)
        raise


def fill(region: Mr, pinned: umem.Umem | None) -> Steps[None]:
    """The device knows the key: give it the translations."""
    if pinned is not None:
        yield from umem.give_to_device(region, pinned)
    region.umem = pinned or (yield from umem_odp.create(region))


def register_null(pd: Pd) -> Steps[Mr]:
    """``ib_alloc_null_mr``: an lkey for any address; writes to it vanish, reads of it are zeros."""
    region = create(pd, 0, 0, Access.LOCAL_WRITE, 0)
    yield from _create_bare(region, MkeyFlag.NULL, 0)
    return region


def register_dm(pd: Pd, dm: Dm, offset: int, length: int, access: int) -> Steps[Mr]:
    """``ib_reg_dm_mr``: part of device memory. EINVAL: not zero-based, another context, or outside of it."""
    check_access(access)
    if not access & Access.ZERO_BASED or access & Access.ON_DEMAND:
        raise DriverError(errno.EINVAL, "MR of device memory: expected zero-based, not on demand")
    if dm.context is not pd.context or not 0 <= offset <= dm.length or not 0 <= length <= dm.length - offset:
        raise DriverError(errno.EINVAL, f"MR of device memory: no {length} bytes at {offset} of {dm.length}")
    region = create(pd, 0, length, access, 0)
    region.dm = dm
    dm.users += 1
    yield from _create_bare(region, MkeyFlag.DEVICE_MEMORY, dm.offset + offset)
    return region


def register_dmabuf(pd: Pd, buffer: DmaBuf, offset: int, length: int, iova: int, access: int) -> Steps[Mr]:
    """``mlx5_ib_reg_user_mr_dmabuf``: part of a dma-buf, which the device calls ``iova``. EINVAL: see
    :func:`nicemu.driver.dmabuf.check`. ENOMEM: out of keys."""
    check_access(access)
    dmabuf.check(pd.context.device, buffer, (offset, length), iova, access)
    region = create(pd, offset, length, access, iova)
    try:
        yield from dmabuf.create(region, buffer)
    except DriverError:
        discard(region)
        raise
    region.handle = pd.context.driver.mrs.add(region)
    return region


def _create_bare(region: Mr, flags: int, device_offset: int) -> Steps[None]:
    try:
        yield from mkey.create(region, flags, 0, device_offset)
    except DriverError:
        if region.dm is not None:
            region.dm.users -= 1
        discard(region)
        raise
    region.handle = region.pd.context.driver.mrs.add(region)


def deregister(region: Mr) -> Steps[None]:
    """``mlx5_ib_dereg_mr``: no new faults, wait for those that run, then the key, then the memory. EINVAL: windows are
    bound to it (rxe_dereg_mr, IBA 10.6.7.2.6); it stays."""
    handles = region.pd.context.driver.mrs
    handles.remove(region.handle)
    memory = region.umem
    try:
        if isinstance(memory, implicit.ImplicitUmem):
            yield from implicit.destroy(region, memory)
        elif isinstance(memory, umem_odp.UmemOdp):
            yield from umem_odp.destroy(region, memory)
        elif isinstance(memory, dmabuf.UmemDmabuf):
            yield from dmabuf.destroy(region, memory)
        else:
            yield from mkey.destroy(region)
    except DriverError:
        handles.restore(region.handle, region)
        raise
    if isinstance(memory, umem.Umem):
        umem.release(region, memory)
    if region.dm is not None:
        region.dm.users -= 1
    discard(region)
