"""Requester: turns send WQEs into request packets, one packet an event (Linux rxe_req.c).

A packet's gather list is translated here and moved at its departure. A missing page suspends the send queue. Left
out: UC, UD, XRC, memory windows, FLUSH, ATOMIC_WRITE, SEND_WITH_INV.
"""

from nicemu._jit import call, copy_bytes, jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.verbs import WrOpcode
from nicemu.nic import dma
from nicemu.nic.dma import translate_sges
from nicemu.nic.page_fault import REQUESTER_SEND, fail_entry, raise_fault
from nicemu.nic.port import transmit
from nicemu.nic.psn import packet_count, psn_add, psn_diff
from nicemu.nic.send_queue import (
    ATOMIC_CMP_AND_SWP,
    FENCE,
    INLINE,
    LOC_PROT_ERR,
    QP_FATAL,
    RDMA_READ,
    RTS,
    SOLICITED,
    entry_of,
    fetch,
    is_read_or_atomic,
    kick,
    start_timer,
    wqe_address,
)
from nicemu.tables import units
from nicemu.tables.packets import free_packet, new_packet, payload_address
from nicemu.tables.rows import control, nic, packet, qp, vector
from nicemu.wire import opcode as bth

WINDOW = 128
"""Request packets on their way that are not acknowledged yet (rxe's cap)."""
ACK_EVERY = 32
"""Every so many packets of a long message one asks for an ACK."""
WRITE_WITH_IMM, SEND_WITH_IMM = int(WrOpcode.RDMA_WRITE_WITH_IMM), int(WrOpcode.SEND_WITH_IMM)
SEND, FETCH_AND_ADD = int(WrOpcode.SEND), int(WrOpcode.ATOMIC_FETCH_AND_ADD)
SEND_OR_WRITE, READ, ATOMIC = 0, 1, 2


@jit
def reads_before(world, q, index):
    """A READ or atomic before WQE ``index`` whose bytes have not landed yet."""
    for i in range(q.sq_una, index):
        e = entry_of(world, q, i)
        if is_read_or_atomic(e.opcode) and e.done == 0:
            return True
    return False


@jit
def may_send(world, q):
    """The WQE at ``sq_next`` may start or go on: window, READ/atomic credits, fence."""
    e = entry_of(world, q, q.sq_next)
    if is_read_or_atomic(e.opcode):
        if e.counted == 0 and q.rd_atomic >= q.max_rd_atomic:
            return False
        if psn_diff(e.last_psn, q.una_psn) < 0:
            return False
    elif psn_diff(psn_add(e.first_psn, q.sq_offset), q.una_psn) >= WINDOW:
        return False
    return e.flags & FENCE == 0 or q.sq_offset > 0 or e.counted != 0 or not reads_before(world, q, q.sq_next)


@jit
def position(k, count):
    """FIRST, MIDDLE, LAST or ONLY: packet ``k`` of ``count``."""
    if count == 1:
        return bth.ONLY
    if k == 0:
        return bth.FIRST
    return bth.LAST if k == count - 1 else bth.MIDDLE


@jit
def build_payload(world, q, p, e, k, at):
    """Packet ``k`` of a SEND or WRITE: opcode, immediate, gather list. A dma verdict."""
    row = packet(world, p)
    count = packet_count(e.length, q.mtu)
    place = position(k, count)
    last = place == bth.LAST or place == bth.ONLY
    row.opcode = (bth.SEND if e.opcode >= SEND else bth.WRITE) + place
    if last:
        if e.opcode == SEND_WITH_IMM or e.opcode == WRITE_WITH_IMM:
            row.opcode += 1
            row.imm = load32(at + rings.SEND_IMM)
        row.solicited = 1 if e.flags & SOLICITED else 0
    row.last = 1 if last else 0
    row.ack_request = 1 if last or k % ACK_EVERY == ACK_EVERY - 1 else 0
    row.length = e.length
    row.payload = min(e.length - k * q.mtu, q.mtu)
    if e.flags & INLINE:
        source = at + rings.SEND_HEADER_BYTES + k * q.mtu
        copy_bytes(payload_address(world, p), source, row.payload)
        return dma.OK
    sges = at + rings.SEND_HEADER_BYTES
    return translate_sges(world, p, q.pd, sges, e.num_sge, k * q.mtu, row.payload, False)


@jit
def build_read_or_atomic(world, q, p, e, k, at):
    """A READ request for the responses from ``k`` on, or an atomic request."""
    row = packet(world, p)
    row.ack_request = 1
    row.last = 1
    if e.opcode == RDMA_READ:
        row.opcode = bth.READ_REQUEST
        row.length = e.length - k * q.mtu
        row.va += k * q.mtu
    else:
        row.opcode = bth.COMPARE_SWAP if e.opcode == ATOMIC_CMP_AND_SWP else bth.FETCH_ADD
        row.length = 8
        row.compare_add = load64(at + rings.SEND_COMPARE_ADD)
        row.swap = load64(at + rings.SEND_SWAP)
    if e.counted == 0:
        e.counted = 1
        q.rd_atomic += 1


