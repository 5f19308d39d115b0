"""Page-fault events and their work items (``mlx5_ib_eq_pf_process, mlx5_ib_eqe_pf_action``, drivers/.../mlx5/odp.c).

The interrupt handler turns each EQE into a work item; at most 32 run at a time, in host threads. A work item finds out
what the QP needs, faults it in, tells the device, and always ends with PAGE_FAULT_RESUME.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import Command
from nicemu.abi.rings import FaultSubtype, FaultType
from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver import wqe
from nicemu.driver.errors import DriverError
from nicemu.driver.mkey import KEY_BITS
from nicemu.driver.umem import page_span
from nicemu.driver.umem_odp import OnDemand
from nicemu.driver.wqe import Segment
from nicemu.mm.page import Fault
from nicemu.nic.spread import HOST_FAULTS
from nicemu.timeline.host import Steps
from nicemu.timeline.stretched import stretched

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.mr import Mr

MAX_ACTIVE = 32
"""``MLX5_NUM_CMD_EQE``-like bound of the work queue ``mlx5_ib_page_fault``."""
MAX_PAGES = 1024
"""Pages faulted in for one RDMA operation when the firmware names no number."""
LOW = (1 << 32) - 1
WORD = struct.Struct("<q")
WQE, RESPONDER_RECV = int(FaultSubtype.WQE), int(FaultType.RESPONDER_RECV)
REQUESTER_SEND = int(FaultType.REQUESTER_SEND)
NAMES = {int(kind): kind.name for kind in FaultType}


@dataclass(slots=True, eq=False)
class PageFault:
    """A page-fault EQE. ``last``: bytes left of the RDMA operation, or the WQE's counter; ``pages``: 0 means all."""

    subtype: int
    type: int
    qpn: int
    token: int
    key: int
    va: int
    bytes_committed: int
    last: int
    pages: int
    interrupt: int
    detected: int

    @classmethod
    def parse(cls, subtype: int, data: list[int], interrupt: int, detected: int) -> PageFault:
        """The fields of ``EqeType.PAGE_FAULT``."""
        kind, token, key, va, committed, last = data
        return cls(subtype, kind >> 32, kind & LOW, token, key, va, committed, last & LOW, last >> 32,
                   interrupt, detected)  # fmt: skip


class PageFaultWork:
    """One device's page-fault work queue."""

    def __init__(self, device: IbDevice) -> None:
        self.device, self._name = device, f"kworker/{device.name}-page-fault"
        self.active = 0
        self.waiting: deque[PageFault] = deque()
        self.fault_in: Callable[[PageFault, dict[str, Any]], Steps[None]] = partial(fault_in, device)
        """:func:`fault_in`; an injected fault puts itself around it."""

    def handle_eqe(self, subtype: int, data: list[int], entered: int, happened: int) -> None:
        """``mlx5_ib_eq_pf_process``: queue the work."""
        fault = PageFault.parse(subtype, data, entered, happened)
        if self.active < MAX_ACTIVE:
            self._start(fault)
        else:
            self.waiting.append(fault)

    def _start(self, fault: PageFault) -> None:
        self.active += 1
        driver = self.device.driver
        work, factor = self._resolve(fault, driver.scheduler.now), driver.factor(HOST_FAULTS)
        delay = driver.costs.driver_fault_ns * factor >> 16
        driver.scheduler.spawn(stretched(work, factor), self._name, False, delay)

    def _resolve(self, fault: PageFault, started: int) -> Steps[None]:
        """``mlx5_ib_eqe_pf_action``: fault in, then resume the QP, with an error if it cannot be done. ``started``:
        when the work began, ``driver_fault_ns`` ago."""
        device, driver = self.device, self.device.driver
        scheduler = driver.scheduler
        stages: dict[str, Any] = {"device": device.index, "detected": fault.detected, "interrupt": fault.interrupt,
                                  "driver": started, "pages": 0}  # fmt: skip
        error = 0
        if scheduler.log is not None:
            scheduler.event("fault_work", **self._event(fault), mr=fault.key >> KEY_BITS)
        try:
            try:
                yield from self.fault_in(fault, stages)
            except (Fault, DriverError):
                driver.counters.num_failed_resolutions += 1
                error = 1
                if driver.broken("no_resume_on_error"):
                    return
            stages["resume"] = scheduler.now
            if scheduler.log is not None:
                scheduler.event("fault_resolved", **self._event(fault), pages=stages["pages"], failed=error)
            try:
                reply = yield from device.commands.execute(Command.PAGE_FAULT_RESUME, fault.token, error, reply_bytes=8)
            except DriverError:  # mlx5 logs a failed resume and goes on
                reply = b""
            if reply:
                (stages["goes_on"],) = WORD.unpack(reply)
            stages["resumed"], stages["error"] = scheduler.now, error
            driver.stages.faults.append(stages)
        finally:
            self.active -= 1
            if self.waiting:
                self._start(self.waiting.popleft())

    def _event(self, fault: PageFault) -> dict[str, Any]:
        """What the event log says of a fault in any case."""
        return {"nic": self.device.index, "qpn": fault.qpn, "type": NAMES[fault.type]}


