"""Event queues and their interrupt handlers (``mlx5_eq_comp_int``, ``mlx5_eq_async_int``).

The handler drains the queue, tells the device how far it came, and arms the queue again. If an EQE came in between,
arming raises the next interrupt at once, so none is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from nicemu.abi.rings import DB_CONSUMER, EQE, EQE_BYTES, EQE_OWNER, Doorbell, EqeType, doorbell_offset
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

PUT_COUNTER, GET_EQE = struct.Struct("<q").pack_into, EQE.unpack_from


Handler = Callable[[int, list[int], int, int], None]
"""What is done with an event, ``handler(subtype, data, entered, happened)``: its six words, when the interrupt handler
that read it was entered, and when what it reports happened in the device, ns (the EQE carries the low 32 bits)."""


class EventQueue:
    """One event queue and what is done with its events."""

    def __init__(self, device: Any, eqn: int, slots: int, ring: Memory, record: Memory) -> None:
        self.device, self.eqn, self.slots = device, eqn, slots
        self._ring, self._record = ring.view, record.view
        self._doorbell = doorbell_offset(Doorbell.EQ_ARM, eqn)
        self._mask, self._shift = slots - 1, slots.bit_length() - 1
        self.consumed = 0
        device.attach_eq(eqn, ring.address, slots, record.address)

    def handle(self, handlers: dict[EqeType, Handler], entered: int, arm: bool) -> Steps[None]:
        """One interrupt that came at ``entered``: all events that are there by the time the first is dispatched."""
        yield from ()
        ring, consumed = self._ring, self.consumed
        at = (consumed & self._mask) * EQE_BYTES
        while ring[at + EQE_OWNER] == (consumed >> self._shift) + 1 & 1:  # ``rings.owner``, by its low byte
            kind, subtype, *data, time, _ = GET_EQE(ring, at)
            self.consumed = consumed = consumed + 1
            at = (consumed & self._mask) * EQE_BYTES
            handlers[kind](subtype, data, entered, entered - (entered - time & 0xFFFFFFFF))
        if arm:
            PUT_COUNTER(self._record, DB_CONSUMER, consumed)
            self.device.write_doorbell(self._doorbell, 1)

    def arm(self) -> None:
        """Tell the device what was consumed, and ask for an interrupt at the next event."""
        PUT_COUNTER(self._record, DB_CONSUMER, self.consumed)
        self.device.write_doorbell(self._doorbell, 1)
