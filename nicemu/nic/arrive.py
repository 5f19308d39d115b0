"""ARRIVE: a packet reaches a NIC: which QP is it for, and may it hear of it (Linux rxe_recv.c)?

Whatever a peer sends, it is dropped and counted here or judged by the responder or completer.
"""

from nicemu._jit import call, cold, jit
from nicemu.abi.verbs import QpState
from nicemu.nic.backup_ring import enter
from nicemu.nic.datagram import MULTICAST_QPN
from nicemu.nic.port_receive import CONSUMED, checked_arrival
from nicemu.nic.psn import psn_diff
from nicemu.nic.qp_cache import touch
from nicemu.nic.qp_type import UD, XRC_INI, XRC_TGT, transport_of
from nicemu.tables import units
from nicemu.tables.packets import clone_packet, free_packet
from nicemu.tables.records import MAX_MTU
from nicemu.tables.rows import mcast, nic, packet, qp, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.wire import opcode as bth

RTR, SQE = int(QpState.RTR), int(QpState.SQE)
RECEIVE, DROP = int(Ev.RECEIVE), int(Ev.DROP)
DEFAULT_PKEY = 0xFFFF
MOST_WAITING, MOST_WAITING_OF_ALL = 256, 8192
"""Requests that wait for a READ in front of them, of a QP and of all: an honest requester has no more than its window
on its way, and a flood must not eat the packets of others."""
COUNTED, EXCESS = 1, 2
"""A READ, atomic or FLUSH counts as outstanding at the responder; it is one more than agreed."""


@jit
def is_well_formed(row):
    """The transport has this operation, and a packet can be that long."""
    t, opcode = row.transport, row.opcode
    if row.payload < 0 or row.payload > MAX_MTU:
        return False
    if t == bth.UD:
        return opcode == bth.SEND + bth.ONLY or opcode == bth.SEND + bth.ONLY_IMM
    if t == bth.UC:
        return 0 <= opcode < bth.READ_REQUEST
    if t == bth.RC or t == bth.XRC:
        return 0 <= opcode < 32 and (bth.is_request(opcode) or bth.is_response(opcode))
    return False


@jit
def is_for(q, row):
    """State, transport and peer fit (rxe check_type_state, check_addr). An XRC initiator takes responses only, a target
    requests only."""
    if q.valid == 0 or q.state < RTR or q.state > SQE or row.transport != transport_of(q):
        return False
    if q.type == UD:
        return True
    if q.type == XRC_INI or q.type == XRC_TGT:
        if bth.is_response(row.opcode) != (q.type == XRC_INI):
            return False
    return q.dest_qpn == row.source_qpn and q.dest_nic == row.source_nic


@jit
def has_keys(n, q, row):
    """P_Key: the same partition, one of the two a full member. Q_Key of a datagram: the QP's (rxe check_keys)."""
    if (row.pkey ^ DEFAULT_PKEY) & 0x7FFF:
        n.bad_pkeys += 1
        return False
    if q.type == UD and row.qkey != q.qkey:
        n.bad_qkeys += 1
        return False
    return True


@jit
def listener(world, n, row):
    """Row of the QP that shall hear of the packet, 0 if none."""
    if not is_well_formed(row):
        n.malformed += 1
        return 0
    if row.dest_qpn <= 0 or row.dest_qpn >= n.qp_count:
        return 0
    q_row = n.qp_base + row.dest_qpn
    q = qp(world, q_row)
    return q_row if is_for(q, row) and has_keys(n, q, row) else 0


@jit
def count_outstanding(q, row):
    """READs, atomics and FLUSHes seen for the first time and not worked off yet: more than max_dest_rd_atomic are an
    invalid request when their turn comes."""
    row.counted = 0
    if bth.is_non_posted(row.opcode) and psn_diff(row.psn, q.rx_high) > 0:
        q.rx_high = row.psn
        q.rx_non_posted += 1
        active = 1 if q.read_active and q.read_counted else 0
        row.counted = EXCESS if q.rx_non_posted + active > q.max_dest_rd_atomic else COUNTED


@jit
def is_crowded(n, q):
    """The request would have to wait and there is no room for it."""
    waiting = n.rx_waiting - n.backup_packets
    return q.read_active != 0 and (q.rx_waiting >= MOST_WAITING or waiting >= MOST_WAITING_OF_ALL)


@cold
def discard(world, p):
    """Drop, count, log."""
    row = packet(world, p)
    nic(world, row.dest_nic).packets_dropped += 1
    trace(world, DROP, row.dest_nic, row.opcode, row.psn, row.dest_qpn, 0)
    free_packet(world, p)


@jit
def hand_over(world, q_row, p):
    """Responses go to the completer, requests into the responder's queue; behind one in the backup ring, in it."""
    row = packet(world, p)
    q = qp(world, q_row)
    row.kind = q.nic
    row.segments = 0
    row.in_backup = 0
    if bth.is_response(row.opcode):
        nic(world, q.nic).translation_delay = touch(world, q.nic, q_row)
        call(vector(world, units.COMPLETER).address, world, q_row, p)
        return
    n = nic(world, q.nic)
    if is_crowded(n, q) or (q.recv_suspended and not enter(world, n, row)):
        discard(world, p)
        return
    count_outstanding(q, row)
    q.rx_waiting += 1
    n.rx_waiting += 1
    row.next = 0
    if q.rx_head == 0:
        q.rx_head = p
    else:
        packet(world, q.rx_tail).next = p
    q.rx_tail = p
    call(vector(world, units.RESPONDER).address, world, q_row, 0)


@cold
def to_members(world, p):
    """A multicast packet goes to each member QP of its group on this NIC (rxe rxe_rcv_mcast_pkt)."""
    row = packet(world, p)
    n = nic(world, row.dest_nic)
    for i in range(n.mcast_base, n.mcast_end):
        m = mcast(world, i)
        if m.nic != n.number or m.mgid_high != row.dgid_high or m.mgid_low != row.dgid_low:
            continue
        row.dest_qpn = m.qpn
        q_row = listener(world, n, row)
        twin = clone_packet(world, p) if q_row else 0
        if twin:
            hand_over(world, q_row, twin)
    free_packet(world, p)


def arrive(world, p, _):
    """ARRIVE: a packet reaches its NIC."""
    if checked_arrival(world, p) == CONSUMED:
        return 0
    row = packet(world, p)
    n = nic(world, row.dest_nic)
    n.packets_received += 1
    trace(world, RECEIVE, row.dest_nic, row.opcode, row.psn, row.dest_qpn, two(row.payload, row.source_qpn))
    if row.transport == bth.RAW:
        return call(vector(world, units.RAW_ARRIVE).address, world, p, 0)
    if row.multicast and row.dest_qpn == MULTICAST_QPN:
        to_members(world, p)
        return 0
    q_row = listener(world, n, row)
    if q_row == 0:
        discard(world, p)
        return 0
    hand_over(world, q_row, p)
    return 0
