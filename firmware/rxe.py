"""Linux soft-RoCE (rxe): page faults are served where they happen, timers tick in jiffies, errors are told its way.

Imitates drivers/infiniband/sw/rxe of Linux 7.3 (files named below), on a kernel with 250 ticks a second (Debian's).
Goes with the profile ``rxe``; what neither has is listed in docs/firmware.md.
"""

from nicemu.nic.hooks import STALL, TO_ERR
from nicemu.nic.qp_type import UD
from nicemu.tables.rows import qp

JIFFY_NS = 4_000_000
LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR, REM_INV_REQ_ERR = 1, 2, 4, 5, 9
RDMA_READ, FETCH_ADD = 4, 6
WC_RECV = 128
NAK_REMOTE_OPERATIONAL = 0x63
QP_FATAL, COMM_EST = 1, 4


def responder_fault(world, row, arg):
    """rxe_odp.c faults the page in on the spot: the QP's work waits, and nobody is told."""
    return STALL


def unreliable_fault(world, row, arg):
    """As for RC."""
    return 1


def ack_timeout(world, row, arg):
    """rxe_qp.c: ``nsecs_to_jiffies``, which rounds down, and at least one."""
    return max(arg // JIFFY_NS, 1) * JIFFY_NS


def rnr_wait(world, row, arg):
    """rxe_comp.c rnrnak_jiffies: ``usecs_to_jiffies``, which rounds up."""
    return -(-arg // JIFFY_NS) * JIFFY_NS


def async_event(world, row, arg):
    """rxe raises no QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR, COMM_EST: no code does."""
    return 0 if QP_FATAL <= arg <= COMM_EST else 1


def send_error(world, row, arg):
    """rxe_req.c: a datagram above the MTU is taken for sent (C10-93.1.1); a request whose data cannot be read takes the
    QP to ERR first and is flushed with the others. rxe_comp.c finds a bad buffer of a READ or atomic, and says so.
    There is no SQE."""
    status, opcode = arg >> 8, arg & 255
    if status == LOC_LEN_ERR and qp(world, row).type == UD:
        return 0
    if status == LOC_PROT_ERR and not RDMA_READ <= opcode <= FETCH_ADD:
        status = WR_FLUSH_ERR
    return status | TO_ERR


def receive_error(world, row, arg):
    """rxe_resp.c: copy_data fails with EINVAL for either, and RESPST_ERR_MALFORMED_WQE is what comes of it."""
    return NAK_REMOTE_OPERATIONAL << 8 | LOC_QP_OP_ERR


def short_datagram(world, row, arg):
    """rxe_resp.c RESPST_ERR_LENGTH: class E with an SRQ, whose receive is used up."""
    return REM_INV_REQ_ERR


def error_wakes(world, row, arg):
    """rxe_cq.c: the solicited bit of the packet decides; where there is none, of a flushed receive, it counts as set."""
    status, opcode = arg >> 8, arg & 255
    return 1 if status == WR_FLUSH_ERR and opcode >= WC_RECV else 0


def late_receive(world, row, arg):
    """rxe_verbs.c: a program's receives go into the ring without a call, and nobody looks there again."""
    return 0
