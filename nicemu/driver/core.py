"""All devices of a host and the handle tables over them (``ib_core``): what the lab builds and uverbs calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.driver import ring
from nicemu.driver.counters import DriverCounters, MrCounters, Stages
from nicemu.driver.device import IbDevice
from nicemu.driver.handles import Handles
from nicemu.mm.locks import HARDIRQ
from nicemu.nic.spread import ONE
from nicemu.timeline.host import HostThread, Scheduler

if TYPE_CHECKING:
    from nicemu.driver.ah import Ah
    from nicemu.driver.context import Context
    from nicemu.driver.cq import Cq
    from nicemu.driver.dm import Dm
    from nicemu.driver.flow import Flow
    from nicemu.driver.mr import Mr
    from nicemu.driver.mw import Mw
    from nicemu.driver.pd import Pd
    from nicemu.driver.qp import Qp
    from nicemu.driver.rwq_ind_table import IndTable
    from nicemu.driver.srq import Srq
    from nicemu.driver.wq import Wq
    from nicemu.driver.xrcd import Xrcd


@dataclass(frozen=True, slots=True)
class Options:
    """How the driver behaves. ``mutants``: deliberate bugs (``config.mutants``). ``stretch``: the factor, in 1/65536,
    of CPU time that item ``number`` of a stream takes (``nic.spread``); None: times are exact."""

    subscriber: str = "interval"
    force_odp: bool = False
    mutants: tuple[str, ...] = ()
    stretch: Callable[[int, int], int] | None = None


class Driver:
    """The loaded driver. ``stamp`` gives the present mm stamp, ``costs`` are ``HostCosts``."""

    def __init__(self, scheduler: Scheduler, devices: Iterable[Any], costs: Any, stamp: Callable[[], int],
                 options: Options | None = None, allocate: ring.Allocator = ring.anonymous) -> None:  # fmt: skip
        self.scheduler, self.costs, self.stamp = scheduler, costs, stamp
        self.options = options or Options()
        self.allocate = allocate
        self.stages, self.counters = Stages(), DriverCounters()
        self.mr_counters: dict[int, MrCounters] = {}
        """Of every region ever registered, by its number: they outlive it."""
        self.contexts: Handles[Context] = Handles("context")
        self.pds: Handles[Pd] = Handles("PD")
        self.mrs: Handles[Mr] = Handles("MR")
        self.cqs: Handles[Cq] = Handles("CQ")
        self.qps: Handles[Qp] = Handles("QP")
        self.ahs: Handles[Ah] = Handles("AH")
        self.mws: Handles[Mw] = Handles("memory window")
        self.dms: Handles[Dm] = Handles("device memory")
        self.srqs: Handles[Srq] = Handles("SRQ")
        self.xrcds: Handles[Xrcd] = Handles("XRC domain")
        self.wqs: Handles[Wq] = Handles("WQ")
        self.ind_tables: Handles[IndTable] = Handles("indirection table")
        self.flows: Handles[Flow] = Handles("flow")
        self._drawn: Counter[int] = Counter()
        self.devices = [IbDevice(self, device) for device in devices]
        """In the order of ``device.index``: probed."""

    def deliver(self, messages: Iterable[tuple[int, int]]) -> None:
        """The timeline's interrupt callback: an interrupt handler for each (device index, vector)."""
        spawn, delay = self.scheduler.spawn, self.costs.irq_ns
        for index, vector in messages:
            device = self.devices[index]
            spawn(device.interrupt(vector), device.irq_names[vector], False, delay).atomic.append(HARDIRQ)

    def factor(self, stream: int) -> int:
        """How long the next item of host work of a stream (``nic.spread``) takes, in 1/65536 of its costs."""
        if self.options.stretch is None:
            return ONE
        self._drawn[stream] += 1
        return self.options.stretch(stream, self._drawn[stream])

    @property
    def thread(self) -> HostThread:
        """``current``."""
        thread = self.scheduler.current
        assert thread is not None, "driver calls run in host threads"
        return thread

    def broken(self, mutant: str) -> bool:
        """Is this deliberate bug planted?"""
        return mutant in self.options.mutants
