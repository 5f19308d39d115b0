"""What docs/performance.md promises, as gates: a row, a unit, and how much of it is required."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nicemu.bench import limits
from nicemu.bench.results import Results
from nicemu.bench.rows import fabric, peers, verbs
from nicemu.bench.units import Clock, median, number, ratio


@dataclass(frozen=True)
class Gate:
    """``unit`` of a row, or of its ratio to ``limit``, is ``at`` least or most ``need``."""

    name: str
    row: str
    unit: str
    need: float
    at: Literal["least", "most"] = "least"
    limit: str = ""

    def measured(self, results: Results, clock: Clock) -> float | None:
        """The number, None if the run does not have it. At most so many times a limit is the ratio upside down."""
        row = results.row(self.row)
        if row is None:
            return None
        if not self.limit:
            return median(row.readings, self.unit, clock)
        found = next((limit for limit in row.limits if limit.name == self.limit and limit.readings), None)
        if found is None:
            return None
        share = ratio(row, found)
        return share if self.at == "least" else 1 / share

    def met(self, amount: float) -> bool:
        """So much is enough."""
        return amount >= self.need if self.at == "least" else amount <= self.need

    @property
    def required(self) -> str:
        """In words."""
        of = f"x {'the cost of ' if self.at == 'most' else ''}{self.limit}" if self.limit else self.unit
        return f"at {self.at} {number(self.need)} {of}"


WRITE_64K = "RC WRITE 64 KiB, MTU 4096"
WRITE_1M = "RC WRITE 1 MiB, MTU 4096"
MOST: Literal["most"] = "most"
GATES = (
    Gate("full model against the bare loop", f"{WRITE_64K}, arena", "packets/s", 0.75, limit=limits.BARE),
    Gate("program-owned memory", f"{WRITE_64K}, program", "x real time", 0.4),
    Gate("1 MiB against memcpy, arena", f"{WRITE_1M}, arena", "GB/s", 0.4, limit=limits.MEMCPY),
    Gate("1 MiB against memcpy, program-owned", f"{WRITE_1M}, program", "GB/s", 0.25, limit=limits.MEMCPY),
    Gate("small messages, 1 QP", "RC WRITE 64 B, MTU 4096, arena", "messages/s", 2e6),
    Gate("small messages, 1,000 QPs", "RC WRITE 64 B, 1,000 QPs", "messages/s", 1.5e6),
    Gate("against ns-3", "RC WRITE 64 KiB beside peers", "packets/s", 12, limit=peers.NS3),
    Gate("without payload against with it", "RC WRITE 64 KiB, no payload", "packets/s", 2, limit=verbs.WHOLE),
    Gate("256 NICs on a switch", "256 NICs on a switch", "packets/s", 1.5e6),
    Gate("a packet among 256 NICs against among 2", "256 NICs on a switch", "packets/s", 1.4, MOST, fabric.TWO),
    Gate("page faults, batched", "page faults, many pages at once", "pages/s", 50_000),
    Gate("page faults, one round trip each", "page faults, WRITE, local page", "pages/s", 20_000),
    Gate("ping-pong through pyverbs", "ping-pong 64 B through pyverbs", "round trips/s", 25_000),
    Gate("poll of an empty CQ", "poll_cq, empty, nothing pending", "us", 1.0, MOST),
    Gate("cold first run", "cold first run", "s", 25, MOST),
    Gate("warm run", "warm nicemu run of a hello program", "s", 1.2, MOST),
    Gate("help", "nicemu --help", "s", 0.2, MOST),
    Gate("memory of an idle lab", "idle lab", "MB", 200, MOST),
    Gate("memory of an RC QP", "an RC QP, device rows", "bytes", 1024, MOST),
    Gate("memory of 1 M pages, MTT and PTE", "1 M mapped pages, MTT and PTE", "MB", 24, MOST),
    Gate("memory of 1 M pages, all", "1 M mapped pages, with frames and reverse maps", "MB", 64, MOST),
)


def judged(results: Results, clock: Clock) -> list[tuple[Gate, float | None]]:
    """Every gate with what was measured."""
    return [(gate, gate.measured(results, clock)) for gate in GATES]
