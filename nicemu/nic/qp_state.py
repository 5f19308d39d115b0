"""QP state changes inside the device: RESET purges, ERR flushes every WQE exactly once (Linux qp_state_table)."""

from nicemu._jit import jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.verbs import QpState
from nicemu.nic.cq import post_cqe
from nicemu.nic.eq import post_async
from nicemu.nic.receive_queue import WC_RECV, complete_recv
from nicemu.nic.send_queue import WR_FLUSH_ERR, stop_timer, wc_opcode, wqe_address
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.packets import free_packet
from nicemu.tables.records import FAULTS_PER_QP, RESOURCES_PER_QP
from nicemu.tables.rows import control, fault, packet, qp, resource
from nicemu.tables.trace import Ev, trace

RESET, ERR = int(QpState.RESET), int(QpState.ERR)
QP_STATE = int(Ev.QP_STATE)


@jit
def drop_received(world, q):
    """Free the requests that wait in the responder's queue."""
    while q.rx_head != 0:
        p = q.rx_head
        q.rx_head = packet(world, p).next
        free_packet(world, p)


@jit
def flush_end(first, posted, slots):
    """End of what is posted, whatever the program's producer counter says. Not below ``first``: numba's ``range`` runs
    for ever if ``stop - start`` overflows."""
    return min(max(posted, first), first + slots)


@jit
def flush(world, q_row):
    """WR_FLUSH_ERR for everything outstanding and posted, each queue in post order."""
    q = qp(world, q_row)
    for index in range(q.sq_una, flush_end(q.sq_una, load64(q.doorbell_record + rings.DB_SEND), q.sq_slots)):
        at = wqe_address(q, index)
        opcode = wc_opcode(min(load32(at + rings.SEND_OPCODE), 6))
        post_cqe(world, q.send_cq, load64(at), q.number, WR_FLUSH_ERR, opcode, (0, 0, 0, index), 0)
        q.sq_una = index + 1
    if q.recv_taken:
        q.recv_taken = 0
        complete_recv(world, q_row, q.recv_wqe, WR_FLUSH_ERR, WC_RECV, 0, -1, 0)
    for index in range(q.rq_next, flush_end(q.rq_next, load64(q.doorbell_record + rings.DB_RECV), q.rq_slots)):
        complete_recv(world, q_row, index, WR_FLUSH_ERR, WC_RECV, 0, -1, 0)
        q.rq_next = index + 1
    q.sq_next = q.sq_una
    q.sq_fetched = q.sq_una


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
def reset(world, q_row):
    """RESET: forget everything; events of the old life are ignored by their incarnation."""
    q = qp(world, q_row)
    stop_timer(world, q_row)
    drop_received(world, q)
    q.state = RESET
    q.incarnation += 1
    q.sq_fetched = q.sq_next = q.sq_offset = q.sq_una = 0
    q.psn = q.next_psn = q.una_psn = q.sent_psn = q.epsn = q.msn = 0
    q.rd_atomic = q.sq_scheduled = q.sq_suspended = q.sq_error = 0
    q.rnr_until = q.read_suspended = q.nak_pending = q.resp_error = 0
    q.rq_next = q.message_opcode = q.message_offset = q.recv_taken = 0
    q.resource_head = q.read_active = q.commit_until = q.rewound = 0
    q.faulted_psn = -1
    for i in range(RESOURCES_PER_QP):
        resource(world, q.resource_base + i).kind = 0
    for kind in range(FAULTS_PER_QP):
        f = fault(world, q_row * FAULTS_PER_QP + kind)
        f.open = 0
        f.error = 0
