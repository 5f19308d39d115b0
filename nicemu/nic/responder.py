"""Responder: request packets -> memory, ACKs, NAKs (Linux rxe_resp.c).

A request passes a list of checks in the order check_psn, check_op_seq, check_length, check_resource, check_rkey;
each returns a verdict. What was decided happens at COMMIT, at least the PCIe latency later and in order: bytes move,
then the ACK, NAK or CQE. Requests behind a READ wait until its responses are out. UC and UD drop what RC would refuse,
or keep in the backup ring what only lacks a page.
"""

from nicemu._jit import call, cold, jit
from nicemu.abi import rings
from nicemu.abi.tag_matching import TMH_BYTES
from nicemu.abi.verbs import AsyncEvent, QpState, SrqType
from nicemu.nic import dma, hooks
from nicemu.nic.backup_ring import enter, keep, leave, suspend
from nicemu.nic.check_psn import RNR_OUT, check_psn
from nicemu.nic.check_rkey import REMOTE_WRITE, check_rkey
from nicemu.nic.datagram import GRH_BYTES, write_grh
from nicemu.nic.dma import commit_later, translate_range, translate_sges
from nicemu.nic.eq import post_async
from nicemu.nic.hooks import STALL, TO_ERR, ask
from nicemu.nic.mkey import still_granted
from nicemu.nic.page_fault import RESPONDER_RDMA, RESPONDER_RECV, failed_before, raise_fault
from nicemu.nic.psn import psn_add
from nicemu.nic.qp_cache import touch
from nicemu.nic.qp_type import UD, XRC_TGT, is_reliable
from nicemu.nic.receive_queue import recv_address, recv_available, recv_count, take_recv
from nicemu.nic.reorder import ask_for_gap, keep_ahead, let_follow
from nicemu.nic.responder_resource import open_resource, replay, saved
from nicemu.nic.tag_list import EAGER, placed, serves_tags
from nicemu.nic.verdict import (
    ACCEPT,
    ACCESS_ERROR,
    AHEAD,
    DROP,
    HOLD,
    INVALID,
    NAK_SEQUENCE,
    REACK,
    RECV_LEN,
    RECV_PROT,
    REPLAY,
    RNR,
    SAVED,
)
from nicemu.tables import units
from nicemu.tables.packets import free_packet
from nicemu.tables.rows import nic, packet, qp, resource, srq, vector
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth
from nicemu.wire.opcode import ends, is_send, is_write, starts, with_imm

RTR, SQE, XRC_SRQ = int(QpState.RTR), int(QpState.SQE), int(SrqType.XRC)
DROP_EVENT, COMM_EST = int(Ev.DROP), int(AsyncEvent.COMM_EST)
MAX_MESSAGE = 1 << 31


@jit
def check_op_seq(q, row):
    """FIRST and ONLY only between messages, MIDDLE and LAST only within one of its operation (rxe check_op_seq)."""
    opcode = row.opcode
    if starts(opcode):
        return ACCEPT if q.message_opcode == 0 else INVALID
    if q.message_opcode == 0:
        return INVALID
    return ACCEPT if is_send(q.message_opcode - 1) == is_send(opcode) else INVALID


@jit
def check_length(world, q, row):
    """FIRST and MIDDLE carry exactly the PMTU, LAST 1..PMTU, ONLY 0..PMTU; a WRITE exactly its DMA length
    (rxe_resp_check_length)."""
    opcode = row.opcode
    if not is_send(opcode) and not is_write(opcode):
        if opcode == bth.ATOMIC_WRITE and (row.length != 8 or row.payload != 8):
            return INVALID
        return ACCEPT if 0 <= row.length <= MAX_MESSAGE else INVALID
    if not ends(opcode):
        if row.payload != q.mtu:
            return INVALID
    elif row.payload > q.mtu or (row.payload == 0 and not starts(opcode)):
        return INVALID
    if is_write(opcode):
        total = row.length if starts(opcode) else q.message_length
        done = 0 if starts(opcode) else q.message_offset
        if total > MAX_MESSAGE or done + row.payload > total or (ends(opcode) and done + row.payload != total):
            return INVALID
    return ACCEPT


