"""Event queues and their interrupt handlers (``mlx5_eq_comp_int``, ``mlx5_eq_async_int``).

The handler drains the queue, tells the device how far it came, and arms the queue again. If an EQE came in between,
arming raises the next interrupt at once, so none is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from nicemu.abi.rings import DB_CONSUMER, EQE, EQE_BYTES, EQE_OWNER, Doorbell, EqeType, doorbell_offset
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

COUNTER = struct.Struct("<q")


class Eqe(NamedTuple):
    """One event. ``type``: an ``EqeType``; ``interrupt``: when the handler that read it was entered, ns."""

    type: int
    subtype: int
    data: list[int]
    interrupt: int
    happened: int
    """When what it reports happened in the device, ns (the EQE carries the low 32 bits)."""


class EventQueue:
    """One event queue and what is done with its events."""

    def __init__(self, device: Any, eqn: int, slots: int, ring: Memory, record: Memory) -> None:
        self.device, self.eqn, self.slots, self._ring, self._record = device, eqn, slots, ring.view, record.view
        self._doorbell = doorbell_offset(Doorbell.EQ_ARM, eqn)
        self._mask, self._shift = slots - 1, slots.bit_length() - 1
        self.consumed = 0
        device.attach_eq(eqn, ring.address, slots, record.address)

    def poll(self, interrupt: int = 0) -> Eqe | None:
        """The next event, if the device has written it."""
        consumed, ring = self.consumed, self._ring
        at = (consumed & self._mask) * EQE_BYTES
        if ring[at + EQE_OWNER] != (consumed >> self._shift) + 1 & 1:  # ``rings.owner``, by its low byte
            return None
        kind, subtype, *data, time, _ = EQE.unpack_from(ring, at)
        self.consumed = consumed + 1
        return Eqe(kind, subtype, data, interrupt, interrupt - ((interrupt - time) & 0xFFFFFFFF))

    def arm(self) -> None:
        """Tell the device what was consumed, and ask for an interrupt at the next event."""
        COUNTER.pack_into(self._record, DB_CONSUMER, self.consumed)
        self.device.write_doorbell(self._doorbell, 1)


def handle(queue: EventQueue, handlers: dict[EqeType, Callable[[Eqe], None]], entered: int, arm: bool) -> Steps[None]:
    """One interrupt that came at ``entered``: all events that are there by the time the first is dispatched."""
    yield from ()
    while event := queue.poll(entered):
        handlers[event.type](event)  # type: ignore[index]  # an EqeType is its number
    if arm:
        queue.arm()
