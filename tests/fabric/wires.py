"""NICs with nothing behind their ports: packets go out by hand and are looked at where they arrive."""

from __future__ import annotations

from typing import Any

from nicemu import _jit
from nicemu._jit import jit
from nicemu.config import NicProfile
from nicemu.config.fabric_profile import FabricProfile, Impairment
from nicemu.config.nic_profile import LinkProfile
from nicemu.fabric.cable import rows_of
from nicemu.fabric.fabric import Fabric
from nicemu.nic.device import Device
from nicemu.nic.engine import Engine
from nicemu.tables import World, units
from nicemu.tables.packets import free_packet
from nicemu.tables.records import INFINITY, Stop
from nicemu.tables.rows import packet
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import schedule
from nicemu.tables.world import Capacity
from nicemu.wire import opcode as bth
from nicemu.wire.size import FRAMING, ip_bytes
from tests.nic.testbench import default_image

_schedule = schedule.load() if _jit.JIT else schedule
_ip_bytes = getattr(ip_bytes, "py_func", ip_bytes)
RECEIVE = int(Ev.RECEIVE)
GBPS, DELAY_NS = 100, 1000
SEND_BYTES = 82
"""A SEND without payload takes so many bytes of the wire's time."""


@jit
def note(world, row, what):
    """One row of the log: who got which packet in what shape."""
    trace(world, RECEIVE, row.dest_nic, row.psn, what, row.corrupt, row.ecn)


def sink(world, p, _):
    """ARRIVE without a NIC behind it: note the packet and take it out."""
    row = packet(world, p)
    note(world, row, row.fault)
    free_packet(world, p)
    return 0


class Wires:
    """``nics`` NICs of 100 Gb/s on wires of 1 us, or as ``fabric`` and ``impairments`` say (fields of the YAML)."""

    def __init__(self, nics: int = 2, fabric: dict | None = None, impairments: tuple = (), seed: int = 1) -> None:
        self.world = World(Capacity(nics=nics))
        self.engine = Engine(self.world)
        self.world.vector[units.ARRIVE].address = _jit.install(sink)
        profile = NicProfile(link=LinkProfile(rate_gbps=GBPS, delay_ns=DELAY_NS))
        self.devices = [Device(self.world, i, profile, default_image()) for i in range(nics)]
        rules = [Impairment(**fields) for fields in impairments]
        self.fabric = Fabric(self.world, FabricProfile(**fabric or {}), rules, seed)
        self.world.control[0].trace = 1
        self.sent = 0

    def packet(self, **fields: int) -> int:
        """A packet row: an RC SEND_ONLY of NIC 1 for NIC 2, with ``fields`` on top."""
        row_number = int(self.world.control[0].packet_free)
        if row_number:
            self.world.control[0].packet_free = self.world.packet[row_number].next
        else:
            row_number = int(self.world.control[0].packet_next)
            self.world.control[0].packet_next += 1
        row = self.world.packet[row_number]
        for name in row.dtype.names:
            row[name] = 0
        values = dict(source_nic=1, dest_nic=2, opcode=bth.ONLY, dest_qpn=7, source_qpn=5, psn=self.sent) | fields
        for name, value in values.items():
            row[name] = value
        to = self.world.av[int(row.av)] if row.av else row
        six = bool(to.dgid_high) or int(to.dgid_low) >> 32 not in (0, 0xFFFF)
        row.wire = _ip_bytes(row.transport, row.opcode, row.payload, six) + FRAMING
        return row_number

    def send(self, at: int = 0, **fields: int) -> None:
        """The port of the packet's NIC starts to send it at ``at`` ns; PSNs count up by themselves."""
        _schedule(self.world.address, at, units.DEPART, self.packet(**fields), 0)
        self.sent += 1

    def burst(self, count: int, every: int = 0, **fields: int) -> None:
        """``count`` packets, one every so many ns."""
        for k in range(count):
            self.send(k * every, **fields)

    def run(self, until: int = INFINITY) -> None:
        """Let things happen."""
        stop = self.engine.run(until)
        assert stop in (Stop.IDLE, Stop.DEADLINE), self.world.trap_error()

    def log(self, kind: Ev) -> list[tuple[int, ...]]:
        """(time, nic, a, b, c, d) of each row of a kind."""
        rows = self.world.trace[: int(self.world.control[0].trace_count)].tolist()
        return [(time, *rest) for time, _, number, *rest in rows if number == kind]

    def arrivals(self) -> list[tuple[int, int, int]]:
        """Run; then (time, nic, psn) of each packet that arrived."""
        self.run()
        return [(time, nic, psn) for time, nic, psn, *_ in self.log(Ev.RECEIVE)]

    def psns(self) -> list[int]:
        """Run; then the PSNs that arrived, in order."""
        return [psn for _, _, psn in self.arrivals()]

    def history(self) -> list[tuple[int, ...]]:
        """Run; then everything that was logged."""
        self.run()
        return self.world.trace[: int(self.world.control[0].trace_count)].tolist()

    def link(self, nic: int, out: bool = True) -> Any:
        """The row of a link of NIC ``nic`` (from 1)."""
        return self.world.link[rows_of(nic)[0 if out else 1]]

    def free_packets(self) -> int:
        """Packets of those ever used that are free."""
        count, at = 0, int(self.world.control[0].packet_free)
        while at:
            count, at = count + 1, int(self.world.packet[at].next)
        return count

    @property
    def leaked(self) -> int:
        """Packet rows taken and not given back."""
        return int(self.world.control[0].packet_next) - 1 - self.free_packets()

    def total(self, name: str) -> int:
        """A counter, over all links."""
        return int(self.world.link[name].sum())


def joins(wires: Wires, nic: int, qpn: int, low: int, high: int = 0xFF0E << 48) -> None:
    """A QP of NIC ``nic`` (from 1) becomes a member of a multicast group."""
    first = int(wires.world.nic[nic].mcast_base)
    rows = wires.world.mcast[first : first + int(wires.world.nic[nic].mcast_count)]
    free = int((rows.nic == 0).argmax())
    row, wires.world.nic[nic].mcast_end = rows[free], first + free + 1
    row.nic, row.qpn, row.mgid_high, row.mgid_low = nic, qpn, signed(high), low


def signed(value: int) -> int:
    """Sixty-four bits as the tables hold them."""
    return value - (1 << 64) if value >> 63 else value


__all__ = ["DELAY_NS", "SEND_BYTES", "Wires", "joins", "signed"]