@cold
def check_srq(world, q_row, row):
    """An XRC request names the SRQ it is for, of the target's domain; PD and CQ are that SRQ's."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    if row.srqn <= 0 or row.srqn >= n.srq_count:
        return INVALID
    s = srq(world, n.srq_base + row.srqn)
    if s.valid == 0 or s.type != XRC_SRQ or s.xrcd != q.xrcd:
        return INVALID
    if starts(row.opcode) and q.recv_taken == 0:
        q.srq = n.srq_base + row.srqn
        q.pd = s.pd
        q.recv_cq = s.cq
    return ACCEPT if q.srq == n.srq_base + row.srqn else INVALID


@jit
def take_buffer(world, q_row, p):
    """A buffer for the message that packet ``p`` starts. False: none is there."""
    q = qp(world, q_row)
    if serves_tags(world, q):
        return call(vector(world, units.TAG_TAKE).address, world, q_row, p) != 0
    if not recv_available(world, q_row):
        return False
    q.recv_length = take_recv(world, q_row)
    return True


@jit
def check_resource(world, q_row, p):
    """A SEND, and the last packet of a WRITE with immediate, needs a receive WQE, else RNR NAK (rxe check_resource)."""
    q = qp(world, q_row)
    row = packet(world, p)
    opcode = row.opcode
    if q.type == XRC_TGT:
        verdict = check_srq(world, q_row, row)
        if verdict != ACCEPT:
            return verdict
    if is_write(opcode) and with_imm(opcode):
        if q.recv_taken == 0 and not recv_available(world, q_row):
            return RNR
    elif is_send(opcode) and q.recv_taken == 0:
        if not take_buffer(world, q_row, p):
            return RNR
    if is_send(opcode):
        if q.recv_length < 0:
            return RECV_PROT
        done = 0 if starts(opcode) else q.message_offset
        if placed(q, done + row.payload) + (GRH_BYTES if q.type == UD else 0) > q.recv_length:
            return RECV_LEN
    return ACCEPT


@cold
def fault_verdict(world, q_row, kind, row, op_length):
    """A page is missing: RNR NAK while the driver brings it in, or a wait for it; an error if it could not."""
    q = qp(world, q_row)
    if failed_before(world, q_row, kind):
        return RECV_PROT if kind == RESPONDER_RECV else ACCESS_ERROR
    done = q.message_offset if q.message_opcode != 0 else 0
    raise_fault(world, q_row, kind, q.recv_wqe, done, op_length)
    if not is_reliable(q):
        return HOLD if keep(world, q_row, row) else RNR
    q.fault_code = ask(world, q.nic, hooks.RESPONDER_FAULT, q_row, q.min_rnr_timer)
    if q.fault_code == STALL and enter(world, nic(world, q.nic), row):
        return HOLD
    q.faulted_psn = row.psn
    return RNR


@jit
def translate_recv(world, q_row, p, done):
    """Translate where a SEND's bytes go; in front of a datagram its GRH."""
    row = packet(world, p)
    q = qp(world, q_row)
    first = placed(q, done)
    length = placed(q, done + row.payload) - first
    if q.type == UD:
        write_grh(world, p)
        length += GRH_BYTES
    elif q.tagging == EAGER and done == 0:
        row.grh = -TMH_BYTES
    sges = recv_address(world, q_row) + rings.RECV_HEADER_BYTES
    verdict = translate_sges(world, p, q.pd, sges, recv_count(world, q_row), first, length, True)
    if verdict == dma.FAULT:
        return fault_verdict(world, q_row, RESPONDER_RECV, row, length)
    return ACCEPT if verdict == dma.OK else RECV_PROT


@jit
def translate_request(world, q_row, p):
    """Translate where the packet's bytes go (first DMA instant): ACCEPT, RNR on a fault, or an error."""
    row = packet(world, p)
    q = qp(world, q_row)
    opcode = row.opcode
    done = 0 if starts(opcode) else q.message_offset
    if is_send(opcode):
        return translate_recv(world, q_row, p, done)
    if opcode == bth.READ_REQUEST or opcode == bth.FLUSH:
        return ACCEPT
    length = row.payload if is_write(opcode) else 8
    if length == 0:
        return ACCEPT
    if is_write(opcode) and not starts(opcode):
        if not still_granted(world, q_row, q.message_va + done, length, REMOTE_WRITE):
            return ACCESS_ERROR
    if translate_range(world, p, q.message_mkey, q.message_va + done, length, True) != dma.OK:
        rest = q.message_length - done if is_write(opcode) else 8
        return fault_verdict(world, q_row, RESPONDER_RDMA, row, rest)
    return ACCEPT


@jit
def judge(world, q_row, p):
    """All checks in order; the first verdict that is not ACCEPT decides."""
    q = qp(world, q_row)
    row = packet(world, p)
    row.kind = q.nic
    row.qp = q_row
    verdict = check_psn(world, q_row, row)
    if verdict == ACCEPT:
        verdict = check_op_seq(q, row)
    if verdict == ACCEPT:
        verdict = check_length(world, q, row)
    if verdict == ACCEPT:
        verdict = check_resource(world, q_row, p)
    if verdict == ACCEPT:
        verdict = check_rkey(world, q_row, row)
    if verdict == ACCEPT:
        verdict = translate_request(world, q_row, p)
    return verdict if is_reliable(q) else unreliable(world, q_row, verdict)


