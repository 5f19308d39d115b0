"""Re-registration (``mlx5_ib_rereg_user_mr``): another PD, other memory, other rights for a region that keeps its key.

The device takes the old translations back and drains before the old memory is released. What is refused by a check
changes nothing; if the device or the memory fails after that, the region has no memory any more and can only be
deregistered (``ibv_rereg_mr``: "MR shouldn't be used").
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from nicemu.abi.command import Rereg
from nicemu.abi.verbs import PAGE_SHIFT, Access
from nicemu.driver import mkey, mr, umem, umem_odp
from nicemu.driver.errors import DriverError
from nicemu.driver.mr import Mr
from nicemu.driver.pd import Pd
from nicemu.timeline.host import Steps

ALL = int(Rereg.TRANSLATION | Rereg.PD | Rereg.ACCESS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the region shall be; a field counts only if ``flags`` (``Rereg``) name it."""

    flags: int
    pd: Pd | None
    address: int
    length: int
    iova: int
    access: int


def reregister(region: Mr, wanted: Wanted) -> Steps[None]:
    """EINVAL: bad flags, range or PD, or windows are bound to it. EOPNOTSUPP: the whole address space, null and device
    memory; on demand without new memory. EFAULT: memory that is not there."""
    new = check(region, wanted)
    mask = wanted.flags
    if mask & Rereg.ACCESS and isinstance(region.umem, umem.Umem) and new.writable and not region.writable:
        mask |= Rereg.TRANSLATION  # its pages are held for reading only
    if mask & Rereg.TRANSLATION:
        yield from _move(region, new, mask)
    else:
        old = _become(region, new)
        try:
            yield from mkey.modify(region, mask, region.flags)
        except DriverError:
            _become(region, old)
            raise


def check(region: Mr, wanted: Wanted) -> Mr:
    """The region as it shall be."""
    if wanted.flags & ~ALL or not wanted.flags:
        raise DriverError(errno.EINVAL, f"rereg MR: flags {wanted.flags:#x}")
    if not isinstance(region.umem, umem.Umem | umem_odp.UmemOdp):
        raise DriverError(errno.EOPNOTSUPP, "rereg MR: not a region of memory of its own")
    access = wanted.access if wanted.flags & Rereg.ACCESS else region.access
    address, length, iova = region.address, region.length, region.iova
    if wanted.flags & Rereg.TRANSLATION:
        address, length, iova = wanted.address, wanted.length, wanted.iova
        iova = 0 if access & Access.ZERO_BASED else iova
    if region.on_demand or wanted.flags & Rereg.TRANSLATION:
        access = mr.forced(region.device, length, access)
    if not wanted.flags & Rereg.TRANSLATION and (access ^ region.access) & (Access.ON_DEMAND | Access.ZERO_BASED):
        raise DriverError(errno.EOPNOTSUPP, "rereg MR: on demand or zero-based only together with the memory")
    pd = region.pd
    if wanted.flags & Rereg.PD:
        if wanted.pd is None or wanted.pd.context is not region.pd.context:
            raise DriverError(errno.EINVAL, "rereg MR: no PD, or a PD of another context")
        pd = wanted.pd
    mr.check(region.device, address, length, access, iova)
    if length == mr.WHOLE_ADDRESS_SPACE:
        raise DriverError(errno.EOPNOTSUPP, "rereg MR: the whole address space")
    return Mr(pd, region.index, region.key, region.number, address, length, iova, access)


def _become(region: Mr, new: Mr) -> Mr:
    """Take over what ``new`` says; gives what was."""
    old = Mr(region.pd, region.index, region.key, region.number, region.address, region.length, region.iova,
             region.access)  # fmt: skip
    region.pd.users -= 1
    new.pd.users += 1
    region.pd, region.access = new.pd, new.access
    region.address, region.length, region.iova = new.address, new.length, new.iova
    return old


def _move(region: Mr, new: Mr, mask: int) -> Steps[None]:
    """The old memory goes, then the new one comes."""
    mask |= Rereg.TRANSLATION | Rereg.ACCESS
    memory = region.umem
    on_demand = isinstance(memory, umem_odp.UmemOdp)
    if isinstance(memory, umem_odp.UmemOdp):
        yield from memory.hide()
    old = _become(region, new)
    try:
        revoke = mkey.modify(region, mask, region.flags)
        yield from umem_odp.release(memory, revoke) if isinstance(memory, umem_odp.UmemOdp) else revoke
    except DriverError:
        _become(region, old)
        if on_demand:
            memory.show()  # type: ignore[union-attr]
        raise
    if isinstance(memory, umem.Umem):
        umem.release(region, memory)
    region.umem = None
    yield from _settle(region)


def _settle(region: Mr) -> Steps[None]:
    """Memory for a region that has lost its own; without it, the key opens nothing."""
    region.pd.context.mm.adopt(region.address, region.length)
    try:
        pinned = None
        if not region.on_demand:
            pinned = yield from umem.pin(region)
            if pinned.page_shift != PAGE_SHIFT:
                yield from mkey.modify(region, Rereg.TRANSLATION, region.flags, pinned.page_shift)
        yield from mr.fill(region, pinned)
    except DriverError:
        region.address = region.length = region.iova = 0
        yield from mkey.modify(region, Rereg.TRANSLATION, 0)
        raise