@jit
def build(world, q_row, p):
    """Fill packet ``p`` from the WQE at ``sq_next``: a dma verdict."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    at = wqe_address(q, q.sq_next)
    row = packet(world, p)
    row.psn = psn_add(e.first_psn, q.sq_offset)
    row.dest_nic = q.dest_nic
    row.dest_qpn = q.dest_qpn
    row.source_qpn = q.number
    row.qp = q_row
    row.entry = q.sq_next
    row.va = load64(at + rings.SEND_REMOTE_ADDR)
    row.rkey = load32(at + rings.SEND_RKEY)
    if is_read_or_atomic(e.opcode):
        build_read_or_atomic(world, q, p, e, q.sq_offset, at)
        return dma.OK
    return build_payload(world, q, p, e, q.sq_offset, at)


@jit
def went_out(world, q_row, p):
    """Move the send position past packet ``p`` and keep the ACK timer running."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    row = packet(world, p)
    whole = is_read_or_atomic(e.opcode) or row.last == 1
    after = psn_add(e.last_psn if whole else row.psn, 1)
    if psn_diff(after, q.sent_psn) > 0:
        q.sent_psn = after
    if whole:
        q.sq_next += 1
        q.sq_offset = 0
    else:
        q.sq_offset += 1
    if q.timer_deadline == 0:
        start_timer(world, q_row)


@jit
def ready(world, q_row):
    """The requester has something to send now; fetches the WQE if needed."""
    q = qp(world, q_row)
    c = control(world, 0)
    if q.state != RTS or q.sq_suspended or q.read_suspended or c.now < q.rnr_until:
        return False
    if q.sq_next == q.sq_fetched:
        posted = load64(q.doorbell_record + rings.DB_SEND)
        if q.sq_error or posted <= q.sq_fetched:
            return False
        if posted - q.sq_una > q.sq_slots:
            call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
            return False
        if q.sq_fetched - q.sq_una >= q.sq_slots:
            return False
        fetch(world, q_row)
    return True


def requester(world, q_row, incarnation):
    """REQUESTER: send one packet of this QP, then come back when the port can take the next."""
    q = qp(world, q_row)
    if incarnation != q.incarnation:
        return 0
    q.sq_scheduled = 0
    if not ready(world, q_row):
        return 0
    e = entry_of(world, q, q.sq_next)
    if e.status != 0:
        if q.sq_una == q.sq_next:
            return call(vector(world, units.RETIRE).address, world, q_row, 0)
        return 0
    if not may_send(world, q):
        return 0
    n = nic(world, q.nic)
    p = new_packet(world, q.nic)
    if p == 0:
        return 0
    n.translation_delay = 0
    verdict = build(world, q_row, p)
    if verdict != dma.OK:
        free_packet(world, p)
        if verdict == dma.FAULT:
            q.sq_suspended = 1
            raise_fault(world, q_row, REQUESTER_SEND, q.sq_next, q.sq_offset * q.mtu, e.length)
            start_timer(world, q_row)
        else:
            fail_entry(world, q_row, q.sq_next, LOC_PROT_ERR)
            kick(world, q_row, 0)
        return 0
    went_out(world, q_row, p)
    now = control(world, 0).now
    moment = now + n.pcie_latency_ns + n.translation_delay
    transmit(world, p, moment)
    kick(world, q_row, max(n.packet_ns, n.port_free - n.pcie_latency_ns - now))
    return 0


def gather_failed(world, p, incarnation):
    """GATHER_FAILED: the program took a page of packet ``p`` away; it never leaves.

    A request fails its WQE with a local protection error. A READ response becomes a remote access NAK.
    """
    row = packet(world, p)
    q = qp(world, row.qp)
    q_row = row.qp
    row.segments = 0
    if q.incarnation != incarnation:
        free_packet(world, p)
        return 0
    if bth.READ_RESP_FIRST <= row.opcode <= bth.READ_RESP_ONLY:
        row.opcode = bth.ACKNOWLEDGE
        row.syndrome = bth.NAK_REMOTE_ACCESS
        row.payload = 0
        q.resp_error = 1
        transmit(world, p, control(world, 0).now)
        return call(vector(world, units.QP_ERROR).address, world, q_row, 3)
    index = row.entry
    free_packet(world, p)
    fail_entry(world, q_row, index, LOC_PROT_ERR)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)
