"""Requester: turns send WQEs into request packets, one packet an event (Linux rxe_req.c).

A packet's gather list is translated here and moved at its departure. A missing page suspends the send queue. UC and
UD requests are done when their last packet departs.
"""

from nicemu._jit import call, cold, copy_bytes, jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.verbs import AsyncEvent
from nicemu.nic import dma
from nicemu.nic.congestion import next_turn, paced
from nicemu.nic.datagram import address, find_av
from nicemu.nic.dma import translate_sges
from nicemu.nic.mw import bind_mw, local_inv
from nicemu.nic.page_fault import REQUESTER_SEND, fail_entry, raise_fault
from nicemu.nic.port import transmit
from nicemu.nic.psn import psn_add, psn_ahead, psn_diff
from nicemu.nic.qp_type import (
    ATOMIC_CMP_AND_SWP,
    ATOMIC_WRITE,
    BIND_MW,
    FLUSH,
    RAW_PACKET,
    RDMA_READ,
    SEND_WITH_IMM,
    SEND_WITH_INV,
    UD,
    WRITE_WITH_IMM,
    XRC_INI,
    is_local,
    is_non_posted,
    is_reliable,
    transport_of,
)
from nicemu.nic.send_queue import (
    INLINE,
    LOC_PROT_ERR,
    LOC_QP_OP_ERR,
    QP_FATAL,
    RTS,
    SOLICITED,
    SQD,
    UNSENT,
    WR_FLUSH_ERR,
    entry_of,
    fetch,
    jump,
    kick,
    pass_over,
    posted,
    start_timer,
    wqe_address,
)
from nicemu.nic.send_window import UNLIMITED, fenced, may_send
from nicemu.tables import units
from nicemu.tables.packets import free_packet, new_packet, payload_address
from nicemu.tables.rows import control, nic, packet, qp, vector
from nicemu.wire import opcode as bth

NO_ADDRESS = 16
"""Verdict beside those of dma: the address handle is gone."""
QP_ACCESS_ERR = int(AsyncEvent.QP_ACCESS_ERR)


@jit
def position(k, last):
    """FIRST, MIDDLE, LAST or ONLY: packet ``k`` of a message, its ``last`` or not."""
    if k == 0:
        return bth.ONLY if last else bth.FIRST
    return bth.LAST if last else bth.MIDDLE


@jit
def finish_send(row, e, at):
    """Last packet of a SEND or WRITE: immediate data or the key to invalidate, the solicited bit."""
    if e.opcode == SEND_WITH_IMM or e.opcode == WRITE_WITH_IMM:
        row.opcode += 1
        row.imm = load32(at + rings.SEND_IMM)
    elif e.opcode == SEND_WITH_INV:
        row.opcode = bth.LAST_INV if row.opcode == bth.SEND + bth.LAST else bth.ONLY_INV
        row.imm = load32(at + rings.SEND_IMM)
    row.solicited = 1 if e.flags & SOLICITED else 0
    row.last = 1


@jit
def asks_for_ack(world, q, e, row):
    """A packet asks for an ACK at the end of a message, now and then within it, without credit, and when it is sent
    again: a message of which several packets get lost then costs no more retries than each of them."""
    e.asked = 1 if q.lsn != UNLIMITED and psn_diff(e.ssn, q.lsn) > 0 else 0
    again = psn_diff(row.psn, q.sent_psn) < 0
    return row.last or e.asked or again or (q.sq_offset + 1) % nic(world, q.nic).ack_request_every == 0


@jit
def build_payload(world, q, p, e, at):
    """The packet at ``sq_offset`` of a SEND or WRITE: opcode, immediate, gather list. A dma verdict."""
    row = packet(world, p)
    k = q.sq_offset
    last = (k + 1) * q.mtu >= e.length
    row.opcode = (bth.WRITE if e.opcode <= WRITE_WITH_IMM else bth.SEND) + position(k, last)
    row.last = 0
    if last:
        finish_send(row, e, at)
    if is_reliable(q):
        row.ack_request = 1 if asks_for_ack(world, q, e, row) else 0
    row.length = e.length
    row.payload = min(e.length - k * q.mtu, q.mtu)
    return gather(world, q, p, e, at, k * q.mtu)


