"""The flow on SimPy: a process sends, each packet's arrival is a process, payload is copied in and out."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any

from nicemu.bench.measure import Absent, Counts, Watch

PAYLOAD, PACKETS, WINDOW, ACK_EVERY = 4096, 4000, 128, 16
NS_PER_BYTE, DELAY_NS, HEADERS, ACK_BYTES = 0.08, 1000, 70, 75


class Flow:
    """One flow of ``PACKETS`` packets."""

    def __init__(self, simpy: Any) -> None:
        self.environment = simpy.Environment()
        self.source, self.target = bytes(range(256)) * (PAYLOAD // 256), bytearray(PAYLOAD)
        self.sent = self.received = self.acked = 0
        self.opened: Any = self.environment.event()

    def send(self) -> Generator[Any]:
        """The sender: a packet every time the link is free, while the window allows."""
        for _ in range(PACKETS):
            while self.sent - self.acked >= WINDOW:
                self.opened = self.environment.event()
                yield self.opened
            payload = bytearray(self.source)
            self.sent += 1
            yield self.environment.timeout((PAYLOAD + HEADERS) * NS_PER_BYTE)
            self.environment.process(self.arrive(payload))

    def arrive(self, payload: bytearray) -> Generator[Any]:
        """A packet on its way, and what the receiver does with it."""
        yield self.environment.timeout(DELAY_NS)
        self.target[:] = payload
        self.received += 1
        if self.received % ACK_EVERY == 0:
            yield self.environment.timeout(DELAY_NS + ACK_BYTES * NS_PER_BYTE)
            self.acked += ACK_EVERY
            if not self.opened.triggered:
                self.opened.succeed()


def batch(watch: Watch) -> Counts:
    """Run one flow.

    :raises Absent: SimPy is not installed.
    """
    try:
        simpy = importlib.import_module("simpy")
    except ModuleNotFoundError:
        raise Absent("SimPy is not installed (pip install nicemu[bench])") from None
    flow = Flow(simpy)
    flow.environment.process(flow.send())
    with watch:
        flow.environment.run()
    assert flow.received == PACKETS and flow.target == flow.source, "the SimPy flow is wrong"
    return {"packets": PACKETS, "bytes": PACKETS * PAYLOAD, "virtual_ns": float(flow.environment.now)}
