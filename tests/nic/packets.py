"""Packets on the bench: made by hand, lost, doubled, held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicemu import _jit
from nicemu.tables import units
from nicemu.tables.records import PAYLOAD_BYTES
from nicemu.tables.wheel import schedule
from tests.nic.testbench import Bench, Qp

_schedule = schedule.load() if _jit.JIT else schedule
DROP, DOUBLE, LATE, HOLD = "drop", "double", "late", "hold"
"""What a wire can do to a packet: lose it, deliver it twice, deliver it later than those behind it, or hold it and all
behind it. A corrupted packet fails its ICRC and is dropped where it arrives: on the bench that is DROP."""
LATE_NS, HOLD_NS, COPY_NS = 30_000, 12_000, 1_500


def new_packet(bench: Bench) -> int:
    """A packet row, taken as the device takes one."""
    control = bench.world.control[0]
    number = int(control.packet_free)
    if number:
        control.packet_free = bench.world.packet[number].next
    else:
        number = int(control.packet_next)
        control.packet_next = number + 1
    return number


def arrive(bench: Bench, number: int, delay: int) -> None:
    """The packet reaches its NIC ``delay`` ns from now."""
    _schedule(bench.world.address, bench.world.now + delay, units.ARRIVE, number, 0)


def inject(bench: Bench, source: Qp, target: Qp, psn: int = 0, delay: int = 100, **fields: int) -> None:
    """Put a request on the wire; ``psn`` counts from the source's first. Calls of one moment arrive in order."""
    number = new_packet(bench)
    row = bench.world.packet[number]
    for name in row.dtype.names:
        row[name] = 0
    values: dict[str, Any] = (
        dict(
            source_nic=1,
            dest_nic=1,
            source_qpn=source.number,
            dest_qpn=target.number,
            kind=1,
            pkey=0xFFFF,
            ack_request=1,
            psn=(source.psn + psn) & 0xFFFFFF,
        )
        | fields
    )
    for name, value in values.items():
        row[name] = value
    arrive(bench, number, delay)


def _copy(bench: Bench, number: int) -> int:
    twin = new_packet(bench)
    table, payload = bench.world.packet, bench.world.payload
    table[twin] = table[number]
    payload[twin * PAYLOAD_BYTES : (twin + 1) * PAYLOAD_BYTES] = payload[
        number * PAYLOAD_BYTES : (number + 1) * PAYLOAD_BYTES
    ]
    return twin


def _arrivals(world) -> list[tuple[int, int]]:
    """(time, packet) of every packet on its way."""
    control, free = world.control[0], set()
    number = int(control.event_free)
    while number:
        free.add(number)
        number = int(world.event[number].next)
    rows = (world.event[number] for number in range(1, int(control.event_next)) if number not in free)
    return sorted((int(row.time), int(row.a)) for row in rows if row.kind == units.ARRIVE)


class Wire:
    """Watches every packet between departure and arrival. ``decide(row) -> DROP, DOUBLE, LATE, HOLD or None``."""

    def __init__(self, bench: Bench, decide: Callable[[Any], str | None]) -> None:
        self.bench, self.decide = bench, decide
        self.seen: list[tuple[int, int]] = []
        self.done: list[str] = []
        self.held: dict[int, int] = {}

    def _spoil(self, number: int) -> None:
        row, now = self.bench.world.packet[number], self.bench.world.now
        action, way = self.decide(row), int(row.dest_qpn)
        if action is not None:
            self.done.append(action)
        if action == HOLD:
            self.held[way] = max(self.held.get(way, 0), now + HOLD_NS)
        wait = max(self.held.get(way, 0) - now, 0)
        if action == LATE:
            arrive(self.bench, _copy(self.bench, number), LATE_NS)
        elif action != DROP and wait > COPY_NS:
            arrive(self.bench, _copy(self.bench, number), wait)
        if action == DOUBLE:
            arrive(self.bench, _copy(self.bench, number), wait + COPY_NS)
        if action in (DROP, LATE) or wait > COPY_NS:
            row.dest_qpn = 0

    def _look(self) -> None:
        world = self.bench.world
        for at in _arrivals(world):
            if at not in self.seen:
                self._spoil(at[1])
        self.seen = _arrivals(world)

    def step(self) -> bool:
        """The events of one time; False if none is left."""
        if not self.bench.engine_step():
            return False
        self._look()
        return True

    def run(self, limit: int = 1 << 60) -> None:
        """Run until nothing is left to do or ``limit`` ns."""
        while self.bench.world.now < limit and self.step():
            pass
