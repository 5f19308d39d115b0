"""A user context (``ib_ucontext``): one open of a device by a process, and what is destroyed when it goes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.driver import ah, cq, dm, flow, mr, mw, pd, qp, rwq_ind_table, srq, wq, xrcd
from nicemu.driver.errors import DriverError
from nicemu.driver.notifier import notifiers_of
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.core import Driver
    from nicemu.driver.device import IbDevice


class Context:
    """``mm``: the address space of the process that opened the device. ``event_handler`` gets its async events."""

    def __init__(self, device: IbDevice, mm: Any) -> None:
        self.device, self.mm = device, mm
        self.driver = device.driver
        self.handle = self.driver.contexts.add(self)
        self.event_handler: Callable[[int, str, int], None] | None = None
        self.notifiers = notifiers_of(self)
        """How on-demand memory of this context hears of invalidations."""
        device.contexts.append(self)

    def report(self, event_type: int, kind: str, handle: int) -> None:
        """Hand an async event to the program."""
        if self.event_handler is not None:
            self.event_handler(event_type, kind, handle)


def open_device(driver: Driver, name: str, mm: Any) -> Context:
    """``ib_uverbs_get_context``. ENODEV: no such device. EIO: it is dead."""
    for device in driver.devices:
        if device.name == name:
            if device.fatal:
                raise DriverError(errno.EIO, f"{name}: the device is dead (DEVICE_FATAL)")
            return Context(device, mm)
    raise DriverError(errno.ENODEV, f"no device {name!r}")


def close(context: Context) -> Steps[None]:
    """``uverbs_destroy_ufile_hw``: destroys what is left, users before what they use."""
    driver = context.driver
    for rule in driver.flows:
        if rule.qp.context is context:
            yield from flow.destroy(rule)
    for queue_pair in driver.qps:
        if queue_pair.context is context:
            yield from qp.leave_and_destroy(queue_pair)
    for handle in driver.ahs:
        if handle.pd.context is context:
            yield from ah.destroy(handle)
    for table in driver.ind_tables:
        if table.context is context:
            yield from rwq_ind_table.destroy(table)
    for work_queue in driver.wqs:
        if work_queue.context is context:
            yield from wq.destroy(work_queue)
    for shared in driver.srqs:
        if shared.context is context:
            yield from srq.destroy(shared)
    for opened in driver.xrcds:
        if opened.context is context:
            xrcd.close(opened)
    for queue in driver.cqs:
        if queue.context is context:
            yield from cq.destroy(queue)
    for window in driver.mws:
        if window.pd.context is context:
            yield from mw.deallocate(window)
    for region in driver.mrs:
        if region.pd.context is context:
            yield from mr.deregister(region)
    for block in driver.dms:
        if block.context is context:
            yield from dm.free(block)
    for domain in driver.pds:
        if domain.context is context:
            pd.deallocate(domain)
    yield from context.notifiers.close()
    driver.contexts.remove(context.handle)
    context.device.contexts.remove(context)
