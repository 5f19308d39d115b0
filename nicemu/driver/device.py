"""One device's driver state (``mlx5_core_dev, mlx5_ib_dev``): probe, event dispatch, numbers, attributes.

The driver knows a device only by its boot registers, doorbells, command queue and event queues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import COMMAND_SLOTS
from nicemu.abi.rings import EQE_BYTES, EqeType, Eqn, power_of_two
from nicemu.abi.verbs import AsyncEvent
from nicemu.driver import irq
from nicemu.driver.command import CommandQueue
from nicemu.driver.irq import Eqe, EventQueue
from nicemu.driver.numbers import Numbers
from nicemu.driver.page_fault_work import PageFaultWork
from nicemu.driver.ring import DoorbellRecords
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.core import Driver
    from nicemu.driver.cq import Cq
    from nicemu.driver.mr import Mr
    from nicemu.driver.qp import Qp
    from nicemu.driver.srq import Srq
    from nicemu.driver.xrcd import Domain, Inode

ASYNC_SLOTS = 4096
QP_EVENTS = frozenset((
    AsyncEvent.QP_FATAL, AsyncEvent.QP_REQ_ERR, AsyncEvent.QP_ACCESS_ERR, AsyncEvent.COMM_EST, AsyncEvent.SQ_DRAINED,
    AsyncEvent.PATH_MIG, AsyncEvent.PATH_MIG_ERR, AsyncEvent.QP_LAST_WQE_REACHED,
))  # fmt: skip
SRQ_EVENTS = frozenset((AsyncEvent.SRQ_ERR, AsyncEvent.SRQ_LIMIT_REACHED))


class IbDevice:
    """A probed device. The maps by number find the object an event or a fault is about."""

    def __init__(self, driver: Driver, device: Any) -> None:
        self.driver, self.device = driver, device
        self.profile, self.index, self.name = device.profile, device.index, device.name
        self.records = DoorbellRecords(driver.allocate)
        self.commands = CommandQueue(device, driver.scheduler, driver.allocate)
        self.faults = PageFaultWork(self)
        self.pd_numbers = Numbers("protection domains", self.profile.max_pd)
        self.cq_numbers = Numbers("CQs", self.profile.max_cq)
        self.qp_numbers = Numbers("QPs", self.profile.max_qp)
        self.mkey_numbers = Numbers("memory keys", self.profile.max_mr)
        self.key_variants: dict[int, int] = {}
        self.srq_numbers = Numbers("SRQs", self.profile.max_srq)
        self.ah_numbers = Numbers("address handles", self.profile.max_ah)
        self.xrcd_numbers = Numbers("XRC domains", self.profile.max_xrcd)
        self.xrc_domains: dict[Inode, Domain] = {}
        self.cqs: dict[int, Cq] = {}
        self.qps: dict[int, Qp] = {}
        self.srqs: dict[int, Srq] = {}
        self.odp_mkeys: dict[int, Mr] = {}
        """On-demand regions by mkey index (``dev->odp_mkeys``): absent means not on demand, or being deregistered."""
        self.contexts: list[Context] = []
        self.handlers: dict[EqeType, Callable[[Eqe], None]] = {
            EqeType.CMD: self._command, EqeType.ASYNC: self._async, EqeType.PAGE_FAULT: self.faults.handle_eqe,
            EqeType.COMP: self._completion,
        }  # fmt: skip
        self.eqs = {eqn: self._create_eq(eqn, slots) for eqn, slots in self._eq_sizes()}

    def _eq_sizes(self) -> list[tuple[int, int]]:
        """No event queue can overflow: each has room for all events that can be outstanding (ASYNC: a generous bound).

        A CQ has at most one event outstanding, a QP ``max_fault_per_qp`` page faults, a command slot one completion.
        """
        profile = self.profile
        sizes = [
            (int(Eqn.COMMAND), 2 * COMMAND_SLOTS),
            (int(Eqn.ASYNC), ASYNC_SLOTS),
            (int(Eqn.PAGE_FAULT), profile.max_qp * profile.max_fault_per_qp),
        ]
        sizes += [(Eqn.COMPLETION + vector, profile.max_cq) for vector in range(profile.num_comp_vectors)]
        return [(eqn, power_of_two(slots)) for eqn, slots in sizes]

    def _create_eq(self, eqn: int, slots: int) -> EventQueue:
        queue = EventQueue(self.device, eqn, slots, self.driver.allocate(slots * EQE_BYTES), self.records.take())
        queue.arm()
        return queue

    # Interrupts ---------------------------------------------------------------------------------------------------

    def interrupt(self, vector: int) -> Steps[None]:
        """An MSI-X message came: the handler, as a host thread."""
        driver = self.driver
        return irq.handle(self.eqs[vector], self.handlers, driver.scheduler, driver.costs.irq_ns)

    def _command(self, event: Eqe) -> None:
        slot, status = event.data[:2]
        self.commands.complete(slot, status, event.happened)

    def _completion(self, event: Eqe) -> None:
        """``mlx5_cq_completion``: an event of a CQ that is gone is dropped."""
        cq = self.cqs.get(event.data[0])
        if cq is not None and cq.comp_handler is not None:
            cq.comp_handler(cq.handle)

    def _async(self, event: Eqe) -> None:
        """``mlx5_ib_event, mlx5_ib_qp_event``: to the context that owns the object; the rest to all contexts."""
        kind, number = AsyncEvent(event.subtype), event.data[0]
        if kind in QP_EVENTS:
            qp = self.qps.get(number)
            if qp is not None:
                qp.context.report(kind, "qp", qp.handle)
        elif kind in SRQ_EVENTS:
            srq = self.srqs.get(number)
            if srq is not None:
                srq.context.report(kind, "srq", srq.handle)
        elif kind == AsyncEvent.CQ_ERR:
            cq = self.cqs.get(number)
            if cq is not None:
                cq.context.report(kind, "cq", cq.handle)
        else:
            for context in self.contexts:
                context.report(kind, "device" if kind == AsyncEvent.DEVICE_FATAL else "port", number)
