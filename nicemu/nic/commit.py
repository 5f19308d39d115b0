"""COMMIT: the second DMA instant at a receiver. Bytes move, then the ACK, NAK, atomic result or CQE goes out.

Commits of a NIC run in arrival order, so completions and acknowledgements keep the order of the requests.
"""

from nicemu._jit import call, jit
from nicemu.abi.verbs import AsyncEvent, WcStatus
from nicemu.nic import hooks
from nicemu.nic.completer import commit_response
from nicemu.nic.dma import atomic_word, move, translate_range
from nicemu.nic.eq import post_async
from nicemu.nic.hooks import ask
from nicemu.nic.mkey import check_mkey
from nicemu.nic.page_fault import RESPONDER_RDMA, failed_before, raise_fault
from nicemu.nic.port import transmit
from nicemu.nic.psn import psn_add, psn_diff
from nicemu.nic.receive_queue import WC_RECV, WC_RECV_IMM, complete_recv
from nicemu.nic.responder import (
    ACCEPT,
    ACCESS_ERROR,
    INVALID,
    NAK_SEQUENCE,
    REACK,
    RECV_LEN,
    RECV_PROT,
    REMOTE_READ,
    RNR,
    SAVED,
    is_send,
    with_imm,
)
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.packets import free_packet, new_packet
from nicemu.tables.rows import control, nic, packet, qp, resource, vector
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

LOC_LEN_ERR, LOC_PROT_ERR = int(WcStatus.LOC_LEN_ERR), int(WcStatus.LOC_PROT_ERR)
QP_REQ_ERR, QP_ACCESS_ERR = int(AsyncEvent.QP_REQ_ERR), int(AsyncEvent.QP_ACCESS_ERR)
QP_FATAL = int(AsyncEvent.QP_FATAL)
NAK, RNR_EVENT = int(Ev.NAK), int(Ev.RNR_NAK)


@jit
def reply(world, q_row, opcode, psn, syndrome):
    """A response packet to the peer of this QP, not sent yet; 0 with a trap if the pool is empty."""
    q = qp(world, q_row)
    p = new_packet(world, q.nic)
    row = packet(world, p)
    row.opcode = opcode
    row.psn = psn
    row.syndrome = syndrome
    row.msn = q.msn
    row.dest_nic = q.dest_nic
    row.dest_qpn = q.dest_qpn
    row.source_qpn = q.number
    row.qp = q_row
    return p


@jit
def acknowledge_now(world, q_row, psn, syndrome):
    """Send an ACK, NAK or RNR NAK."""
    p = reply(world, q_row, bth.ACKNOWLEDGE, psn, syndrome)
    if p != 0:
        transmit(world, p, control(world, 0).now)


@jit
def refuse(world, q_row, p):
    """NAK by verdict; a receive WQE that failed completes first; all but sequence and RNR take the QP to ERR."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    verdict = row.verdict
    if verdict == RNR:
        n.rnr_naks_sent += 1
        trace(world, RNR_EVENT, q.nic, q.number, row.psn, row.imm, 0)
        acknowledge_now(world, q_row, row.psn, bth.RNR_NAK | row.imm)
        return
    if verdict == NAK_SEQUENCE:
        n.sequence_naks_sent += 1
        trace(world, NAK, q.nic, q.number, row.psn, bth.NAK_SEQUENCE, 0)
        acknowledge_now(world, q_row, row.psn, bth.NAK_SEQUENCE)
        return
    syndrome = bth.NAK_INVALID_REQUEST
    event = QP_REQ_ERR
    if verdict == ACCESS_ERROR:
        syndrome = bth.NAK_REMOTE_ACCESS
        event = QP_ACCESS_ERR
    elif verdict == RECV_PROT or verdict == RECV_LEN:
        if verdict == RECV_PROT:
            syndrome = bth.NAK_REMOTE_OPERATIONAL
        status = LOC_PROT_ERR if verdict == RECV_PROT else LOC_LEN_ERR
        if q.recv_taken:
            q.recv_taken = 0
            complete_recv(world, q_row, q.recv_wqe, status, WC_RECV, 0, -1, 0)
    trace(world, NAK, q.nic, q.number, row.psn, syndrome, 0)
    acknowledge_now(world, q_row, row.psn, syndrome)
    if verdict == INVALID or verdict == ACCESS_ERROR:
        post_async(world, q.nic, event, q.number)
    call(vector(world, units.QP_ERROR).address, world, q_row, 0)


@jit
def perform_atomic(world, q_row, p):
    """Read-modify-write, remember the result for replay, answer. False: the page was taken away."""
    row = packet(world, p)
    is_add = row.opcode == bth.FETCH_ADD
    if not atomic_word(world, p, row.compare_add, row.swap, is_add):
        return False
    resource(world, row.entry).result = row.result
    q = qp(world, q_row)
    q.msn += 1
    atomic_ack(world, q_row, row.psn, row.result)
    return True


@jit
def atomic_ack(world, q_row, psn, result):
    """An ATOMIC ACK with the original value."""
    p = reply(world, q_row, bth.ATOMIC_ACK, psn, bth.ACK_UNLIMITED)
    if p != 0:
        packet(world, p).result = result
        transmit(world, p, control(world, 0).now)


@jit
def deliver(world, q_row, p):
    """Bytes of a SEND or WRITE into memory; at the end of a message count it, complete the receive WQE, acknowledge."""
    row = packet(world, p)
    q = qp(world, q_row)
    if row.segments > 0 and not move(world, p, True):
        return False
    if row.last:
        q.msn += 1
        imm = row.imm if with_imm(row.opcode) else -1
        if is_send(row.opcode) or imm >= 0:
            kind = WC_RECV if is_send(row.opcode) else WC_RECV_IMM
            if not complete_recv(world, q_row, row.entry, 0, kind, row.result, imm, row.solicited):
                call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
                return True
    if row.ack_request or ask(world, q.nic, hooks.ACK, q_row, row.psn):
        acknowledge_now(world, q_row, row.psn, bth.ACK_UNLIMITED)
    return True


@jit
def taken_away(world, q_row, p):
    """The program took a page away behind our back: the error that a failed fault gives."""
    row = packet(world, p)
    q = qp(world, q_row)
    if is_send(row.opcode):
        q.recv_wqe = row.entry
        q.recv_taken = 1
        row.verdict = RECV_PROT
    else:
        row.verdict = ACCESS_ERROR
    q.resp_error = 1
    refuse(world, q_row, p)


@jit
def commit_request(world, q_row, p):
    """What the responder decided about packet ``p`` happens."""
    row = packet(world, p)
    q = qp(world, q_row)
    verdict = row.verdict
    if verdict == ACCEPT:
        if row.opcode == bth.READ_REQUEST:
            push(world, control(world, 0).now, units.READ_RESPONSE, q_row, q.incarnation)
        elif row.opcode >= bth.COMPARE_SWAP:
            if not perform_atomic(world, q_row, p):
                taken_away(world, q_row, p)
        elif not deliver(world, q_row, p):
            taken_away(world, q_row, p)
    elif verdict == REACK:
        acknowledge_now(world, q_row, row.psn, bth.ACK_UNLIMITED)
    elif verdict == SAVED:
        atomic_ack(world, q_row, row.psn, resource(world, row.entry).result)
    else:
        refuse(world, q_row, p)
    free_packet(world, p)


def commit(world, p, incarnation):
    """COMMIT: of a request at the responder or of response data at the requester."""
    row = packet(world, p)
    q_row = row.qp
    if qp(world, q_row).incarnation != incarnation:
        free_packet(world, p)
        return 0
    if bth.READ_RESP_FIRST <= row.opcode <= bth.ATOMIC_ACK:
        return commit_response(world, q_row, p)
    commit_request(world, q_row, p)
    return 0


@jit
def read_opcode(psn, r):
    """FIRST, MIDDLE, LAST or ONLY of a READ's responses."""
    if r.first_psn == r.last_psn:
        return bth.READ_RESP_ONLY
    if psn == r.first_psn:
        return bth.READ_RESP_FIRST
    return bth.READ_RESP_LAST if psn == r.last_psn else bth.READ_RESP_MIDDLE


