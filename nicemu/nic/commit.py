"""COMMIT: the second DMA instant at a receiver. Bytes move, then the ACK, NAK, atomic result or CQE goes out.

Commits of a NIC run in arrival order, so completions and acknowledgements keep the order of the requests.
"""

from nicemu._jit import call, cold, jit
from nicemu.abi.verbs import AsyncEvent, WcStatus
from nicemu.nic import hooks
from nicemu.nic.completer import commit_response
from nicemu.nic.congestion import has_own
from nicemu.nic.cq import post_cqe
from nicemu.nic.dma import atomic_word, move
from nicemu.nic.eq import post_async
from nicemu.nic.hooks import ask
from nicemu.nic.mw import remote_inv
from nicemu.nic.port import transmit
from nicemu.nic.psn import psn_add
from nicemu.nic.qp_type import is_reliable
from nicemu.nic.receive_queue import WC_RECV, WC_RECV_IMM, complete_recv, fail_recv, recv_available
from nicemu.nic.reply import acknowledge, credit_syndrome, reply, send_reply
from nicemu.nic.verdict import ACCEPT, ACCESS_ERROR, INVALID, NAK_SEQUENCE, REACK, RECV_LEN, RECV_PROT, RNR, SAVED
from nicemu.tables import units
from nicemu.tables.packets import free_packet
from nicemu.tables.rows import control, nic, packet, qp, resource, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth

LOC_LEN_ERR, LOC_PROT_ERR = int(WcStatus.LOC_LEN_ERR), int(WcStatus.LOC_PROT_ERR)
LOC_ACCESS_ERR, REM_INV_REQ_ERR = int(WcStatus.LOC_ACCESS_ERR), int(WcStatus.REM_INV_REQ_ERR)
WR_FLUSH_ERR = int(WcStatus.WR_FLUSH_ERR)
QP_REQ_ERR, QP_ACCESS_ERR = int(AsyncEvent.QP_REQ_ERR), int(AsyncEvent.QP_ACCESS_ERR)
QP_FATAL = int(AsyncEvent.QP_FATAL)
NAK, RNR_EVENT = int(Ev.NAK), int(Ev.RNR_NAK)


@cold
def nak(world, q_row, psn, syndrome):
    """Send a NAK; UC and UD have none."""
    q = qp(world, q_row)
    if is_reliable(q):
        trace(world, NAK, q.nic, q.number, psn, syndrome, 0)
        send_reply(world, q_row, bth.ACKNOWLEDGE, psn, syndrome)


@jit
def tells(world, q_row, syndrome):
    """Status of the receive of a request that is refused with ``syndrome``: WR_FLUSH_ERR, unless firmware lets it tell
    more."""
    return ask(world, qp(world, q_row).nic, hooks.RECEIVE_ERROR, q_row, syndrome << 8 | WR_FLUSH_ERR) & 255


@jit
def blamed(world, q_row, row, syndrome):
    """A refused request has a receive, and firmware lets that one tell of it."""
    q = qp(world, q_row)
    takes = bth.is_write(row.opcode) and bth.with_imm(row.opcode) and recv_available(world, q_row)
    if q.recv_taken == 0 and not takes:
        return False
    status = tells(world, q_row, syndrome)
    if status == WR_FLUSH_ERR:
        return False
    call(vector(world, units.RECV_TELLS).address, world, q_row, status)
    return True