@jit
def gather(world, q, p, e, at, skip):
    """Inline data is copied from the ring; anything else is translated. A dma verdict."""
    length = packet(world, p).payload
    data = at + rings.SEND_HEADER_BYTES
    if e.flags & INLINE:
        copy_bytes(payload_address(world, p), data + skip, length)
        return dma.OK
    return translate_sges(world, p, q.pd, data, e.num_sge, skip, length, False)


@cold
def build_non_posted(world, q, p, e, at):
    """A READ request for the responses from ``sq_offset`` on, an atomic, FLUSH or ATOMIC WRITE. A dma verdict."""
    row = packet(world, p)
    row.ack_request = 1
    row.last = 1
    verdict = dma.OK
    if e.opcode == RDMA_READ:
        row.opcode = bth.READ_REQUEST
        row.length = e.length - q.sq_offset * q.mtu
        row.va += q.sq_offset * q.mtu
    elif e.opcode == FLUSH:
        row.opcode = bth.FLUSH
        row.length = load64(at + rings.SEND_SWAP) & 0xFFFFFFFF
        row.compare_add = load64(at + rings.SEND_COMPARE_ADD) & 0xF
        row.swap = (load64(at + rings.SEND_COMPARE_ADD) >> 8) & 3
    elif e.opcode == ATOMIC_WRITE:
        row.opcode = bth.ATOMIC_WRITE
        row.length = 8
        row.payload = 8
        verdict = gather(world, q, p, e, at, 0)
    else:
        row.opcode = bth.COMPARE_SWAP if e.opcode == ATOMIC_CMP_AND_SWP else bth.FETCH_ADD
        row.length = 8
        row.compare_add = load64(at + rings.SEND_COMPARE_ADD)
        row.swap = load64(at + rings.SEND_SWAP)
    if verdict == dma.OK and e.counted == 0:
        e.counted = 1
        q.rd_atomic += 1
    return verdict


@jit
def build(world, q_row, p):
    """Fill packet ``p`` from the WQE at ``sq_next``: a dma verdict."""
    q = qp(world, q_row)
    if q.type == RAW_PACKET:
        return call(vector(world, units.RAW_BUILD).address, world, q_row, p)
    e = entry_of(world, q, q.sq_next)
    at = wqe_address(q, q.sq_next)
    row = packet(world, p)
    row.transport = transport_of(q)
    row.psn = psn_add(e.first_psn, q.sq_offset)
    row.dest_nic = q.dest_nic
    row.dest_qpn = q.dest_qpn
    row.source_qpn = q.number
    row.av = q.av
    row.qp = q_row
    row.entry = q.sq_next
    row.va = load64(at + rings.SEND_REMOTE_ADDR)
    row.rkey = load32(at + rings.SEND_RKEY)
    if q.type == UD:
        handle = find_av(world, q_row, row.rkey)
        if handle == 0:
            return NO_ADDRESS
        address(world, p, handle, at)
    elif q.type == XRC_INI:
        row.srqn = load32(at + rings.SEND_REMOTE_QPN) & 0xFFFFFF
    if is_non_posted(e.opcode):
        return build_non_posted(world, q, p, e, at)
    return build_payload(world, q, p, e, at)


