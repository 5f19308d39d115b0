"""Links: rate, delay, MTU, queue; where a packet gets onto the wire and when it comes off it.

Each NIC has a cable with two directed links: row ``2 i - 1`` is what NIC i sends into, row ``2 i`` what leads to it.
With a switch the first ends at the switch, and the second starts with an output queue of it. Without, every NIC has a
wire to every other: the second link is only the place of what happens on the way in (port down, impairments), with no
queue, rate or delay of its own. Kernels call the row of a link ``way``.

A packet is *offered* to a link, queues while the link is busy or paused, *starts*, and arrives when its last bit does.
A plain link needs none of that: NIC ports pace themselves, so its packets start at once (``send``).
"""

from nicemu._jit import call, cold, jit
from nicemu.fabric import pause
from nicemu.fabric.impair import suffer
from nicemu.fabric.multicast import has_member
from nicemu.tables import units
from nicemu.tables.capture import capture
from nicemu.tables.fabric_records import LinkDrop
from nicemu.tables.packets import clone_packet, free_packet
from nicemu.tables.rows import control, fabric, link, packet, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push
from nicemu.wire.size import FRAMING, wire_ns

DOWN, MTU, QUEUE, NO_DESTINATION = (int(reason) for reason in LinkDrop)
LINK_DROP, LINK_OUT, LINK_IN = int(Ev.LINK_DROP), int(Ev.LINK_OUT), int(Ev.LINK_IN)


@jit
def uplink(nic_number):
    """Row of the link that a NIC sends into."""
    return 2 * nic_number - 1


@jit
def downlink(nic_number):
    """Row of the link that leads to a NIC."""
    return 2 * nic_number


@cold
def drop(world, way, p, reason):
    """The link loses a packet for a reason of its own."""
    row = packet(world, p)
    wire = link(world, way)
    if reason == DOWN:
        wire.down_drops += 1
    elif reason == MTU:
        wire.mtu_drops += 1
    elif reason == QUEUE:
        wire.queue_drops += 1
    trace(world, LINK_DROP, wire.nic, row.opcode, row.psn, row.dest_qpn, reason)
    free_packet(world, p)


@jit
def onto_wire(world, way, p, size):
    """The one place where a packet gets onto link ``way``, whether it comes out or not; impairments have marked it.

    On a NIC's own link, and on one behind a switch, now is its first bit; on the way in of a mesh, when it was sent.
    """
    wire = link(world, way)
    wire.packets += 1
    wire.bytes += size
    if wire.captured == 1:
        capture(world, way, p)


@jit
def send(world, way, p):
    """A port hands over a packet whose serialisation starts now."""
    row = packet(world, p)
    wire = link(world, way)
    known = row.multicast == 0 and 0 < row.dest_nic <= fabric(world, 0).nics
    if known and wire.plain == 1 and link(world, downlink(row.dest_nic)).plain == 1:
        size = row.wire
        if size - FRAMING <= wire.mtu:
            onto_wire(world, way, p, size)
            onto_wire(world, downlink(row.dest_nic), p, size)
            took = wire_ns(size, wire.ps_per_byte)
            trace(world, LINK_OUT, wire.nic, row.opcode, row.psn, row.dest_qpn, took)
            arrival = control(world, 0).now + took + wire.delay_ns
            push(world, arrival, units.ARRIVE, p, 0)
            return 0
    return call(vector(world, units.LINK_SEND).address, world, way, p)


def link_send(world, way, p):
    """LINK_SEND: a packet for a link that has a queue, a switch or impairments, or for several NICs."""
    row = packet(world, p)
    if row.multicast == 0 and not 0 < row.dest_nic <= fabric(world, 0).nics:
        onto_wire(world, way, p, packet(world, p).wire)
        drop(world, way, p, NO_DESTINATION)
    elif link(world, way).up == 0:
        drop(world, way, p, DOWN)
    else:
        offer(world, way, p)
    return 0


@jit
def offer(world, way, p):
    """Start a packet, or queue it behind others; the MTU and the queue's limits drop it. 1: queued."""
    wire = link(world, way)
    size = packet(world, p).wire
    if size - FRAMING > wire.mtu:
        drop(world, way, p, MTU)
        return 0
    now = control(world, 0).now
    if wire.head == 0 and wire.paused == 0 and wire.free_at <= now:
        return call(vector(world, units.LINK_START).address, world, way, p)
    if is_full(wire, size):
        drop(world, way, p, QUEUE)
        return 0
    enqueue(world, way, p, size)
    if wire.event == 0 and wire.paused == 0:
        wire.event = 1
        push(world, wire.free_at, units.LINK_FREE, way, 0)
    return 1