@jit
def read_refused(world, q_row, psn):
    """A READ cannot go on: its memory is not there or no longer registered."""
    q = qp(world, q_row)
    q.read_active = 0
    q.resp_error = 1
    trace(world, NAK, q.nic, q.number, psn, bth.NAK_REMOTE_ACCESS, 0)
    acknowledge_now(world, q_row, psn, bth.NAK_REMOTE_ACCESS)
    call(vector(world, units.QP_ERROR).address, world, q_row, QP_ACCESS_ERR)


@jit
def read_faulted(world, q_row, psn):
    """A page of a READ is missing: RNR NAK at this response (or an error), take back what follows, end the READ."""
    q = qp(world, q_row)
    r = resource(world, q.read_active)
    if failed_before(world, q_row, RESPONDER_RDMA):
        read_refused(world, q_row, psn)
        return
    q.read_active = 0
    done = psn_diff(psn, r.first_psn) * q.mtu
    raise_fault(world, q_row, RESPONDER_RDMA, 0, done, r.length - done)
    code = ask(world, q.nic, hooks.RESPONDER_FAULT, q_row, q.min_rnr_timer)
    if code >= 0:
        nic(world, q.nic).rnr_naks_sent += 1
        trace(world, RNR_EVENT, q.nic, q.number, psn, code, 0)
        acknowledge_now(world, q_row, psn, bth.RNR_NAK | code)
    if psn_add(r.last_psn, 1) == q.epsn:
        q.epsn = psn
        q.nak_pending = 1
        if psn == r.first_psn:
            r.kind = 0
        else:
            r.last_psn = psn_add(psn, -1)
    call(vector(world, units.RESPONDER).address, world, q_row, 0)


def read_response(world, q_row, incarnation):
    """READ_RESPONSE: send one response packet of the active READ, then come back for the next."""
    q = qp(world, q_row)
    if q.incarnation != incarnation or q.read_active == 0:
        return 0
    r = resource(world, q.read_active)
    n = nic(world, q.nic)
    psn = r.next_psn
    done = psn_diff(psn, r.first_psn) * q.mtu
    p = reply(world, q_row, read_opcode(psn, r), psn, bth.ACK_UNLIMITED)
    if p == 0:
        return 0
    row = packet(world, p)
    row.payload = min(r.length - done, q.mtu)
    n.translation_delay = 0
    if r.length > 0 and check_mkey(world, q_row, r.key, q.pd, r.va, r.length, REMOTE_READ) == 0:
        free_packet(world, p)
        read_refused(world, q_row, psn)
        return 0
    if row.payload > 0 and translate_range(world, p, r.mkey, r.va + done, row.payload, False) != 0:
        free_packet(world, p)
        read_faulted(world, q_row, psn)
        return 0
    now = control(world, 0).now
    transmit(world, p, max(now + n.pcie_latency_ns + n.translation_delay, n.dma_last))
    r.next_psn = psn_add(psn, 1)
    if psn == r.last_psn:
        q.msn += 1
        q.read_active = 0
        call(vector(world, units.RESPONDER).address, world, q_row, 0)
        return 0
    pause = max(n.packet_ns, n.port_free - n.pcie_latency_ns - now)
    push(world, now + pause, units.READ_RESPONSE, q_row, incarnation)
    return 0
