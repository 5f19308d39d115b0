"""Responder: request packets -> memory, ACKs, NAKs (Linux rxe_resp.c).

A request passes a list of checks in the order check_psn, check_op_seq, check_length, check_resource, check_rkey;
each returns a verdict. What was decided happens at COMMIT, at least the PCIe latency later and in order: bytes move,
then the ACK, NAK or CQE. Requests behind a READ wait until its responses are out.

Left out: UC, UD, XRC, SRQ, memory windows, credits (every ACK says unlimited).
"""

from nicemu._jit import call, jit, load32
from nicemu.abi import rings
from nicemu.abi.verbs import Access, QpState
from nicemu.nic import dma, hooks
from nicemu.nic.dma import hold, translate_range, translate_sges
from nicemu.nic.hooks import ask
from nicemu.nic.mkey import check_mkey
from nicemu.nic.page_fault import RESPONDER_RDMA, RESPONDER_RECV, failed_before, raise_fault
from nicemu.nic.port_receive import checked_arrival
from nicemu.nic.psn import packet_count, psn_add, psn_diff
from nicemu.nic.receive_queue import recv_address, recv_available, take_recv
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.packets import free_packet
from nicemu.tables.records import RESOURCES_PER_QP
from nicemu.tables.rows import control, nic, packet, qp, resource, vector
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

(ACCEPT, DROP, NAK_SEQUENCE, REACK, REPLAY, RNR, INVALID, ACCESS_ERROR, RECV_PROT, RECV_LEN, WAIT, SAVED) = range(12)
"""Verdicts; ACCEPT goes on to the next check."""
RTR, SQE = int(QpState.RTR), int(QpState.SQE)
REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC = int(Access.REMOTE_WRITE), int(Access.REMOTE_READ), int(Access.REMOTE_ATOMIC)
RECEIVE, DROP_EVENT = int(Ev.RECEIVE), int(Ev.DROP)
READ, ATOMIC = 1, 2


@jit
def is_send(opcode):
    """SEND_FIRST .. SEND_ONLY_IMM."""
    return opcode < bth.WRITE


@jit
def is_write(opcode):
    """WRITE_FIRST .. WRITE_ONLY_IMM."""
    return bth.WRITE <= opcode < bth.READ_REQUEST


@jit
def place(opcode):
    """FIRST, MIDDLE, LAST ... of a SEND or WRITE opcode."""
    return opcode if opcode < bth.WRITE else opcode - bth.WRITE


@jit
def with_imm(opcode):
    """The packet carries immediate data."""
    return opcode < bth.READ_REQUEST and (place(opcode) == bth.LAST_IMM or place(opcode) == bth.ONLY_IMM)


@jit
def starts(opcode):
    """The packet starts a message."""
    return opcode >= bth.READ_REQUEST or place(opcode) == bth.FIRST or place(opcode) >= bth.ONLY


@jit
def find_resource(world, q, psn, kind):
    """The remembered READ or atomic that covers ``psn``, 0 if none."""
    for i in range(RESOURCES_PER_QP):
        r = resource(world, q.resource_base + i)
        if r.kind == kind and psn_diff(psn, r.first_psn) >= 0 and psn_diff(psn, r.last_psn) <= 0:
            return q.resource_base + i
    return 0


@jit
def resumes_cut_read(world, q, row):
    """A page fault cut a READ short and took the expected PSN back; its requester, which faulted too, asks again from
    an earlier response on. Then that one is expected."""
    found = find_resource(world, q, row.psn, READ)
    if q.nak_pending == 0 or found == 0:
        return False
    r = resource(world, found)
    last = psn_add(row.psn, packet_count(row.length, q.mtu) - 1)
    if psn_add(r.last_psn, 1) != q.epsn or psn_diff(last, q.epsn) < 0:
        return False
    if row.psn == r.first_psn:
        r.kind = 0
    else:
        r.last_psn = psn_add(row.psn, -1)
    q.epsn = row.psn
    q.nak_pending = 0
    return True