@cold
def refuse(world, q_row, p):
    """NAK by verdict; a receive WQE that failed completes first; all but sequence and RNR take the QP to ERR."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    verdict = row.verdict
    if verdict == RNR:
        n.rnr_naks_sent += 1
        trace(world, RNR_EVENT, q.nic, q.number, row.psn, row.imm, 0)
        send_reply(world, q_row, bth.ACKNOWLEDGE, row.psn, bth.RNR_NAK | row.imm)
        return
    if verdict == NAK_SEQUENCE:
        n.sequence_naks_sent += 1
        nak(world, q_row, row.psn, bth.NAK_SEQUENCE)
        return
    syndrome = bth.NAK_INVALID_REQUEST
    event = QP_REQ_ERR
    if verdict == ACCESS_ERROR:
        syndrome = bth.NAK_REMOTE_ACCESS
        event = QP_ACCESS_ERR
    elif verdict == RECV_PROT or verdict == RECV_LEN:
        wrong = bth.NAK_REMOTE_OPERATIONAL << 8 | LOC_PROT_ERR
        if verdict == RECV_LEN:
            wrong = bth.NAK_INVALID_REQUEST << 8 | LOC_LEN_ERR
        wrong = ask(world, q.nic, hooks.RECEIVE_ERROR, q_row, wrong)
        syndrome = wrong >> 8
        fail_recv(world, q_row, wrong & 255)
    told = (verdict == INVALID or verdict == ACCESS_ERROR) and blamed(world, q_row, row, syndrome)
    nak(world, q_row, row.psn, syndrome)
    if (verdict == INVALID or verdict == ACCESS_ERROR) and not told:
        post_async(world, q.nic, event, q.number)
    call(vector(world, units.QP_ERROR).address, world, q_row, 0)


@cold
def perform_atomic(world, q_row, p):
    """Read-modify-write, remember the result for replay, answer. False: the page was taken away."""
    row = packet(world, p)
    if not atomic_word(world, p, row.compare_add, row.swap, row.opcode == bth.FETCH_ADD):
        return False
    q = qp(world, q_row)
    q.msn = psn_add(q.msn, 1)
    resource(world, row.entry).result = row.result
    answer(world, q_row, row.psn, row.entry)
    return True


@cold
def answer(world, q_row, psn, resource_row):
    """The remembered answer: an ATOMIC ACK with the original value; of FLUSH and ATOMIC WRITE an empty READ response
    (rxe send_read_response_ack)."""
    r = resource(world, resource_row)
    is_atomic = bth.is_atomic(r.opcode)
    p = reply(world, q_row, bth.ATOMIC_ACK if is_atomic else bth.READ_RESP_ONLY, psn, credit_syndrome(world, q_row))
    if p != 0:
        packet(world, p).result = r.result
        transmit(world, p, control(world, 0).now)


@cold
def fail_message(world, q_row, p, status):
    """The receive WQE of packet ``p``'s message completes with ``status``; what was accepted behind it is flushed."""
    row = packet(world, p)
    q = qp(world, q_row)
    q.commit_failed = 1
    q.failed_wqe = row.entry
    if q.recv_taken and q.recv_wqe == row.entry:
        q.recv_taken = 0
    if row.tagging:
        call(vector(world, units.TAG_FLUSH).address, world, p, status)
        return
    opcode = WC_RECV if bth.is_send(row.opcode) else WC_RECV_IMM
    post_cqe(world, row.cq, row.wr_id, q.number, status, opcode, (0, 0, 0, row.entry, 0), 0)


@jit
def complete(world, q_row, p):
    """CQE of a receive; at a TM-SRQ the first packet of a message has one, too. False: the CQ is overrun."""
    if packet(world, p).tagging:
        return call(vector(world, units.TAG_COMPLETE).address, world, q_row, p) != 0
    return complete_recv(world, q_row, p)


@jit
def finish_message(world, q_row, p):
    """The last packet of a SEND or WRITE: count the message, invalidate the key it names, complete its receive WQE. A
    key that is not valid fails here, the SEND itself was good (rxe error class J). False: the QP is in ERR now."""
    row = packet(world, p)
    q = qp(world, q_row)
    q.msn = psn_add(q.msn, 1)
    if row.opcode == bth.LAST_INV or row.opcode == bth.ONLY_INV:
        if not remote_inv(world, q_row, row.imm):
            acknowledge(world, q_row, row.psn)
            fail_message(world, q_row, p, REM_INV_REQ_ERR)
            told = tells(world, q_row, bth.NAK_REMOTE_ACCESS) != WR_FLUSH_ERR
            call(vector(world, units.QP_ERROR).address, world, q_row, 0 if told else QP_ACCESS_ERR)
            return False
    if bth.is_send(row.opcode) or bth.with_imm(row.opcode):
        if not complete(world, q_row, p):
            call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
            return False
    return True


@jit
def volunteers(world, q_row, row):
    """Firmware acknowledges a packet that did not ask for it; the default's answer is known: no."""
    nic_number = qp(world, q_row).nic
    return has_own(world, nic_number, hooks.ACK) and ask(world, nic_number, hooks.ACK, q_row, row.psn)