@jit
def went_out(world, q_row, p):
    """Move the send position past packet ``p`` and keep the ACK timer running."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    row = packet(world, p)
    whole = row.last == 1
    after = psn_add(e.last_psn if whole else row.psn, 1)
    if 0 < psn_ahead(after, q.sent_psn) <= 1 << 23:
        q.sent_psn = after
    if whole:
        q.sq_next += 1
        q.sq_offset = 0
    else:
        q.sq_offset += 1
    if q.jumps:
        jump(q)
    if q.timer_deadline == 0:
        start_timer(world, q_row)


@jit
def goes_on(world, q):
    """SQD: only what was started before goes on: the rest of a message, and retransmissions."""
    if q.sq_next == q.sq_fetched:
        return False
    e = entry_of(world, q, q.sq_next)
    return q.sq_offset > 0 or psn_diff(e.first_psn, q.sent_psn) < 0 or (is_local(e.opcode) and e.done != 0)


@jit
def ready(world, q_row):
    """The requester has something to send now; fetches the WQE if needed."""
    q = qp(world, q_row)
    c = control(world, 0)
    if q.sq_suspended or q.read_suspended or (c.now < q.rnr_until and q.rnr_alone == 0):
        return False
    if q.state != RTS:
        return q.state == SQD and goes_on(world, q)
    if q.sq_next == q.sq_fetched:
        end = posted(world, q_row)
        if q.sq_error or end <= q.sq_fetched or q.sq_slots == 0:
            return False
        if end - q.sq_una > q.sq_slots:
            call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
            return False
        if q.sq_fetched - q.sq_una >= q.sq_slots:
            return False
        fetch(world, q_row)
    return True


@cold
def perform_local(world, q_row):
    """BIND_MW or LOCAL_INV at its place in the send queue, once (rxe_do_local_ops)."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    at = wqe_address(q, q.sq_next)
    if e.done == 0:
        status = 0
        if e.opcode == BIND_MW:
            status = bind_mw(world, q_row, at)
        else:
            status = local_inv(world, q_row, load32(at + rings.SEND_IMM))
        if status != 0:
            fail_entry(world, q_row, q.sq_next, status)
    e.done = 1
    q.sq_next += 1
    return call(vector(world, units.RETIRE).address, world, q_row, 0)


@cold
def held_back(world, q_row, verdict):
    """A packet that could not be built: a missing page suspends the send queue, anything else fails the WQE."""
    q = qp(world, q_row)
    if verdict == dma.FAULT:
        q.sq_suspended = 1
        length = entry_of(world, q, q.sq_next).length
        done = 0 if q.type == RAW_PACKET else q.sq_offset * q.mtu
        raise_fault(world, q_row, REQUESTER_SEND, q.sq_next, done, length)
        start_timer(world, q_row)
        return
    status = LOC_QP_OP_ERR if verdict == NO_ADDRESS else LOC_PROT_ERR
    fail_entry(world, q_row, q.sq_next, status)
    kick(world, q_row, 0)


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
        if e.status & 255 == WR_FLUSH_ERR:
            return call(vector(world, units.QP_ERROR).address, world, q_row, 0)
        if q.sq_next != q.sq_una:
            return 0
        if e.status == UNSENT:
            pass_over(world, q_row)
        return call(vector(world, units.RETIRE).address, world, q_row, 0)
    if is_local(e.opcode):
        return 0 if fenced(world, q, e) else perform_local(world, q_row)
    if not may_send(world, q) or paced(world, q_row):
        return 0
    n = nic(world, q.nic)
    p = new_packet(world, q.nic)
    if p == 0:
        return 0
    n.translation_delay = 0
    verdict = build(world, q_row, p)
    if verdict != dma.OK:
        free_packet(world, p)
        held_back(world, q_row, verdict)
        return 0
    went_out(world, q_row, p)
    payload = packet(world, p).payload
    transmit(world, p, control(world, 0).now + n.pcie_latency_ns + n.translation_delay)
    kick(world, q_row, next_turn(world, q_row, payload))
    return 0


def sent(world, q_row, psn):
    """SENT: a UC or UD packet has departed: nobody will acknowledge it, so it is done."""
    q = qp(world, q_row)
    if psn_diff(psn_add(psn, 1), q.una_psn) > 0:
        q.una_psn = psn_add(psn, 1)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)


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
        return call(vector(world, units.QP_ERROR).address, world, q_row, QP_ACCESS_ERR)
    index = row.entry
    free_packet(world, p)
    fail_entry(world, q_row, index, LOC_PROT_ERR)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)