@jit
def check_psn(world, q, row):
    """Expected: accept. Behind: a duplicate. Ahead: one NAK for the gap, then silence (rxe check_psn)."""
    gap = psn_diff(row.psn, q.epsn)
    if gap == 0:
        q.nak_pending = 0
        return ACCEPT
    n = nic(world, q.nic)
    if gap > 0:
        n.out_of_sequence += 1
        if q.nak_pending:
            return DROP
        q.nak_pending = 1
        return NAK_SEQUENCE
    n.duplicates += 1
    if row.opcode == bth.READ_REQUEST:
        return ACCEPT if resumes_cut_read(world, q, row) else REPLAY
    return SAVED if row.opcode >= bth.COMPARE_SWAP else REACK


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
def check_length(q, row):
    """FIRST and MIDDLE carry exactly the PMTU, LAST 1..PMTU, ONLY 0..PMTU; a WRITE exactly its DMA length."""
    opcode = row.opcode
    if opcode >= bth.READ_REQUEST:
        return ACCEPT if row.length <= 1 << 31 else INVALID
    where = place(opcode)
    if where == bth.FIRST or where == bth.MIDDLE:
        if row.payload != q.mtu:
            return INVALID
    elif row.payload > q.mtu or (where < bth.ONLY and row.payload == 0):
        return INVALID
    if is_write(opcode):
        total = row.length if starts(opcode) else q.message_length
        done = 0 if starts(opcode) else q.message_offset
        last = where != bth.FIRST and where != bth.MIDDLE
        if done + row.payload > total or (last and done + row.payload != total):
            return INVALID
    return ACCEPT


@jit
def check_resource(world, q_row, row):
    """A SEND, and the last packet of a WRITE with immediate, needs a receive WQE, else RNR NAK (rxe check_resource)."""
    q = qp(world, q_row)
    opcode = row.opcode
    if is_write(opcode) and with_imm(opcode):
        if not recv_available(q):
            return RNR
    elif is_send(opcode) and q.recv_taken == 0:
        if not recv_available(q):
            return RNR
        q.message_length = take_recv(world, q_row)
        if q.message_length < 0:
            return RECV_PROT
    if is_send(opcode):
        done = 0 if starts(opcode) else q.message_offset
        if done + row.payload > q.message_length:
            return RECV_LEN
    return ACCEPT


@jit
def required_access(opcode):
    """Remote right a request needs."""
    if is_write(opcode):
        return REMOTE_WRITE
    return REMOTE_READ if opcode == bth.READ_REQUEST else REMOTE_ATOMIC


@jit
def check_rkey(world, q_row, row):
    """QP rights, rkey, PD, range, rights of the region; atomics aligned to 8 (rxe check_rkey). Sets the target."""
    q = qp(world, q_row)
    opcode = row.opcode
    if is_send(opcode) or not starts(opcode):
        return ACCEPT
    if opcode >= bth.COMPARE_SWAP and row.va & 7:
        return INVALID
    need = required_access(opcode)
    if q.access & need == 0:
        return ACCESS_ERROR
    if opcode == bth.READ_REQUEST and q.max_dest_rd_atomic == 0:
        return INVALID
    q.message_mkey = 0
    q.message_key = row.rkey
    if row.length > 0:
        q.message_mkey = check_mkey(world, q_row, row.rkey, q.pd, row.va, row.length, need)
        if q.message_mkey == 0:
            return ACCESS_ERROR
    q.message_va = row.va
    if is_write(opcode):
        q.message_length = row.length
    return ACCEPT


@jit
def fault_verdict(world, q_row, kind, row, op_length):
    """A page is missing: RNR NAK while the driver brings it in; an error if it could not."""
    q = qp(world, q_row)
    if failed_before(world, q_row, kind):
        return RECV_PROT if kind == RESPONDER_RECV else ACCESS_ERROR
    done = q.message_offset if q.message_opcode != 0 else 0
    raise_fault(world, q_row, kind, q.recv_wqe, done, op_length)
    q.faulted_psn = row.psn
    return RNR