def needed(device: IbDevice, fault: PageFault) -> list[Segment]:
    """What has to be mapped for the QP to go on. A QP that is gone needs nothing.

    If the firmware asks for a number of pages, those: from the missing one on, to the end of its region, whatever the
    operation needs. Else of a WQE fault all that is left of the WQE (of an SRQ's, the missing page), and of an RDMA
    fault (whose key may be an lkey as well) as many bytes from the missing address as the operation still had to do.
    The device has checked the operation's range, so where the missing address lies some bytes further on than the
    operation stood, the region's end is the end.
    """
    if fault.subtype == WQE:
        pair = device.qps.get(fault.qpn)
        if pair is None:
            return []
        if not fault.pages:
            if fault.type == RESPONDER_RECV and not pair.recv_slots:
                return [Segment(fault.key, fault.va, 1)]
            return wqe.remaining(wqe.data_segments(pair, fault.type, fault.last), fault.bytes_committed)
    region = device.odp_mkeys.get(fault.key >> KEY_BITS)
    length = fault.pages << PAGE_SHIFT or max(fault.last, 1)
    if region is None:
        return [Segment(fault.key, fault.va, length)]
    start, pages = page_span(fault.va - region.iova + region.address, length)
    end = start - region.address + region.iova + (min(pages, fault.pages or MAX_PAGES) << PAGE_SHIFT)
    end = max(min(end, fault.va + length, region.iova + region.length), fault.va + 1)
    return [Segment(fault.key, fault.va, end - fault.va)]


def fault_in(device: IbDevice, fault: PageFault, stages: dict[str, Any]) -> Steps[None]:
    """Map what is needed, a segment after the other (``pagefault_single_data_segment``). If pages that the firmware has
    asked for cannot be had, only the missing one matters."""
    reads = fault.type == REQUESTER_SEND and device.profile.software.gathers_for_reading
    left = needed(device, fault)[::-1]
    while left:
        segment = left.pop()
        region = segment_region(device, segment)
        if region is None:
            continue
        memory = region.umem
        assert isinstance(memory, OnDemand)
        address = segment.address - region.iova + region.address
        memory.begin_fault()
        try:
            # as mlx5: a read fault on a writable region asks for write, and so breaks copy-on-write
            write = not reads and region.writable
            pages = yield from memory.map_range(address, segment.length, write, stages)
        except Fault:
            if not fault.pages or segment.length == 1:
                raise
            left.append(segment._replace(length=1))
            continue
        finally:
            memory.end_fault()
        stages["mr"] = region.number
        stages["pages"] += pages
        region.counters.page_faults += pages
        region.counters.page_faults_handled += 1


def segment_region(device: IbDevice, segment: Segment) -> Mr | None:
    """The region of a segment; None: not an on-demand key: nothing to do (mixed WQEs are legal).

    :raises DriverError: EFAULT, a stale key or a range outside the region.
    """
    key, address, length = segment
    region = device.odp_mkeys.get(key >> KEY_BITS)
    if region is None:
        device.driver.counters.num_mrs_not_found += 1
        return None
    offset = address - region.iova
    if region.key != key or offset < 0 or offset + length > region.length:
        raise DriverError(errno.EFAULT, "page fault: stale key or range outside the region")
    return region
