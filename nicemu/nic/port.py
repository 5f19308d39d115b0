"""Egress port: departure in order, serialisation at the port's rate.

DEPART is the second DMA instant of a gather. What happens to the packet from then on is the link's (nicemu.fabric).
"""

from nicemu._jit import call, jit
from nicemu.fabric import link
from nicemu.fabric.size import wire_bytes
from nicemu.nic.dma import hold, move
from nicemu.tables import units
from nicemu.tables.packets import free_packet
from nicemu.tables.rows import nic, packet, qp, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth
from nicemu.wire.size import wire_ns

SEND = int(Ev.SEND)


@jit
def transmit(world, p, ready):
    """Queue packet ``p`` on its NIC's port; its payload is complete at ``ready`` ns at the earliest."""
    row = packet(world, p)
    n = nic(world, row.source_nic)
    depart = max(ready, n.port_free)
    hold(world, p, depart)
    row.wire = wire_bytes(world, p)
    n.port_free = depart + wire_ns(row.wire, n.ps_per_byte)
    push(world, depart, units.DEPART, p, qp(world, row.qp).incarnation)


def depart(world, p, incarnation):
    """DEPART: gather the payload, count, and put the packet on the link."""
    row = packet(world, p)
    n = nic(world, row.source_nic)
    if row.segments > 0 and not move(world, p, False):
        return call(vector(world, units.GATHER_FAILED).address, world, p, incarnation)
    n.packets_sent += 1
    n.bytes_sent += row.payload
    trace(world, SEND, row.source_nic, row.opcode, row.psn, row.dest_qpn, two(row.payload, row.source_qpn))
    row.segments = 0
    unreliable = row.transport == bth.UC or row.transport == bth.UD or row.transport == bth.RAW
    if unreliable and qp(world, row.qp).incarnation == incarnation:
        call(vector(world, units.SENT).address, world, row.qp, row.psn)
    if n.port_down:
        n.packets_dropped += 1
        free_packet(world, p)
        return 0
    if row.transport == bth.RAW:
        return call(vector(world, units.RAW_DEPART).address, world, p, 0)
    if row.dest_nic == 0 and row.multicast == 0:
        n.packets_dropped += 1
    return link.send(world, link.uplink(row.source_nic), p)
