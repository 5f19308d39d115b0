"""Prefetch (``mlx5_ib_advise_mr_prefetch``): advices 0 read, 1 write, 2 without faulting; flag FLUSH waits for it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nicemu.driver.errors import DriverError
from nicemu.driver.mkey import KEY_BITS
from nicemu.driver.umem_odp import OnDemand
from nicemu.mm.page import Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr
    from nicemu.driver.pd import Pd

PREFETCH, PREFETCH_WRITE, PREFETCH_NO_FAULT = range(3)
FLUSH = 1
Sges = tuple[tuple[int, int, int], ...]


def advise(pd: Pd, advice: int, flags: int, sges: Sges) -> Steps[None]:
    """EINVAL: unknown flag. EOPNOTSUPP: unknown advice. ENOENT: no on-demand region has that lkey. EPERM: another PD,
    or write advice for a read-only region. EFAULT: outside the region, or (with FLUSH) a page that cannot be had.

    Without FLUSH the work goes on in the background and its errors are dropped.
    """
    if flags & ~FLUSH:
        raise DriverError(errno.EINVAL, f"advise MR: flags {flags:#x}")
    if sges and advice not in (PREFETCH, PREFETCH_WRITE, PREFETCH_NO_FAULT):
        raise DriverError(errno.EOPNOTSUPP, f"advise MR: no advice {advice}")
    ranges = [(_region(pd, advice, sge), sge[0], sge[1]) for sge in sges]
    for region, address, length in ranges:
        assert isinstance(region.umem, OnDemand)
        region.umem.begin_fault()
        work = _prefetch(region, region.umem, (address, length), advice)
        if flags & FLUSH:
            error = yield from work
            if error is not None:
                raise DriverError(errno.EFAULT, f"advise MR: {error.strerror}")
        else:
            pd.context.driver.scheduler.spawn(work, "kworker/prefetch")


def _region(pd: Pd, advice: int, sge: tuple[int, int, int]) -> Mr:
    """``get_prefetchable_mr``."""
    address, length, key = sge
    region = pd.context.device.odp_mkeys.get(key >> KEY_BITS)
    if region is None or region.key != key:
        raise DriverError(errno.ENOENT, f"advise MR: no on-demand region has lkey {key:#x}")
    if region.pd is not pd or (advice == PREFETCH_WRITE and not region.writable):
        raise DriverError(errno.EPERM, "advise MR: other PD, or no write access")
    if address < region.iova or address + length > region.iova + region.length:
        raise DriverError(errno.EFAULT, "advise MR: outside the region")
    return region


def _prefetch(region: Mr, memory: OnDemand, span: tuple[int, int], advice: int) -> Steps[OSError | None]:
    driver = region.pd.context.driver
    address, length = span[0] - region.iova + region.address, span[1]
    try:
        yield driver.costs.driver_fault_ns
        if not length:
            pages = 0
        elif advice == PREFETCH_NO_FAULT:
            pages = yield from memory.map_present(address, length)
        else:
            pages = yield from memory.map_range(address, length, advice == PREFETCH_WRITE, {})
        region.counters.page_prefetch += pages
    except (Fault, DriverError) as error:
        return error
    finally:
        memory.end_fault()
    return None