@jit
def is_full(wire, size):
    """The queue cannot take ``size`` more bytes (drop tail)."""
    if wire.queue_packets > 0 and wire.queued >= wire.queue_packets:
        return True
    return wire.queue_bytes > 0 and wire.bytes_queued + size > wire.queue_bytes


@jit
def enqueue(world, way, p, size):
    """Append to the queue."""
    wire = link(world, way)
    packet(world, p).next = 0
    if wire.head == 0:
        wire.head = p
    else:
        packet(world, wire.tail).next = p
    wire.tail = p
    wire.queued += 1
    wire.bytes_queued += size


@jit
def dequeue(world, way):
    """Take the first packet of a queue that has one; a switch gives its ingress port the room back."""
    wire = link(world, way)
    p = wire.head
    row = packet(world, p)
    wire.head = row.next
    size = packet(world, p).wire
    wire.queued -= 1
    wire.bytes_queued -= size
    if way & 1 == 0:
        pause.release(world, uplink(row.source_nic), size)
    return p


def link_free(world, way, _):
    """LINK_FREE: the packet before has left, or a pause is over: the next one starts."""
    wire = link(world, way)
    wire.event = 0
    if wire.head == 0 or wire.paused == 1:
        return 0
    now = control(world, 0).now
    if wire.free_at <= now:
        call(vector(world, units.LINK_START).address, world, way, dequeue(world, way))
    if wire.head != 0:
        wire.event = 1
        push(world, wire.free_at, units.LINK_FREE, way, 0)
    return 0


def start(world, way, p):
    """LINK_START: the first bit of a packet is on the wire. Impairments decide; what is left comes out at the end."""
    wire = link(world, way)
    now = control(world, 0).now
    size = packet(world, p).wire
    wire.free_at = now + wire_ns(size, wire.ps_per_byte)
    arrival = wire.free_at + wire.delay_ns
    row = packet(world, p)
    kind = LINK_OUT if way & 1 else LINK_IN
    trace(world, kind, wire.nic, row.opcode, row.psn, row.dest_qpn, wire.free_at - now)
    lost = wire.first_tap != 0 and wire.up == 1 and suffer(world, way, p)
    onto_wire(world, way, p, size)
    if wire.up == 0:
        drop(world, way, p, DOWN)
    elif lost:
        free_packet(world, p)
    elif wire.first_tap == 0:
        come_out(world, way, p, arrival)
    else:
        deliver(world, way, p, arrival)
    return 0


@jit
def when(wire, arrival):
    """The arrival of a packet as the rules decided: a late one is overtaken, any other keeps its place."""
    arrival += wire.extra_ns
    if wire.late_ns > 0:
        return arrival + wire.late_ns
    arrival = max(arrival, wire.in_order_at)
    wire.in_order_at = arrival
    return arrival


@jit
def deliver(world, way, p, arrival):
    """Give a packet that the rules let through, and its copies, to the far end."""
    wire = link(world, way)
    arrival = when(wire, arrival)
    copies, copy_ns = wire.copies, wire.copy_ns
    for _ in range(copies):
        twin = clone_packet(world, p)
        if twin != 0:
            wire.duplicated += 1
            come_out(world, way, twin, arrival + copy_ns)
    come_out(world, way, p, arrival)


@jit
def come_out(world, way, p, arrival):
    """The far end of link ``way``: the switch, the NIC, or, without a switch, the way in to each NIC it is for."""
    f = fabric(world, 0)
    if way & 1 == 0:
        push(world, arrival, units.ARRIVE, p, 0)
    elif f.switched == 1:
        push(world, arrival + f.latency_ns, units.SWITCH_IN, p, way)
    elif packet(world, p).multicast == 0:
        come_in(world, downlink(packet(world, p).dest_nic), p, arrival)
    else:
        for k in range(1, f.nics + 1):
            if has_member(world, k, p):
                twin = clone_packet(world, p)
                if twin != 0:
                    packet(world, twin).dest_nic = k
                    come_in(world, downlink(k), twin, arrival)
        free_packet(world, p)


@jit
def come_in(world, way, p, arrival):
    """The way in to a NIC, without a switch: no rate, no delay; the link may be down and have impairments."""
    wire = link(world, way)
    lost = wire.first_tap != 0 and wire.up == 1 and suffer(world, way, p)
    onto_wire(world, way, p, packet(world, p).wire)
    if wire.up == 0:
        drop(world, way, p, DOWN)
    elif lost:
        free_packet(world, p)
    elif wire.first_tap == 0:
        push(world, arrival, units.ARRIVE, p, 0)
    else:
        arrival = when(wire, arrival)
        for _ in range(wire.copies):
            twin = clone_packet(world, p)
            if twin != 0:
                wire.duplicated += 1
                push(world, arrival + wire.copy_ns, units.ARRIVE, twin, 0)
        push(world, arrival, units.ARRIVE, p, 0)
