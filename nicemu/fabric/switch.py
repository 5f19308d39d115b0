"""The switch: store and forward, output queues, ECN marks, copies of multicast packets.

A packet is at its output when its last bit has arrived plus the switch's latency. The output's queue is that of the
link to the NIC. Left out: priorities, shared buffers, spanning trees; there is one switch. Raw frames are not marked.
"""

from nicemu._jit import jit
from nicemu.fabric import pause
from nicemu.fabric.draw import draw
from nicemu.fabric.link import downlink, offer, uplink
from nicemu.fabric.multicast import has_member
from nicemu.tables.packets import clone_packet, free_packet
from nicemu.tables.rows import fabric, link, packet
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

ECN_MARK = int(Ev.ECN_MARK)
MARK_STREAM = 1 << 21


@jit
def marks(world, way):
    """The output's queue is long enough to mark this packet: never up to ecn_min, always from ecn_max on, and with a
    chance that rises between them (random early detection on the present queue)."""
    f = fabric(world, 0)
    out = link(world, way)
    out.arrivals += 1
    if f.ecn_max == 0:
        return False
    if out.bytes_queued >= f.ecn_max:
        return True
    if out.bytes_queued <= f.ecn_min:
        return False
    chance = f.ecn_chance * (out.bytes_queued - f.ecn_min) // (f.ecn_max - f.ecn_min)
    return draw(f.seed, MARK_STREAM, way, out.arrivals) < chance


@jit
def output(world, way, p):
    """Queue a packet at the output that leads to its NIC."""
    row = packet(world, p)
    if marks(world, way) and row.ecn == 0 and row.transport != bth.CNP and row.transport != bth.RAW:
        row.ecn = 1
        link(world, way).ecn_marks += 1
        trace(world, ECN_MARK, link(world, way).nic, row.opcode, row.psn, row.dest_qpn, link(world, way).bytes_queued)
    size = row.wire
    ingress = uplink(row.source_nic)
    if offer(world, way, p) == 1:
        pause.charge(world, ingress, size)


def switch_in(world, p, _):
    """SWITCH_IN: a packet has passed the switch and is at its output, or at that of each NIC with a member."""
    row = packet(world, p)
    if row.multicast == 0:
        output(world, downlink(row.dest_nic), p)
        return 0
    for k in range(1, fabric(world, 0).nics + 1):
        if has_member(world, k, p):
            twin = clone_packet(world, p)
            if twin != 0:
                packet(world, twin).dest_nic = k
                output(world, downlink(k), twin)
    free_packet(world, p)
    return 0
