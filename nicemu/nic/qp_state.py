"""QP state changes inside the device: RESET purges, ERR flushes every WQE exactly once, SQE the send queue only
(Linux qp_state_table; IBA QP states).
"""

from nicemu._jit import call, jit, load32, load64, store64
from nicemu.abi import rings
from nicemu.abi.verbs import AsyncEvent, QpState
from nicemu.nic.backup_ring import leave
from nicemu.nic.cq import post_cqe
from nicemu.nic.eq import post_async
from nicemu.nic.program_ring import SEND_SLOT, move, recvs_posted
from nicemu.nic.qp_type import ATOMIC_WRITE, SEND, XRC_TGT
from nicemu.nic.receive_queue import fail_recv, flush_slot
from nicemu.nic.reorder import drop_kept
from nicemu.nic.send_queue import WQE_DONE, WR_FLUSH_ERR, entry_of, posted, stop_timer, wc_opcode, wqe_address
from nicemu.tables import units
from nicemu.tables.packets import free_packet
from nicemu.tables.records import FAULTS_PER_QP, STATE_WORDS
from nicemu.tables.rows import control, fault, nic, packet, qp, qp_state_base, resource, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.tables.wheel import push

RESET, RTS, SQD, SQE, ERR = (int(s) for s in (QpState.RESET, QpState.RTS, QpState.SQD, QpState.SQE, QpState.ERR))
QP_STATE, LAST_WQE_REACHED = int(Ev.QP_STATE), int(AsyncEvent.QP_LAST_WQE_REACHED)


@jit
def drop_received(world, q):
    """Free the requests that wait in the responder's queue or for others before them, and the responses that wait for a
    page."""
    n = nic(world, q.nic)
    q.recv_suspended = 0
    while q.rx_head != 0:
        p = q.rx_head
        q.rx_head = packet(world, p).next
        q.rx_waiting -= 1
        n.rx_waiting -= 1
        leave(n, packet(world, p), False)
        free_packet(world, p)
    while q.cx_head != 0:
        p = q.cx_head
        q.cx_head = packet(world, p).next
        free_packet(world, p)
    q.cx_waiting = 0
    drop_kept(world, q)


@jit
def flush_end(first, posted, slots):
    """End of what is posted, whatever the program's producer counter says. Not below ``first``: numba's ``range`` runs
    for ever if ``stop - start`` overflows."""
    return min(max(posted, first), first + slots)


@jit
def flush_sends(world, q_row):
    """WR_FLUSH_ERR for every send WQE outstanding and posted, in post order."""
    q = qp(world, q_row)
    for index in range(q.sq_una, flush_end(q.sq_una, posted(world, q_row), q.sq_slots)):
        if q.rendezvous:
            entry_of(world, q, index).status = WR_FLUSH_ERR
            call(vector(world, units.RENDEZVOUS).address, world, q_row, index)
            q.sq_una = index + 1
            continue
        if q.ring_mkey and index >= q.sq_fetched:
            move(world, q_row, SEND_SLOT, index)
        at = wqe_address(q, index)
        opcode = load32(at + rings.SEND_OPCODE)
        opcode = opcode if opcode <= ATOMIC_WRITE else SEND
        trace(world, WQE_DONE, q.nic, q.number, index, WR_FLUSH_ERR, two(opcode, 1))
        post_cqe(world, q.send_cq, load64(at), q.number, WR_FLUSH_ERR, wc_opcode(opcode), (0, 0, 0, index, 0), 0)
        q.sq_una = index + 1
    q.sq_next = q.sq_una
    q.sq_fetched = q.sq_una
    q.sq_offset = 0


@jit
def flush(world, q_row):
    """WR_FLUSH_ERR for everything outstanding and posted, each queue in post order. WQEs of an SRQ stay there; the QP
    says once that it has taken its last one (verbs QP_LAST_WQE_REACHED)."""
    q = qp(world, q_row)
    flush_sends(world, q_row)
    fail_recv(world, q_row, WR_FLUSH_ERR)
    if q.srq:
        if q.last_wqe == 0 and q.type != XRC_TGT:
            q.last_wqe = 1
            post_async(world, q.nic, LAST_WQE_REACHED, q.number)
        return
    for index in range(q.rq_next, flush_end(q.rq_next, recvs_posted(world, q_row), q.rq_slots)):
        flush_slot(world, q_row, index, WR_FLUSH_ERR)
        q.rq_next = index + 1