@jit
def unreliable(world, q_row, verdict):
    """UC and UD drop what they refuse, and UC the rest of the message; only a bad receive WQE is an error here."""
    if verdict == ACCEPT or verdict == RECV_PROT or verdict == HOLD:
        return verdict
    q = qp(world, q_row)
    if verdict == RECV_LEN:
        status = ask(world, q.nic, hooks.SHORT_RECEIVE, q_row, 1 if q.srq else 0)
        if status == TO_ERR:
            return RECV_LEN
        if status:
            call(vector(world, units.RECV_TELLS).address, world, q_row, status)
    q.drop_message = 1
    q.message_opcode = 0
    q.message_offset = 0
    return DROP


@jit
def accepted(world, q_row, p):
    """Advance the expected PSN and the message in progress; open a responder resource for what a response answers."""
    q = qp(world, q_row)
    row = packet(world, p)
    opcode = row.opcode
    if bth.is_non_posted(opcode):
        q.epsn = psn_add(q.epsn, open_resource(world, q, row))
        return
    done = 0 if starts(opcode) else q.message_offset
    last = ends(opcode)
    row.result = done + row.payload
    row.last = 1 if last else 0
    q.message_offset = 0 if last else done + row.payload
    q.message_opcode = 0 if last else opcode + 1
    if is_write(opcode) and with_imm(opcode) and q.recv_taken == 0:  # else a SEND that UC dropped has left one
        take_recv(world, q_row)
    row.entry = q.recv_wqe
    row.wr_id = q.recv_wr_id
    row.cq = q.recv_cq
    row.tagging = q.tagging if is_send(opcode) else 0
    row.tag = q.tag
    if last and (is_send(opcode) or with_imm(opcode)):
        q.recv_taken = 0
    q.epsn = psn_add(q.epsn, 1)


@cold
def rnr_code(world, q_row, row):
    """RNR timer code of the NAK, negative: drop in silence. Firmware has decided about page faults."""
    q = qp(world, q_row)
    q.nak_pending = RNR_OUT
    if q.faulted_psn != row.psn:
        return q.min_rnr_timer
    q.faulted_psn = -1
    return q.fault_code


@jit
def decide(world, q_row, p):
    """The packet's verdict, with what it needs at COMMIT written into the packet."""
    q = qp(world, q_row)
    row = packet(world, p)
    verdict = judge(world, q_row, p)
    if verdict == ACCEPT:
        accepted(world, q_row, p)
    elif verdict == REPLAY:
        row.entry = replay(world, q_row, row)
        verdict = ACCEPT if row.entry > 0 else (DROP if row.entry == 0 else ACCESS_ERROR)
    elif verdict == SAVED:
        row.entry = saved(world, q, row)
        verdict = SAVED if row.entry != 0 else DROP
    elif verdict == RNR:
        row.imm = rnr_code(world, q_row, row)
        verdict = RNR if row.imm >= 0 else DROP
    elif verdict == REACK:
        row.psn = psn_add(q.epsn, -1)
    elif verdict == NAK_SEQUENCE:
        row.psn = q.epsn
    return verdict


@jit
def handle(world, q_row, p):
    """One request packet: decide now, act at COMMIT."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    n.translation_delay = touch(world, q.nic, q_row)
    verdict = decide(world, q_row, p)
    if verdict == HOLD:
        suspend(world, q_row, p)
        return
    if verdict == AHEAD:
        keep_ahead(world, q_row, p)
        return
    leave(n, row, verdict == ACCEPT)
    if verdict == DROP:
        trace(world, DROP_EVENT, q.nic, row.opcode, row.psn, q.number, 0)
        free_packet(world, p)
        return
    if INVALID <= verdict <= RECV_LEN:
        q.resp_error = 1
    if verdict != ACCEPT:
        row.segments = 0
    row.verdict = verdict
    if verdict == ACCEPT and row.opcode == bth.READ_REQUEST:
        q.read_active, q.read_counted = row.entry, row.counted
        r = resource(world, row.entry)
        r.next_psn = r.first_psn
    commit_later(world, q_row, p)


@jit
def established(world, q):
    """COMM_EST: the first packet for a connected QP that is still in RTR (IBA communication established)."""
    if q.state == RTR and q.comm_est == 0 and q.type != UD:
        q.comm_est = 1
        post_async(world, q.nic, COMM_EST, q.number)


def responder(world, q_row, _):
    """RESPONDER: handle the QP's queued requests, up to a READ whose responses still go out, or one that waits for a
    page."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    while q.read_active == 0 and q.recv_suspended == 0:
        if q.ahead_head != 0:
            let_follow(world, q_row)
        if q.rx_head == 0:
            if q.ahead_head != 0:
                ask_for_gap(world, q_row)
            return 0
        p = q.rx_head
        row = packet(world, p)
        q.rx_head = row.next
        q.rx_waiting -= 1
        n.rx_waiting -= 1
        if row.counted:
            q.rx_non_posted -= 1
        if q.state < RTR or q.state > SQE or q.resp_error:
            leave(n, row, False)
            free_packet(world, p)
        else:
            established(world, q)
            handle(world, q_row, p)
    return 0
