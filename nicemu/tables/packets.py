"""The packet pool: packets are rows with a payload buffer each, for all NICs and links of a lab.

A payload buffer has ``HEADROOM`` bytes in front of the payload: a datagram's GRH goes there. A packet that is free
borrows nothing.
"""

from nicemu._jit import cold, copy_bytes, jit
from nicemu.tables.records import HEADROOM, PAYLOAD_BYTES, Trap
from nicemu.tables.rows import control, frame, packet, payload_base
from nicemu.tables.trap import trap

PACKETS_EXHAUSTED = int(Trap.PACKETS_EXHAUSTED)


@jit
def payload_address(world, p):
    """Host address of a packet's payload."""
    return payload_base(world) + p * PAYLOAD_BYTES + HEADROOM


@jit
def payload_of(world, p):
    """Host address of a packet's payload, wherever it is (``nic.lent``)."""
    row = packet(world, p)
    return row.lent_at if row.lent != 0 else payload_address(world, p)


@jit
def give_back(world, row):
    """The packet borrows nothing any more."""
    if row.lent != 0:
        frame(world, row.lent).lent -= 1
        row.lent = 0


@jit
def take(world):
    """A packet row with whatever its last user left in it; 0 with a trap if none is left."""
    c = control(world, 0)
    p = c.packet_free
    if p != 0:
        c.packet_free = packet(world, p).next
        return p
    p = c.packet_next
    if p >= c.packet_end:
        trap(world, PACKETS_EXHAUSTED, p)
        return 0
    c.packet_next = p + 1
    return p


@jit
def new_packet(world, nic_number):
    """A cleared packet of a NIC, 0 with a trap if none is left."""
    p = take(world)
    if p == 0:
        return 0
    row = packet(world, p)
    row.next = 0
    row.segments = 0
    row.grh = 0
    row.payload = 0
    row.length = 0
    row.ack_request = 0
    row.solicited = 0
    row.last = 0
    row.syndrome = 0
    row.verdict = 0
    row.transport = 0
    row.imm = 0
    row.srqn = 0
    row.av = 0
    row.multicast = 0
    row.ecn = 0
    row.fault = 0
    row.corrupt = 0
    row.tagging = 0
    row.source_nic = nic_number
    row.kind = nic_number
    row.pkey = 0xFFFF
    return p


@cold
def clone_packet(world, p):
    """A second packet with the same fields and payload, which is not lent, 0 with a trap if none is left."""
    twin = take(world)
    if twin == 0:
        return 0
    row, copy = packet(world, p), packet(world, twin)
    copy_row(copy, row)
    copy_bytes(payload_address(world, twin), payload_address(world, p), row.payload)
    return twin


@jit
def copy_row(to, row):
    """Everything a packet carries; its DMA segments belong to the NIC that made them and stay behind."""
    to.next = 0
    to.segments = 0
    to.source_nic = row.source_nic
    to.dest_nic = row.dest_nic
    to.transport = row.transport
    to.opcode = row.opcode
    to.psn = row.psn
    to.pkey = row.pkey
    to.dest_qpn = row.dest_qpn
    to.source_qpn = row.source_qpn
    to.ack_request = row.ack_request
    to.solicited = row.solicited
    to.syndrome = row.syndrome
    to.msn = row.msn
    to.va = row.va
    to.rkey = row.rkey
    to.length = row.length
    to.imm = row.imm
    to.compare_add = row.compare_add
    to.swap = row.swap
    to.payload = row.payload
    to.wire = row.wire
    to.grh = row.grh
    to.verdict = row.verdict
    to.qp = row.qp
    to.entry = row.entry
    to.result = row.result
    to.last = row.last
    to.kind = row.kind
    to.srqn = row.srqn
    to.qkey = row.qkey
    to.av = row.av
    to.multicast = row.multicast
    to.ecn = row.ecn
    to.fault = row.fault
    to.corrupt = row.corrupt
    to.tagging = 0
    to.incarnation = row.incarnation
    to.sgid_high = row.sgid_high
    to.sgid_low = row.sgid_low
    to.dgid_high = row.dgid_high
    to.dgid_low = row.dgid_low
    to.flow_label = row.flow_label
    to.traffic_class = row.traffic_class
    to.hop_limit = row.hop_limit
    to.offload = row.offload


@jit
def free_packet(world, p):
    """Give a packet back."""
    c, row = control(world, 0), packet(world, p)
    give_back(world, row)
    row.next = c.packet_free
    c.packet_free = p