def send_queue_error(world, q_row, _):
    """SQ_ERROR: a send of an unreliable QP failed: to SQE, its send queue is flushed; receives go on (IBA SQE)."""
    q = qp(world, q_row)
    if q.state == RTS or q.state == SQD:
        q.state = SQE
        trace(world, QP_STATE, q.nic, q.number, SQE, 0, 0)
    if q.state == SQE:
        flush_sends(world, q_row)
        q.sent_psn = q.next_psn
        q.una_psn = q.next_psn
        q.sq_error = 0
        q.sq_suspended = 0
        q.sq_draining = 0
    return 0


def qp_error(world, q_row, event):
    """QP_ERROR: to ERR, with an affiliated async event if ``event`` is not 0; flushes also what is posted in ERR.

    DMA on its way lands first, so that completions keep the post order and no byte moves after a flush.
    """
    q = qp(world, q_row)
    if q.state == RESET:
        return 0
    if q.state != ERR:
        q.state = ERR
        trace(world, QP_STATE, q.nic, q.number, ERR, 0, 0)
        stop_timer(world, q_row)
        q.read_active = 0
        drop_received(world, q)
        if event:
            post_async(world, q.nic, event, q.number)
    if control(world, 0).now < q.commit_until:
        push(world, q.commit_until, units.DOORBELL, q_row, 0)
    else:
        flush(world, q_row)
    return 0


@jit
def forget_rows(world, q_row):
    """Firmware's state, remembered requests and open page faults go. What is clear already is not written: most QPs
    never use these rows, and pages that nobody wrote to stay uncommitted."""
    q = qp(world, q_row)
    state = qp_state_base(world) + q_row * 8 * STATE_WORDS
    for at in range(state, state + 8 * STATE_WORDS, 8):
        if load64(at) != 0:
            store64(at, 0)
    for i in range(min(q.resource_head, nic(world, q.nic).resources)):
        resource(world, q.resource_base + i).kind = 0
    for kind in range(FAULTS_PER_QP):
        f = fault(world, q_row * FAULTS_PER_QP + kind)
        if f.open | f.error:
            f.open = f.error = 0


@jit
def reset(world, q_row):
    """RESET: forget everything; events of the old life are ignored by their incarnation. What it had taken from a
    TM-SRQ completes: tags belong to the SRQ."""
    q = qp(world, q_row)
    if q.rendezvous:
        flush_sends(world, q_row)
    if q.tagging:
        fail_recv(world, q_row, WR_FLUSH_ERR)
    stop_timer(world, q_row)
    drop_received(world, q)
    q.state = RESET
    q.incarnation += 1
    forget_rows(world, q_row)
    q.sq_fetched = q.sq_next = q.sq_offset = q.sq_una = 0
    q.next_psn = q.una_psn = q.sent_psn = q.epsn = q.msn = 0
    q.rd_atomic = q.sq_scheduled = q.sq_suspended = q.sq_error = 0
    q.rnr_until = q.read_suspended = q.nak_pending = q.resp_error = 0
    q.rq_next = q.message_opcode = q.message_offset = q.recv_taken = 0
    q.resource_head = q.read_active = q.commit_until = q.rewound = 0
    q.commit_failed = q.drop_message = q.comm_est = q.last_wqe = q.sq_draining = q.sqd_notify = 0
    q.ssn = q.rx_non_posted = q.ack_event = 0
    q.tagging = q.tag = q.rndv_produced = q.rndv_open = 0
    q.rate_kbps = q.paced_until = q.cc_kbps = q.cc_timer = 0
    q.jumps = q.rnr_alone = 0
    q.lsn = q.faulted_psn = q.failed_wqe = -1
