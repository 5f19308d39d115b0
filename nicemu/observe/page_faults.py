"""Page faults in an event log: each from the NIC's FAULT to its RESUME, with its stages.

FAULT, EQE, INTERRUPT, ``fault_work``, ``fault_in``, ``mtt_update``, ``fault_resolved`` and RESUME delimit them. A fault
is found again by NIC, type and QP; on the host by its thread. Merged faults are silent: they are the first one.
"""

from __future__ import annotations

from collections.abc import Callable

from nicemu.abi.rings import FaultType
from nicemu.observe.causes import Interval, Marks, Stage
from nicemu.observe.trace_reader import Event

Key = tuple[int, str, int]
"""NIC, type of the fault, QP."""


class PageFault:
    """One page fault. ``end`` is None while it is open."""

    __slots__ = ("end", "index", "interrupted", "marks", "mr", "nic", "page", "qpn", "reported", "type")

    def __init__(self, event: Event) -> None:
        fields = event.fields
        self.nic, self.type = int(event.who[3:]), str(fields["type"])
        self.qpn, self.index = int(fields["qpn"]), int(fields.get("index", 0))
        self.mr, self.page = int(fields["mr"]), int(fields["page"])
        self.marks = Marks(event.time)
        self.reported: int | None = None
        self.interrupted = False
        self.end: int | None = None

    @property
    def start(self) -> int:
        """When the NIC found the page missing, ns."""
        return self.marks.start

    @property
    def at_requester(self) -> bool:
        """It holds the requester's own queue."""
        return self.type.startswith("REQUESTER")

    def stages(self, until: int) -> list[Interval]:
        """Its stages; of an open one, those until now."""
        found = self.marks.intervals()
        if self.end is None and until > self.marks.last:
            found.append(Interval(self.marks.last, until, Stage.INTERRUPT if not found else Stage.DRIVER))
        return found

    def __str__(self) -> str:
        return f"nic{self.nic}, MR {self.mr} page {self.page}"


class PageFaults:
    """Follows the faults of all NICs."""

    def __init__(self) -> None:
        self.open: dict[Key, list[PageFault]] = {}
        self.threads: dict[int, PageFault] = {}
        """The fault that a host thread works on."""
        self.count, self.total_ns = 0, 0

    def fault(self, event: Event) -> PageFault:
        """FAULT: a new one."""
        found = PageFault(event)
        self.open.setdefault((found.nic, found.type, found.qpn), []).append(found)
        return found

    def eqe(self, event: Event) -> None:
        """EQE of type PAGE_FAULT."""
        data = int(event.fields["data"])
        key = int(event.who[3:]), FaultType(data >> 32).name, data & 0xFFFFFFFF
        fault = self._first(key, lambda each: each.reported is None)
        if fault is not None:
            fault.marks.mark(event.time, Stage.INTERRUPT)
            fault.reported = int(event.fields["eqn"])

    def interrupt(self, event: Event) -> None:
        """INTERRUPT: the host hears of every fault reported through this vector."""
        if event.fields.get("lost"):
            return
        nic, vector = int(event.who[3:]), event.fields["vector"]
        for faults in self.open.values():
            for fault in faults:
                if fault.nic == nic and fault.reported == vector and not fault.interrupted:
                    fault.interrupted = True
                    fault.marks.mark(event.time - int(event.fields.get("flight_ns", 0)), Stage.MODERATION)
                    fault.marks.mark(event.time, Stage.INTERRUPT)

    def work(self, event: Event) -> None:
        """``fault_work``: the driver begins."""
        fields = event.fields
        key = int(fields["nic"]), str(fields["type"]), int(fields["qpn"])
        fault = self._first(key, lambda each: each not in self.threads.values())
        if fault is not None:
            fault.marks.mark(event.time, Stage.DRIVER)
            self.threads[int(fields["thread"])] = fault

    def step(self, event: Event, stage: Stage) -> None:
        """A step of the thread that resolves a fault is over."""
        fault = self.threads.get(int(event.fields.get("thread", -1)))
        if fault is not None:
            fault.marks.mark(event.time, stage)

    def resolved(self, event: Event) -> None:
        """``fault_resolved``: the resume command goes out."""
        self.step(event, Stage.DRIVER)
        self.threads.pop(int(event.fields["thread"]), None)

    def resume(self, event: Event) -> PageFault | None:
        """RESUME: the queue goes on."""
        fields = event.fields
        key = int(event.who[3:]), str(fields["type"]), int(fields["qpn"])
        faults = self.open.get(key)
        if not faults:
            return None
        fault = faults.pop(0)
        if not faults:
            del self.open[key]
        self.threads = {thread: each for thread, each in self.threads.items() if each is not fault}
        fault.marks.mark(event.time, Stage.RESUME)
        fault.end = event.time
        self.count += 1
        self.total_ns += fault.end - fault.start
        return fault

    def _first(self, key: Key, fits: Callable[[PageFault], bool]) -> PageFault | None:
        return next((fault for fault in self.open.get(key, ()) if fits(fault)), None)


HOST_STEPS = {
    "fault_in": Stage.DRIVER, "fault_in_done": Stage.MM, "mtt_update": Stage.DRIVER, "mtt_update_done": Stage.MTT,
}  # fmt: skip
"""Host events that end a stage, and which."""
