"""Page-fault events and their work items (``mlx5_ib_eq_pf_process, mlx5_ib_eqe_pf_action``, drivers/.../mlx5/odp.c).

The interrupt handler turns each EQE into a work item; at most 32 run at a time, in host threads. A work item finds out
what the QP needs, faults it in, tells the device, and always ends with PAGE_FAULT_RESUME.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from nicemu.abi.command import Command
from nicemu.abi.rings import FaultSubtype, FaultType
from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver import wqe
from nicemu.driver.errors import DriverError
from nicemu.driver.irq import Eqe
from nicemu.driver.mkey import KEY_BITS
from nicemu.driver.umem import page_span
from nicemu.driver.umem_odp import OnDemand
from nicemu.driver.wqe import Segment
from nicemu.mm.page import Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice

MAX_ACTIVE = 32
"""``MLX5_NUM_CMD_EQE``-like bound of the work queue ``mlx5_ib_page_fault``."""
MAX_PAGES = 1024
"""Pages faulted in for one RDMA operation when the firmware names no number."""
LOW = (1 << 32) - 1
WQE, RESPONDER_RECV = int(FaultSubtype.WQE), int(FaultType.RESPONDER_RECV)
REQUESTER_SEND = int(FaultType.REQUESTER_SEND)
NAMES = {int(kind): kind.name for kind in FaultType}


class PageFault(NamedTuple):
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
    def parse(cls, event: Eqe) -> PageFault:
        """The fields of ``EqeType.PAGE_FAULT``."""
        kind, token, key, va, committed, last = event.data
        return cls(event.subtype, kind >> 32, kind & LOW, token, key, va, committed, last & LOW,
                   last >> 32, event.interrupt, event.happened)  # fmt: skip


class PageFaultWork:
    """One device's page-fault work queue."""

    def __init__(self, device: IbDevice) -> None:
        self.device, self._name = device, f"kworker/{device.name}-page-fault"
        self.active = 0
        self.waiting: deque[PageFault] = deque()

    def handle_eqe(self, event: Eqe) -> None:
        """``mlx5_ib_eq_pf_process``: queue the work."""
        self.waiting.append(PageFault.parse(event))
        self._start()

    def fault_in(self, fault: PageFault, stages: dict[str, Any]) -> Steps[None]:
        """Have everything mapped that the QP needs.

        :raises Fault, DriverError: it cannot be.
        """
        reads = fault.type == REQUESTER_SEND and self.device.profile.software.gathers_for_reading
        for segment in needed(self.device, fault):
            yield from fault_segment(self.device, segment, stages, reads)

    def _start(self) -> None:
        while self.waiting and self.active < MAX_ACTIVE:
            self.active += 1
            driver = self.device.driver
            work = self._work(self.waiting.popleft(), driver.scheduler.clock())
            driver.scheduler.spawn(work, self._name, delay=driver.costs.driver_fault_ns)

    def _work(self, fault: PageFault, started: int) -> Steps[None]:
        try:
            yield from resolve(self.device, fault, started)
        finally:
            self.active -= 1
            self._start()


def resolve(device: IbDevice, fault: PageFault, started: int) -> Steps[None]:
    """``mlx5_ib_eqe_pf_action``: fault in, then resume the QP, with an error if it cannot be done. ``started``: when
    the work began, ``driver_fault_ns`` ago."""
    driver = device.driver
    clock = driver.scheduler.clock
    stages: dict[str, Any] = {"device": device.index, "detected": fault.detected, "interrupt": fault.interrupt,
                              "driver": started, "pages": 0}  # fmt: skip
    error = 0
    event = {"nic": device.index, "qpn": fault.qpn, "type": NAMES[fault.type]}
    driver.scheduler.event("fault_work", **event, mr=fault.key >> KEY_BITS)
    try:
        yield from device.faults.fault_in(fault, stages)
    except (Fault, DriverError):
        driver.counters.num_failed_resolutions += 1
        error = 1
    if error and driver.broken("no_resume_on_error"):
        return
    stages["resume"] = clock()
    driver.scheduler.event("fault_resolved", **event, pages=stages["pages"], failed=error)
    with contextlib.suppress(DriverError):  # mlx5 logs a failed resume and goes on
        yield from device.commands.execute(Command.PAGE_FAULT_RESUME, fault.token, error)
    stages["resumed"], stages["error"] = clock(), error
    driver.stages.faults.append(stages)


def needed(device: IbDevice, fault: PageFault) -> list[Segment]:
    """What has to be mapped for the QP to go on. A QP that is gone needs nothing.

    A WQE fault: all that is left of the WQE; of an SRQ's, the missing page. An RDMA fault (whose key may be an lkey as
    well): as many bytes from the missing address as the operation still had to do, at most the pages that the firmware
    asks for. The device has checked the operation's range, so where the missing address lies some bytes further on than
    the operation stood, the region's end is the end.
    """
    if fault.subtype == WQE:
        pair = device.qps.get(fault.qpn)
        if pair is None:
            return []
        if fault.type == RESPONDER_RECV and not pair.recv_slots:
            return [Segment(fault.key, fault.va, 1)]
        return wqe.remaining(wqe.data_segments(pair, fault.type, fault.last), fault.bytes_committed)
    length = max(fault.last, 1)
    region = device.odp_mkeys.get(fault.key >> KEY_BITS)
    if region is None:
        return [Segment(fault.key, fault.va, length)]
    start, pages = page_span(fault.va - region.iova + region.address, length)
    end = start - region.address + region.iova + (min(pages, fault.pages or MAX_PAGES) << PAGE_SHIFT)
    end = max(min(end, fault.va + length, region.iova + region.length), fault.va + 1)
    return [Segment(fault.key, fault.va, end - fault.va)]


def fault_segment(device: IbDevice, segment: Segment, stages: dict[str, Any], reads: bool = False) -> Steps[None]:
    """``pagefault_single_data_segment``: not an on-demand key: nothing to do (mixed WQEs are legal); a stale key or a
    range outside the region: EFAULT. ``reads``: ask for reading, even of a writable region."""
    region = device.odp_mkeys.get(segment.key >> KEY_BITS)
    if region is None:
        device.driver.counters.num_mrs_not_found += 1
        return
    memory = region.umem
    assert isinstance(memory, OnDemand)
    offset = segment.address - region.iova
    if region.key != segment.key or offset < 0 or offset + segment.length > region.length:
        raise DriverError(errno.EFAULT, "page fault: stale key or range outside the region")
    memory.begin_fault()
    try:
        # as mlx5: a read fault on a writable region asks for write, and so breaks copy-on-write
        write = region.writable and not reads
        pages = yield from memory.map_range(region.address + offset, segment.length, write, stages)
    finally:
        memory.end_fault()
    stages["mr"] = region.number
    stages["pages"] += pages
    region.counters.page_faults += pages
    region.counters.page_faults_handled += 1
