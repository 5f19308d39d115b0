"""Packet pool and egress port: departure in order, serialisation at the link's rate, arrival at the peer.

DEPART is the second DMA instant of a gather. Frames carry 82 bytes besides the payload (preamble, Ethernet, IPv4, UDP,
BTH, ICRC, FCS, gap).
"""

from nicemu._jit import call, jit
from nicemu.nic import units
from nicemu.nic.dma import hold, move
from nicemu.tables.heap import push, trap
from nicemu.tables.records import Trap
from nicemu.tables.rows import control, nic, packet, qp, vector
from nicemu.tables.trace import Ev, trace

MAX_PACKETS = 1 << 16
OVERHEAD_BYTES = 82
PACKETS_EXHAUSTED = int(Trap.PACKETS_EXHAUSTED)
SEND = int(Ev.SEND)


@jit
def new_packet(world, nic_number):
    """A cleared packet row, 0 with a trap if none is left."""
    c = control(world, 0)
    p = c.packet_free
    if p != 0:
        c.packet_free = packet(world, p).next
    else:
        p = c.packet_next
        if p >= MAX_PACKETS:
            trap(world, PACKETS_EXHAUSTED, p)
            return 0
        c.packet_next = p + 1
    row = packet(world, p)
    row.next = 0
    row.source_nic = nic_number
    row.kind = nic_number
    row.payload = 0
    row.segments = 0
    row.ack_request = 0
    row.solicited = 0
    row.verdict = 0
    row.last = 0
    row.imm = 0
    row.syndrome = 0
    row.length = 0
    return p


@jit
def free_packet(world, p):
    """Give a packet back."""
    c = control(world, 0)
    packet(world, p).next = c.packet_free
    c.packet_free = p


@jit
def transmit(world, p, ready):
    """Queue packet ``p`` on its NIC's port; its payload is complete at ``ready`` ns at the earliest."""
    row = packet(world, p)
    n = nic(world, row.source_nic)
    depart = max(ready, n.port_free)
    hold(world, p, depart)
    n.port_free = depart + (row.payload + OVERHEAD_BYTES) * n.ps_per_byte // 1000
    push(world, depart, units.DEPART, p, qp(world, row.qp).incarnation)


def depart(world, p, incarnation):
    """DEPART: gather the payload, count, and put the packet on the link."""
    row = packet(world, p)
    n = nic(world, row.source_nic)
    if row.segments > 0 and not move(world, p, False):
        return call(vector(world, units.GATHER_FAILED).address, world, p, incarnation)
    n.packets_sent += 1
    n.bytes_sent += row.payload
    trace(world, SEND, row.source_nic, row.opcode, row.psn, row.dest_qpn, row.payload)
    row.segments = 0
    if row.dest_nic == 0:
        n.packets_dropped += 1
        free_packet(world, p)
        return 0
    wire = (row.payload + OVERHEAD_BYTES) * n.ps_per_byte // 1000
    push(world, control(world, 0).now + wire + n.link_delay_ns, units.ARRIVE, p, 0)
    return 0
