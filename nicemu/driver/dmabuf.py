"""Regions of dma-bufs (``ib_umem_dmabuf_get``, ``mlx5_ib_reg_user_mr_dmabuf``): attached dynamically, never pinned.

All pages of the region are mapped together: when it is registered, and again by whatever fault comes after the exporter
has moved the buffer (``pagefault_dmabuf_mr``). The buffer's reservation lock orders mapping against moving, and against
the end of the region: a move finds either all of it mapped or nothing.

Left out: the pinned form for devices that cannot fault, translations larger than a page.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE, Access
from nicemu.driver import mkey
from nicemu.driver.errors import DriverError
from nicemu.driver.umem import page_span, update_mtt_pages
from nicemu.driver.umem_odp import OnDemand, take_back
from nicemu.mm.dma_buf import DmaBuf, map_attachment, unmap_attachment, wait_for_move
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.mr import Mr

ACCESS = int(
    Access.LOCAL_WRITE | Access.REMOTE_READ | Access.REMOTE_WRITE | Access.REMOTE_ATOMIC | Access.RELAXED_ORDERING
)
"""What ``UVERBS_METHOD_REG_DMABUF_MR`` lets a program ask for."""
ADDRESS_END = 1 << 64


def check(device: IbDevice, buffer: DmaBuf, span: tuple[int, int], iova: int, access: int) -> None:
    """``span``: offset and length. EINVAL: other access than :data:`ACCESS`, an iova at another place in its page than
    the offset, or a range outside of the buffer."""
    offset, length = span
    if access & ~ACCESS:
        raise DriverError(errno.EINVAL, f"dma-buf MR: access flags {access:#x}")
    if (offset ^ iova) & PAGE_SIZE - 1:
        raise DriverError(errno.EINVAL, f"dma-buf MR: offset {offset:#x} and iova {iova:#x} differ within the page")
    if length <= 0 or offset < 0 or offset + length > buffer.size:
        raise DriverError(errno.EINVAL, f"dma-buf MR: no {length} bytes at {offset} of {buffer.size}")
    if not 0 <= iova <= ADDRESS_END - length or length > device.profile.max_mr_size:
        raise DriverError(errno.EINVAL, f"dma-buf MR: no region of {length} bytes at iova {iova:#x}")


class UmemDmabuf(OnDemand):
    """Memory of a region that lies in a buffer from ``region.address`` on. Its mutex is the buffer's reservation."""

    def __init__(self, region: Mr, buffer: DmaBuf) -> None:
        super().__init__(region, buffer.resv)
        self.attachment = buffer.attach(self)
        start, self.pages = page_span(region.address, region.length)
        self.first = start >> PAGE_SHIFT

    @property
    def mapped(self) -> int:
        """How many pages the device has."""
        return 0 if self.attachment.frames is None else self.pages

    def map_range(self, address: int, length: int, write: bool, stages: dict[str, Any]) -> Steps[int]:
        """``pagefault_dmabuf_mr``: all of it, whatever the range."""
        driver = self.region.pd.context.driver
        thread, clock = driver.thread, driver.scheduler.clock
        stages.setdefault("mm", clock())
        yield from self.mutex.acquire(thread)
        try:
            map_attachment(self.attachment)
            yield from wait_for_move(self.attachment.buffer)
            stages["mm_done"] = clock()
            yield driver.costs.driver_fault_page_ns * self.pages
            stages["update"] = clock()
            yield from update_mtt_pages(self.region, 0, self._frames(), driver.stamp())
            stages["update_done"] = clock()
        finally:
            self.mutex.release(thread)
        return self.pages

    def map_present(self, address: int, length: int) -> Steps[int]:
        """The buffer is always somewhere: as a fault."""
        return self.map_range(address, length, False, {})

    def _frames(self) -> np.ndarray:
        """``frame << 1 | writable`` of the region's pages."""
        frames = self.attachment.frames
        assert frames is not None
        part: np.ndarray = frames[self.first : self.first + self.pages] << 1 | 1
        return part

    def move_notify(self) -> Steps[None]:
        """``mlx5_ib_dmabuf_invalidate_cb``: the device is off the pages when it returns. The reservation is held."""
        region = self.region
        driver = region.pd.context.driver
        if self.attachment.frames is None:
            return
        stages = {"device": region.device.index, "mr": region.number, "pages": self.pages, "operation": "dma_buf_move",
                  "notifier": driver.scheduler.clock()}  # fmt: skip
        yield driver.costs.invalidate_check_ns
        yield from take_back(self, [(0, self.pages)], stages)
        unmap_attachment(self.attachment)
        yield driver.costs.invalidate_page_ns * self.pages + driver.costs.invalidate_done_ns
        region.counters.page_invalidations += self.pages
        region.counters.page_invalidations_handled += 1
        stages["returned"] = driver.scheduler.clock()
        driver.stages.invalidations.append(stages)


def create(region: Mr, buffer: DmaBuf) -> Steps[None]:
    """The region's key, which faults are found by, and all its translations (``mlx5_ib_init_dmabuf_mr``)."""
    memory = region.umem = UmemDmabuf(region, buffer)
    try:
        yield from mkey.create(region, region.flags)
        memory.show()
        try:
            yield from memory.map_range(region.address, region.length, region.writable, {})
        except DriverError:
            yield from destroy(region, memory)
            raise
    except DriverError:
        _detach(memory)
        raise


def destroy(region: Mr, memory: UmemDmabuf) -> Steps[None]:
    """``mlx5_revoke_mr``: no new fault, then the key under the reservation, so that no move meets a key that is gone.
    A device that refuses changes nothing."""
    yield from memory.hide()
    thread = region.pd.context.driver.thread
    yield from memory.mutex.acquire(thread)
    try:
        yield from mkey.destroy(region)
        unmap_attachment(memory.attachment)
        _detach(memory)
    except DriverError:
        memory.show()
        raise
    finally:
        memory.mutex.release(thread)


def _detach(memory: UmemDmabuf) -> None:
    """``dma_buf_detach``, unless it was done."""
    attachments = memory.attachment.buffer.attachments
    if memory.attachment in attachments:
        attachments.remove(memory.attachment)
