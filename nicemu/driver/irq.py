"""Event queues and their interrupt handlers (``mlx5_eq_comp_int``, ``mlx5_eq_async_int``).

The handler drains the queue, tells the device how far it came, and arms the queue again. If an EQE came in between,
arming raises the next interrupt at once, so none is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nicemu.abi.rings import DB_CONSUMER, EQE, EQE_BYTES, EQE_OWNER, Doorbell, EqeType, doorbell_offset, owner
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Scheduler, Steps

OWNER = struct.Struct("<I")
COUNTER = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Eqe:
    """One event. ``interrupt``: when the handler that read it was entered, ns."""

    type: EqeType
    subtype: int
    data: tuple[int, ...]
    interrupt: int
    happened: int
    """When what it reports happened in the device, ns (the EQE carries the low 32 bits)."""


class EventQueue:
    """One event queue and what is done with its events."""

    def __init__(self, device: Any, eqn: int, slots: int, ring: Memory, record: Memory) -> None:
        self.device, self.eqn, self.slots, self._ring, self._record = device, eqn, slots, ring, record
        self.consumed = 0
        device.attach_eq(eqn, ring.address, slots, record.address)

    def poll(self, interrupt: int = 0) -> Eqe | None:
        """The next event, if the device has written it."""
        at = (self.consumed & (self.slots - 1)) * EQE_BYTES
        if OWNER.unpack_from(self._ring.view, at + EQE_OWNER)[0] != owner(self.consumed, self.slots):
            return None
        fields = EQE.unpack_from(self._ring.view, at)
        self.consumed += 1
        happened = interrupt - ((interrupt - fields[8]) & 0xFFFFFFFF)
        return Eqe(EqeType(fields[0]), fields[1], fields[2:8], interrupt, happened)

    def arm(self) -> None:
        """Tell the device what was consumed, and ask for an interrupt at the next event."""
        COUNTER.pack_into(self._record.view, DB_CONSUMER, self.consumed)
        self.device.write_doorbell(doorbell_offset(Doorbell.EQ_ARM, self.eqn), 1)


def handle(queue: EventQueue, handlers: dict[EqeType, Callable[[Eqe], None]], scheduler: Scheduler,
           irq_ns: int) -> Steps[None]:  # fmt: skip
    """One interrupt: ``irq_ns`` until the first event is dispatched, then all that are there."""
    entered = scheduler.clock()
    yield irq_ns
    while event := queue.poll(entered):
        handlers[event.type](event)
    queue.arm()
