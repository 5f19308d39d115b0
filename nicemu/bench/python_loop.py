"""An event loop in Python: what a simulation that stays in Python pays for an event, with more data than the first
caches hold, as programs have.
"""

from __future__ import annotations

import heapq
import random
import struct

from nicemu.bench.measure import Counts, Watch

EVENTS, PENDING, BUFFERS, BUFFER_BYTES = 20_000, 512, 2048, 2048
WQE = struct.Struct("<QIIQIIQQ")


class Packet:
    """What an event is about."""

    __slots__ = ("buffer", "number", "peer")

    def __init__(self, number: int) -> None:
        self.number, self.peer, self.buffer = number, number, bytearray(BUFFER_BYTES)


class Loop:
    """Packets that go round: each event packs 48 bytes, looks its peer up and schedules the next."""

    def __init__(self) -> None:
        order = random.Random(1)
        self.packets = {number: Packet(number) for number in range(BUFFERS)}
        for packet in self.packets.values():
            packet.peer = order.randrange(BUFFERS)
        self.heap = [(order.randrange(1000), number, number) for number in range(PENDING)]
        heapq.heapify(self.heap)

    def step(self, sequence: int) -> None:
        """One event."""
        time, _, number = heapq.heappop(self.heap)
        packet = self.packets[number]
        WQE.pack_into(packet.buffer, 0, time, number, 0, sequence, packet.peer, 0, 0, 0)
        heapq.heappush(self.heap, (time + 1 + sequence % 997, sequence, (packet.peer + sequence) % BUFFERS))

    def batch(self, watch: Watch) -> Counts:
        """Some events."""
        with watch:
            for sequence in range(EVENTS):
                self.step(sequence)
        return {"calls": EVENTS, "events": EVENTS}
