"""One device's driver state (``mlx5_core_dev, mlx5_ib_dev``): probe, event dispatch, numbers, attributes.

The driver knows a device only by its boot registers, doorbells, command queue and event queues.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import COMMAND_SLOTS, Command
from nicemu.abi.rings import EQE_BYTES, EqeType, Eqn, power_of_two
from nicemu.abi.verbs import AsyncEvent
from nicemu.driver.command import CommandQueue
from nicemu.driver.errors import DriverError
from nicemu.driver.irq import EventQueue, Handler
from nicemu.driver.numbers import Numbers
from nicemu.driver.page_fault_work import PageFaultWork
from nicemu.driver.ring import DoorbellRecords
from nicemu.memory.arena import Space
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.core import Driver
    from nicemu.driver.cq import Cq
    from nicemu.driver.mr import Mr
    from nicemu.driver.qp import Qp
    from nicemu.driver.srq import Srq
    from nicemu.driver.wq import Wq
    from nicemu.driver.xrcd import Domain, Inode

ASYNC_SLOTS = 4096
PORT = 1
PAGE_FAULT_EQ = int(Eqn.PAGE_FAULT)
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
        self.qp_numbers = Numbers("QPs", self.profile.max_qp, first=2)  # QP 0 and 1 are those of management (IBA)
        self.mkey_numbers = Numbers("memory keys", self.profile.max_mr + self.profile.max_mw)
        self.mw_count = 0
        self.memory = Space(0, self.profile.max_dm_size)
        """Free parts of the device's own memory."""
        self.key_variants: dict[int, int] = {}
        self.srq_numbers = Numbers("SRQs", self.profile.max_srq)
        self.ah_numbers = Numbers("address handles", self.profile.max_ah)
        self.xrcd_numbers = Numbers("XRC domains", self.profile.max_xrcd)
        raw = self.profile.raw_packet
        self.flow_numbers = Numbers("flow rules", raw.max_flows if raw else 0)
        self.rqt_numbers = Numbers("indirection tables", raw.max_rwq_indirection_tables if raw else 0)
        self.xrc_domains: dict[Inode, Domain] = {}
        self.cqs: dict[int, Cq] = {}
        self.qps: dict[int, Qp] = {}
        self.srqs: dict[int, Srq] = {}
        self.wqs: dict[int, Wq] = {}
        self.odp_mkeys: dict[int, Mr] = {}
        """On-demand regions by mkey index (``dev->odp_mkeys``): absent means not on demand, or being deregistered."""
        self.contexts: list[Context] = []
        self.fatal = False
        """DEVICE_FATAL came: nothing can be opened or made any more."""
        self.handlers: dict[EqeType, Handler] = {
            EqeType.CMD: self._command, EqeType.ASYNC: self._async, EqeType.PAGE_FAULT: self.faults.handle_eqe,
            EqeType.COMP: self._completion,
        }  # fmt: skip
        self.eqs = {eqn: self._create_eq(eqn, slots) for eqn, slots in self._eq_sizes()}
        self.irq_names = {eqn: f"irq/{self.name}-{eqn:d}" for eqn in self.eqs}

    def _eq_sizes(self) -> list[tuple[int, int]]:
        """Room for a completion of each command slot, an event of each CQ, and many async events. The device holds page
        faults and completion events that find their queue full.
        """
        profile = self.profile
        sizes = [
            (int(Eqn.COMMAND), 2 * COMMAND_SLOTS),
            (int(Eqn.ASYNC), ASYNC_SLOTS),
            (int(Eqn.PAGE_FAULT), profile.page_fault_eq_depth),
        ]
        sizes += [(Eqn.COMPLETION + vector, profile.max_cq) for vector in range(profile.num_comp_vectors)]
        return [(eqn, power_of_two(slots)) for eqn, slots in sizes]

    def _create_eq(self, eqn: int, slots: int) -> EventQueue:
        queue = EventQueue(self.device, eqn, slots, self.driver.allocate(slots * EQE_BYTES), self.records.take())
        queue.arm()
        return queue

    # Interrupts ---------------------------------------------------------------------------------------------------

    def interrupt(self, vector: int) -> Steps[None]:
        """An MSI-X message came: the handler, a host thread that begins after ``irq_ns``."""
        arm = vector != PAGE_FAULT_EQ or not self.driver.broken("eq_not_armed")
        return self.eqs[vector].handle(self.handlers, self.driver.scheduler.clock(), arm)

    def _command(self, _: int, data: list[int], entered: int, happened: int) -> None:
        self.commands.complete(data[0], data[1], happened)

    def _completion(self, _: int, data: list[int], entered: int, happened: int) -> None:
        """``mlx5_cq_completion``: an event of a CQ that is gone is dropped."""
        cq = self.cqs.get(data[0])
        if cq is not None and cq.comp_handler is not None:
            cq.comp_handler(cq.handle)

    def _async(self, subtype: int, data: list[int], entered: int, happened: int) -> None:
        """``mlx5_ib_event, mlx5_ib_qp_event``: to the context that owns the object; the rest to all contexts."""
        kind, number = AsyncEvent(subtype), data[0]
        if kind in QP_EVENTS:
            qp = self.qps.get(number)
            if qp is not None:
                qp.context.report(kind, "qp", qp.handle)
        elif kind in SRQ_EVENTS:
            srq = self.srqs.get(number)
            if srq is not None:
                srq.context.report(kind, "srq", srq.handle)
        elif kind == AsyncEvent.WQ_FATAL:
            wq = self.wqs.get(number)
            if wq is not None:
                wq.context.report(kind, "wq", wq.handle)
        elif kind == AsyncEvent.CQ_ERR:
            cq = self.cqs.get(number)
            if cq is not None:
                cq.context.report(kind, "cq", cq.handle)
        else:
            self.fatal |= kind == AsyncEvent.DEVICE_FATAL
            self.broadcast(kind, "device" if kind == AsyncEvent.DEVICE_FATAL else "port", number)

    def broadcast(self, kind: AsyncEvent, what: str, number: int) -> None:
        """An unaffiliated event: each context hears of it once."""
        for context in self.contexts:
            context.report(kind, what, number)

    def change_gid(self, index: int, gid: bytes | None, kind: int) -> Steps[None]:
        """``add_roce_gid``, ``del_gid`` of ib_core: the host's address changed. GID_CHANGE, if the entry did.

        ``gid``: 16 bytes, None to clear the entry; ``kind``: 1 RoCE v1, 2 RoCE v2.
        """
        kind = kind if gid else 0
        if (self.device.gids[index], self.device.gid_types[index]) == (gid, kind):
            return
        self.device.gids[index], self.device.gid_types[index] = gid, kind
        halves = [int.from_bytes((gid or bytes(16))[at : at + 8], "big", signed=True) for at in (0, 8)]
        with contextlib.suppress(DriverError):  # a device without a table of its own routes by the host's
            yield from self.commands.execute(Command.SET_GID, index, *halves, kind)
        self.broadcast(AsyncEvent.GID_CHANGE, "port", PORT)
