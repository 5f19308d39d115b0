"""Unreliable datagrams: addressing by address handle, Q_Keys, the GRH in front of received data (Linux rxe_av.c)."""

from nicemu._jit import jit, load8, load32, load64, store8
from nicemu.abi import rings
from nicemu.fabric.size import is_ipv6
from nicemu.nic.big_endian import store_big
from nicemu.nic.defects import CONTROLLED_QKEY, has
from nicemu.tables.packets import payload_address
from nicemu.tables.rows import av, gid, nic, packet, qp
from nicemu.wire import opcode as bth

GRH_BYTES = 40
MULTICAST_QPN = 0xFFFFFF
USE_QP_QKEY = 0x80000000
UDP = 17
IP_HEADER, UDP_HEADER, BTH_BYTES, DETH_BYTES, IMM_BYTES, ICRC_BYTES = 20, 8, 12, 8, 4, 4


@jit
def load_vector(a, words):
    """Fill an address vector from seven words of a mailbox, ``SGID_INDEX`` to ``SL`` of AvField and QpField alike."""
    a.sgid_index = load64(words)
    a.dgid_high = load64(words + 8)
    a.dgid_low = load64(words + 16)
    a.flow_label = load64(words + 24)
    a.traffic_class = load64(words + 32)
    a.hop_limit = load64(words + 40)
    a.sl = load64(words + 48)
    a.ipv6 = 1 if is_ipv6(a.dgid_high, a.dgid_low) else 0
    a.valid = 1


@jit
def find_av(world, q_row, number):
    """Row of an address handle that this QP may use, 0: none, or of another PD."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    if number <= 0 or number >= n.av_count:
        return 0
    row = n.av_base + number
    a = av(world, row)
    return row if a.valid and a.pd == q.pd else 0


@jit
def address(world, p, a_row, at):
    """Address datagram ``p`` from the WQE at ``at``: peer, Q_Key, GIDs. A Q_Key with its top bit set means the QP's."""
    row = packet(world, p)
    q = qp(world, row.qp)
    a = av(world, a_row)
    row.av = a_row
    row.dest_nic = a.dest_nic
    row.multicast = a.multicast
    row.dest_qpn = load32(at + rings.SEND_REMOTE_QPN) & 0xFFFFFF
    qkey = load32(at + rings.SEND_REMOTE_QKEY)
    row.qkey = q.qkey if qkey & USE_QP_QKEY and not has(world, q.nic, CONTROLLED_QKEY) else qkey
    n = nic(world, q.nic)
    source = gid(world, n.gid_base + a.sgid_index)
    row.sgid_high = source.high
    row.sgid_low = source.low
    row.dgid_high = a.dgid_high
    row.dgid_low = a.dgid_low
    row.flow_label = a.flow_label
    row.traffic_class = a.traffic_class
    row.hop_limit = a.hop_limit


@jit
def is_ipv4(high, low):
    """A GID that is an IPv4-mapped address."""
    return high == 0 and (low >> 32) & 0xFFFFFFFF == 0xFFFF


@jit
def datagram_bytes(row):
    """Bytes from the UDP header to the ICRC."""
    imm = IMM_BYTES if row.opcode == bth.SEND + bth.ONLY_IMM else 0
    return UDP_HEADER + BTH_BYTES + DETH_BYTES + imm + ((row.payload + 3) & ~3) + ICRC_BYTES


@jit
def write_grh(world, p):
    """The 40 bytes in front of a datagram: a GRH, or with IPv4 its header in the last 20 of them (verbs.h ibv_grh)."""
    row = packet(world, p)
    row.grh = GRH_BYTES
    at = payload_address(world, p) - GRH_BYTES
    if not is_ipv4(row.dgid_high, row.dgid_low):
        store_big(at, 6 << 28 | (row.traffic_class & 0xFF) << 20 | row.flow_label & 0xFFFFF, 4)
        store_big(at + 4, datagram_bytes(row), 2)
        store_big(at + 6, UDP, 1)
        store_big(at + 7, row.hop_limit & 0xFF, 1)
        store_big(at + 8, row.sgid_high, 8)
        store_big(at + 16, row.sgid_low, 8)
        store_big(at + 24, row.dgid_high, 8)
        store_big(at + 32, row.dgid_low, 8)
        return
    for i in range(GRH_BYTES - IP_HEADER):
        store8(at + i, 0)
    at += GRH_BYTES - IP_HEADER
    store_big(at, 0x4500 | row.traffic_class & 0xFF, 2)
    store_big(at + 2, IP_HEADER + datagram_bytes(row), 2)
    store_big(at + 4, 0x4000, 4)
    store_big(at + 8, row.hop_limit & 0xFF, 1)
    store_big(at + 9, UDP, 1)
    store_big(at + 10, 0, 2)
    store_big(at + 12, row.sgid_low & 0xFFFFFFFF, 4)
    store_big(at + 16, row.dgid_low & 0xFFFFFFFF, 4)
    store_big(at + 10, header_checksum(at), 2)


@jit
def header_checksum(at):
    """IPv4 header checksum (RFC 791) over 20 bytes."""
    total = 0
    for i in range(0, IP_HEADER, 2):
        total += load8(at + i) << 8 | load8(at + i + 1)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
