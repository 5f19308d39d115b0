"""Page-fault events and their work items (``mlx5_ib_eq_pf_process, mlx5_ib_eqe_pf_action``, drivers/.../mlx5/odp.c).

The interrupt handler turns each EQE into a work item; at most 32 run at a time, in host threads. A work item finds out
what the QP needs, faults it in, tells the device, and always ends with PAGE_FAULT_RESUME.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
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
from nicemu.nic.spread import HOST_FAULTS
from nicemu.timeline.host import Steps
from nicemu.timeline.stretched import stretched

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice

MAX_ACTIVE = 32
"""``MLX5_NUM_CMD_EQE``-like bound of the work queue ``mlx5_ib_page_fault``."""
MAX_PAGES = 1024
"""Pages faulted in for one RDMA operation when the firmware names no number."""
LOW = (1 << 32) - 1
WORD = struct.Struct("<q")
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
        self.fault_in: Callable[[PageFault, dict[str, Any]], Steps[None]] = partial(fault_in, device)
        """:func:`fault_in`; an injected fault puts itself around it."""

    def handle_eqe(self, event: Eqe) -> None:
        """``mlx5_ib_eq_pf_process``: queue the work."""
        self.waiting.append(PageFault.parse(event))
        self._start()

    def _start(self) -> None:
        while self.waiting and self.active < MAX_ACTIVE:
            self.active += 1
            driver = self.device.driver
            work = self._work(self.waiting.popleft(), driver.scheduler.clock())
            factor = driver.factor(HOST_FAULTS)
            delay = driver.costs.driver_fault_ns * factor >> 16
            driver.scheduler.spawn(stretched(work, factor), self._name, delay=delay)

    def _work(self, fault: PageFault, started: int) -> Steps[None]:
        try:
            yield from resolve(self.device, fault, started)
        finally:
            self.active -= 1
            if self.waiting:
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
        reply = yield from device.commands.execute(Command.PAGE_FAULT_RESUME, fault.token, error, reply_bytes=WORD.size)
        (stages["goes_on"],) = WORD.unpack(reply)
    stages["resumed"], stages["error"] = clock(), error
    driver.stages.faults.append(stages)


def needed(device: IbDevice, fault: PageFault) -> list[Segment]:
    """What has to be mapped for the QP to go on. A QP that is gone needs nothing.

    If the firmware asks for a number of pages, those: from the missing one on, to the end of its region, whatever the
    operation needs. Else of a WQE fault all that is left of the WQE (of an SRQ's, the missing page), and of an RDMA
    fault (whose key may be an lkey as well) as many bytes from the missing address as the operation still had to do.
    The device has checked the operation's range, so where the missing address lies some bytes further on than the
    operation stood, the region's end is the end.
    """
    pair = device.qps.get(fault.qpn)
    if fault.subtype == WQE and pair is None:
        return []
    if fault.subtype == WQE and pair is not None and not fault.pages:
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
    """Map what is needed. If pages that the firmware has asked for cannot be had, only the missing one matters."""
    reads = fault.type == REQUESTER_SEND and device.profile.software.gathers_for_reading
    for segment in needed(device, fault):
        try:
            yield from fault_segment(device, segment, stages, reads)
        except Fault:
            if not fault.pages or segment.length == 1:
                raise
            yield from fault_segment(device, segment._replace(length=1), stages, reads)


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
