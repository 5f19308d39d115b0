"""Raw packet QPs, sending: a WQE is a frame, or with TSO many. The port pads it to Ethernet's minimum, fills in the
checksums it was asked for, and sends it where its destination MAC address is.

That is a NIC of the lab, or all of them for a multicast frame and for an address that nobody has (a switch floods
those). The sender's own NIC gets the frame too if the address is its own or one of its flow rules wants it; what goes
to another NIC as well is looped back inside and does not take the wire twice.
"""

from nicemu._jit import copy_bytes, fill_bytes, jit
from nicemu.abi import rings
from nicemu.abi.verbs import SendFlag
from nicemu.fabric import link
from nicemu.nic import dma
from nicemu.nic.checksum import fill_checksums
from nicemu.nic.dma import translate_sges
from nicemu.nic.ethernet import MULTICAST_BIT, read_frame
from nicemu.nic.psn import psn_add
from nicemu.nic.qp_type import TSO
from nicemu.nic.requester import gather
from nicemu.nic.segmentation import header_bytes, segment_bytes, segment_headers
from nicemu.nic.send_queue import entry_of, wqe_address
from nicemu.nic.steering import wants
from nicemu.tables import units
from nicemu.tables.packets import clone_packet, payload_address
from nicemu.tables.rows import control, fabric, headers, nic, packet, qp
from nicemu.tables.rows import link as link_row
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth
from nicemu.wire.size import MIN_FRAME, wire_ns

IP_CSUM = int(SendFlag.IP_CSUM)


def raw_build(world, q_row, p):
    """RAW_BUILD: packet ``p`` is the frame at ``sq_next``, or the segment at ``sq_offset`` of it. A dma verdict."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    at = wqe_address(q, q.sq_next)
    row = packet(world, p)
    row.transport = bth.RAW
    row.opcode = bth.RAW_FRAME
    row.psn = psn_add(e.first_psn, q.sq_offset)
    row.dest_nic = row.dest_qpn = row.msn = 0
    row.source_qpn = q.number
    row.qp = q_row
    row.entry = q.sq_next
    if e.opcode == TSO:
        return build_segment(world, q, p, e, at)
    row.offload = 1 if e.flags & IP_CSUM else 0
    row.last = 1
    row.payload = e.length
    return gather(world, q, p, e, at, 0)


@jit
def build_segment(world, q, p, e, at):
    """Segment ``sq_offset``: headers now, data when it departs. A dma verdict."""
    row = packet(world, p)
    size, mss, k = header_bytes(at), segment_bytes(at), q.sq_offset
    sges = at + rings.SEND_HEADER_BYTES
    if size + e.num_sge * rings.SGE_BYTES > q.tso_header or size + mss > q.mtu:  # the program changed it meanwhile
        return dma.BAD_KEY
    data = min(max(e.length - k * mss, 0), mss)
    row.offload = 1
    row.last = 1 if row.psn == e.last_psn else 0
    row.payload = size + data
    row.grh = -size
    copy_bytes(payload_address(world, p), sges + e.num_sge * rings.SGE_BYTES, size)
    segment_headers(world, p, at, k, row.last)
    return translate_sges(world, p, q.pd, sges, e.num_sge, k * mss, data, False)


@jit
def pad(world, p):
    """Zeros up to the shortest frame that Ethernet has."""
    row = packet(world, p)
    if row.payload < MIN_FRAME:
        fill_bytes(payload_address(world, p) + row.payload, 0, MIN_FRAME - row.payload)
        row.payload = MIN_FRAME


@jit
def nic_of(world, mac):
    """Number of the NIC that has a MAC address; 0: none, or a multicast address."""
    if mac & MULTICAST_BIT:
        return 0
    for number in range(1, fabric(world, 0).nics + 1):
        if nic(world, number).mac == mac:
            return number
    return 0


@jit
def route(world, p):
    """Where the frame read last goes: ``dest_nic``, ``multicast``. A twin goes to the own NIC."""
    row = packet(world, p)
    own = row.source_nic
    row.dest_nic = nic_of(world, headers(world, 0).dst_mac)
    if row.dest_nic == own or not wants(world, nic(world, own)):
        row.multicast = 1 if row.dest_nic == 0 and fabric(world, 0).nics > 1 else 0
        return
    if row.dest_nic != 0:
        twin = clone_packet(world, p)
        if twin != 0:
            packet(world, twin).dest_nic = own
            wire = link_row(world, link.uplink(own))
            last_bit = control(world, 0).now + wire_ns(packet(world, twin).wire, wire.ps_per_byte)
            push(world, last_bit + wire.delay_ns, units.ARRIVE, twin, 0)
        return
    row.dest_nic = own
    row.multicast = 1 if fabric(world, 0).nics > 1 else 0


def raw_depart(world, p, _):
    """RAW_DEPART: the frame's bytes are all there and its first bit goes out."""
    row = packet(world, p)
    row.grh = 0
    pad(world, p)
    read_frame(world, p)
    if row.offload:
        fill_checksums(world, p)
    route(world, p)
    if row.dest_nic == 0 and row.multicast == 0:
        nic(world, row.source_nic).packets_dropped += 1
    return link.send(world, link.uplink(row.source_nic), p)