@jit
def deliver(world, q_row, p):
    """Bytes of a SEND or WRITE into memory; at the end of a message complete it, then acknowledge. False: a page was
    taken away."""
    row = packet(world, p)
    q = qp(world, q_row)
    if row.segments > 0 and not move(world, p, True):
        return False
    if row.tagging and not row.last and not complete(world, q_row, p):
        call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
        return True
    if row.last and not finish_message(world, q_row, p):
        return True
    if is_reliable(q) and (row.ack_request or volunteers(world, q_row, row)):
        acknowledge(world, q_row, row.psn)
    return True


@cold
def write_or_flush(world, q_row, p):
    """ATOMIC WRITE: eight bytes at once. FLUSH: all earlier requests of the QP have moved their bytes, since commits
    run in order; nothing is left to do. Both answer. False: the page was taken away."""
    row = packet(world, p)
    if row.opcode == bth.ATOMIC_WRITE and not move(world, p, True):
        return False
    q = qp(world, q_row)
    q.msn = psn_add(q.msn, 1)
    answer(world, q_row, row.psn, row.entry)
    return True


@cold
def taken_away(world, q_row, p):
    """The program took a page away behind our back: the error that a failed fault gives. The receive WQE of a WRITE
    with immediate completes with a local access error."""
    row = packet(world, p)
    q = qp(world, q_row)
    q.commit_failed = 1
    q.resp_error = 1
    row.verdict = RECV_PROT if bth.is_send(row.opcode) else ACCESS_ERROR
    if bth.is_send(row.opcode):
        wrong = bth.NAK_REMOTE_OPERATIONAL << 8 | LOC_PROT_ERR
        fail_message(world, q_row, p, ask(world, q.nic, hooks.RECEIVE_ERROR, q_row, wrong) & 255)
    elif bth.with_imm(row.opcode):
        fail_message(world, q_row, p, LOC_ACCESS_ERR)
    refuse(world, q_row, p)


@cold
def flush_accepted(world, q_row, p):
    """A request accepted behind one whose commit failed: its receive WQE is flushed."""
    row = packet(world, p)
    takes = bth.is_send(row.opcode) or bth.with_imm(row.opcode)
    if row.verdict == ACCEPT and takes and row.last and row.entry != qp(world, q_row).failed_wqe:
        fail_message(world, q_row, p, WR_FLUSH_ERR)


@jit
def execute(world, q_row, p):
    """An accepted request happens. False: a page was taken away."""
    row = packet(world, p)
    if row.opcode == bth.READ_REQUEST:
        push(world, control(world, 0).now, units.READ_RESPONSE, q_row, qp(world, q_row).incarnation)
        return True
    if bth.is_atomic(row.opcode):
        return perform_atomic(world, q_row, p)
    if bth.is_non_posted(row.opcode):
        return write_or_flush(world, q_row, p)
    return deliver(world, q_row, p)


@jit
def commit_request(world, q_row, p):
    """What the responder decided about packet ``p`` happens."""
    row = packet(world, p)
    if qp(world, q_row).commit_failed:
        flush_accepted(world, q_row, p)
    elif row.verdict == ACCEPT:
        if not execute(world, q_row, p):
            taken_away(world, q_row, p)
    elif row.verdict == REACK:
        acknowledge(world, q_row, row.psn)
    elif row.verdict == SAVED:
        answer(world, q_row, row.psn, row.entry)
    else:
        refuse(world, q_row, p)
    free_packet(world, p)


def commit(world, p, incarnation):
    """COMMIT: of a request at the responder or of response data at the requester. Nothing happens after a RESET, but
    what the packet's message had taken from a TM-SRQ completes."""
    row = packet(world, p)
    q_row = row.qp
    if qp(world, q_row).incarnation != incarnation:
        if row.tagging and row.last:  # nothing of the QP's new life changes
            call(vector(world, units.TAG_FLUSH).address, world, p, WR_FLUSH_ERR)
        free_packet(world, p)
        return 0
    if bth.is_response(row.opcode):
        return commit_response(world, q_row, p)
    commit_request(world, q_row, p)
    return 0
