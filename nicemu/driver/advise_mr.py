"""Prefetch (``mlx5_ib_advise_mr_prefetch``): advices 0 read, 1 write, 2 without faulting; flag FLUSH waits for it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver import umem_odp
from nicemu.driver.errors import DriverError
from nicemu.driver.mr import KEY_BITS
from nicemu.driver.umem import page_span
from nicemu.mm.page import Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr
    from nicemu.driver.pd import Pd

PREFETCH, PREFETCH_WRITE, PREFETCH_NO_FAULT = range(3)
FLUSH = 1
Sges = tuple[tuple[int, int, int], ...]


def advise(pd: Pd, advice: int, flags: int, sges: Sges) -> Steps[None]:
    """EINVAL: unknown advice or flag. ENOENT: no on-demand region has that lkey. EPERM: another PD, or write advice for
    a read-only region. EFAULT: outside the region, or (with FLUSH) a page that cannot be had.

    Without FLUSH the work goes on in the background and its errors are dropped. PREFETCH_NO_FAULT maps nothing here:
    the model has no snapshot of present pages yet.
    """
    if advice not in (PREFETCH, PREFETCH_WRITE, PREFETCH_NO_FAULT) or flags & ~FLUSH:
        raise DriverError(errno.EINVAL, f"advise MR: advice {advice}, flags {flags:#x}")
    ranges = [(_region(pd, advice, sge), sge[0], sge[1]) for sge in sges]
    if advice == PREFETCH_NO_FAULT:
        return
    for region, address, length in ranges:
        assert isinstance(region.umem, umem_odp.UmemOdp)
        umem_odp.begin_fault(region.umem)
        work = _prefetch(region, region.umem, address, length, advice == PREFETCH_WRITE)
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


def _prefetch(region: Mr, memory: umem_odp.UmemOdp, address: int, length: int, write: bool) -> Steps[Fault | None]:
    driver = region.pd.context.driver
    first, pages = page_span(address - region.iova + region.address, length)
    try:
        yield driver.costs.driver_fault_ns
        yield from umem_odp.map_pages(memory, (first - memory.start) >> PAGE_SHIFT, pages, write, {})
        region.counters.page_prefetch += pages
    except Fault as error:
        return error
    finally:
        umem_odp.end_fault(memory)
    return None