@jit
def translate_request(world, q_row, p):
    """Translate where the packet's bytes go (first DMA instant): ACCEPT, RNR on a fault, or an error."""
    row = packet(world, p)
    q = qp(world, q_row)
    row.kind = q.nic
    row.qp = q_row
    row.segments = 0
    opcode = row.opcode
    done = 0 if starts(opcode) else q.message_offset
    if is_send(opcode):
        at = recv_address(q, q.recv_wqe)
        room = (q.rq_stride - rings.RECV_HEADER_BYTES) // rings.SGE_BYTES
        count = min(load32(at + rings.RECV_NUM_SGE), room)
        verdict = translate_sges(world, p, q.pd, at + rings.RECV_HEADER_BYTES, count, done, row.payload, True)
        if verdict == dma.FAULT:
            return fault_verdict(world, q_row, RESPONDER_RECV, row, 0)
        return ACCEPT if verdict == dma.OK else RECV_PROT
    if opcode == bth.READ_REQUEST or row.length == 0:
        return ACCEPT
    length = row.payload if is_write(opcode) else 8
    if is_write(opcode) and not starts(opcode):
        if check_mkey(world, q_row, q.message_key, q.pd, q.message_va + done, length, REMOTE_WRITE) == 0:
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
    verdict = check_psn(world, q, row)
    if verdict == ACCEPT:
        verdict = check_op_seq(q, row)
    if verdict == ACCEPT:
        verdict = check_length(q, row)
    if verdict == ACCEPT:
        verdict = check_resource(world, q_row, row)
    if verdict == ACCEPT:
        verdict = check_rkey(world, q_row, row)
    if verdict == ACCEPT:
        verdict = translate_request(world, q_row, p)
    return verdict


@jit
def accepted(world, q_row, p):
    """Advance the expected PSN and the message in progress; open a responder resource for READs and atomics."""
    q = qp(world, q_row)
    row = packet(world, p)
    opcode = row.opcode
    if opcode < bth.READ_REQUEST:
        done = 0 if starts(opcode) else q.message_offset
        row.result = done + row.payload
        where = place(opcode)
        last = where != bth.FIRST and where != bth.MIDDLE
        row.last = 1 if last else 0
        q.message_offset = 0 if last else done + row.payload
        q.message_opcode = 0 if last else opcode + 1
        if is_write(opcode) and with_imm(opcode):
            take_recv(world, q_row)
        row.entry = q.recv_wqe
        if last:
            q.recv_taken = 0
        q.epsn = psn_add(q.epsn, 1)
        return
    count = packet_count(row.length, q.mtu) if opcode == bth.READ_REQUEST else 1
    r = resource(world, q.resource_base + q.resource_head % RESOURCES_PER_QP)
    row.entry = q.resource_base + q.resource_head % RESOURCES_PER_QP
    q.resource_head += 1
    r.kind = READ if opcode == bth.READ_REQUEST else ATOMIC
    r.first_psn = row.psn
    r.last_psn = psn_add(row.psn, count - 1)
    r.va = row.va
    r.mkey = q.message_mkey
    r.key = row.rkey
    r.length = row.length
    r.done = 0
    q.epsn = psn_add(q.epsn, count)


@jit
def replay(world, q_row, p):
    """A duplicate READ that is the rest of a remembered one is executed again, reading memory now (rxe
    duplicate_request)."""
    q = qp(world, q_row)
    row = packet(world, p)
    found = find_resource(world, q, row.psn, READ)
    if found == 0:
        return DROP
    last = psn_add(row.psn, packet_count(row.length, q.mtu) - 1)
    if last != resource(world, found).last_psn or q.access & REMOTE_READ == 0:
        return DROP
    target = 0
    if row.length > 0:
        target = check_mkey(world, q_row, row.rkey, q.pd, row.va, row.length, REMOTE_READ)
        if target == 0:
            return ACCESS_ERROR
    r = resource(world, found)
    r.first_psn = row.psn
    r.va = row.va
    r.length = row.length
    r.mkey = target
    r.key = row.rkey
    row.entry = found
    return ACCEPT


@jit
def handle(world, q_row, p):
    """One request packet: decide now, act at COMMIT."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    n.translation_delay = 0
    verdict = judge(world, q_row, p)
    row.qp = q_row
    if verdict == ACCEPT:
        accepted(world, q_row, p)
    elif verdict == REPLAY:
        verdict = replay(world, q_row, p)
    elif verdict == SAVED:
        row.entry = find_resource(world, q, row.psn, ATOMIC)
        verdict = SAVED if row.entry != 0 else DROP
    elif verdict == RNR:
        q.nak_pending = 1
        row.imm = q.min_rnr_timer
        if q.faulted_psn == row.psn:
            row.imm = ask(world, q.nic, hooks.RESPONDER_FAULT, q_row, q.min_rnr_timer)
            q.faulted_psn = -1
        verdict = RNR if row.imm >= 0 else DROP
    if verdict == DROP:
        trace(world, DROP_EVENT, q.nic, row.opcode, row.psn, q.number, 0)
        free_packet(world, p)
        return
    if INVALID <= verdict <= RECV_LEN:
        q.resp_error = 1
    elif verdict == REACK:
        row.psn = psn_add(q.epsn, -1)
    elif verdict == NAK_SEQUENCE:
        row.psn = q.epsn
    if verdict != ACCEPT:
        row.segments = 0
    row.verdict = verdict
    if verdict == ACCEPT and row.opcode == bth.READ_REQUEST:
        q.read_active = row.entry
        r = resource(world, row.entry)
        r.next_psn = r.first_psn
    n.dma_last = max(n.dma_last, control(world, 0).now + n.pcie_latency_ns + n.translation_delay)
    hold(world, p, n.dma_last)
    q.commit_until = n.dma_last
    push(world, n.dma_last, units.COMMIT, p, q.incarnation)


def responder(world, q_row, _):
    """RESPONDER: handle the QP's queued requests, up to a READ whose responses are still going out."""
    q = qp(world, q_row)
    while q.rx_head != 0 and q.read_active == 0:
        p = q.rx_head
        row = packet(world, p)
        q.rx_head = row.next
        if q.state < RTR or q.state > SQE or q.resp_error:
            free_packet(world, p)
        else:
            handle(world, q_row, p)
    return 0


def arrive(world, p, _):
    """ARRIVE: a packet reaches a NIC: find its QP; responses to the completer, requests to the responder's queue."""
    if checked_arrival(world, p) != ACCEPT:
        return 0
    row = packet(world, p)
    n = nic(world, row.dest_nic)
    n.packets_received += 1
    trace(world, RECEIVE, row.dest_nic, row.opcode, row.psn, row.dest_qpn, row.payload)
    q_row = n.qp_base + row.dest_qpn
    known = 0 < row.dest_qpn < n.qp_count
    q = qp(world, q_row if known else 0)
    if not known or q.state < RTR or q.state > SQE or q.dest_qpn != row.source_qpn or q.dest_nic != row.source_nic:
        n.packets_dropped += 1
        free_packet(world, p)
        return 0
    row.kind = row.dest_nic
    if bth.READ_RESP_FIRST <= row.opcode <= bth.ATOMIC_ACK:
        n.translation_delay = 0
        return call(vector(world, units.COMPLETER).address, world, q_row, p)
    row.next = 0
    if q.rx_head == 0:
        q.rx_head = p
    else:
        packet(world, q.rx_tail).next = p
    q.rx_tail = p
    return call(vector(world, units.RESPONDER).address, world, q_row, 0)
