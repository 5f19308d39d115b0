"""Linux soft-RoCE (rxe): page faults are served where they happen, timers tick in jiffies, errors are told its way.

Imitates: rxe of Linux 7.3 on a kernel with 250 ticks a second (Debian's). Goes with the profile ``rxe``; what neither
    has is listed in docs/firmware.md.
Source: drivers/infiniband/sw/rxe, the files named at each hook; each habit tried on the device itself (docs/rxe.md).
Inferred: nothing.
"""

from nicemu.firmware import GO_ON, RC, STALL, TO_ERR, UD, qp

JIFFY_NS = 4_000_000
LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR, MW_BIND_ERR = 1, 2, 4, 5, 6
REM_INV_REQ_ERR, REM_ACCESS_ERR = 9, 10
RDMA_READ, FETCH_ADD = 4, 6
NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATIONAL = 0x62, 0x63
QP_FATAL, QP_REQ_ERR, COMM_EST = 1, 2, 4


def responder_fault(world, row, arg):
    """rxe_odp.c faults the page in on the spot: the QP's work waits, and nobody is told."""
    return STALL


def unreliable_fault(world, row, arg):
    """As for RC."""
    return 1


def response_fault(world, row, arg):
    """As for requests."""
    return 1


def ack_timeout(world, row, arg):
    """rxe_qp.c: ``nsecs_to_jiffies``, which rounds down, and at least one."""
    return max(arg // JIFFY_NS, 1) * JIFFY_NS


def rnr_wait(world, row, arg):
    """rxe_comp.c rnrnak_jiffies: ``usecs_to_jiffies``, which rounds up."""
    return -(-arg // JIFFY_NS) * JIFFY_NS


def async_event(world, row, arg):
    """No code of rxe raises QP_FATAL, QP_REQ_ERR, COMM_EST."""
    return 0 if arg in (QP_FATAL, QP_REQ_ERR, COMM_EST) else 1


def send_error(world, row, arg):
    """rxe_req.c: a datagram above the MTU is taken for sent (C10-93.1.1); whatever else the requester finds wrong takes
    the QP to ERR first, and the request is flushed with the others. rxe_comp.c finds a bad buffer of a READ or atomic,
    or what the peer has said, and the request tells it. A READ that may not be outstanding waits until it may. There is
    no SQE."""
    status, opcode, q = arg >> 8, arg & 255, qp(world, row)
    answered = q.type == RC and RDMA_READ <= opcode <= FETCH_ADD
    if status == LOC_LEN_ERR and q.type == UD:
        return 0
    if status == LOC_QP_OP_ERR and answered and q.max_rd_atomic == 0:
        return GO_ON
    if status <= LOC_PROT_ERR and answered:
        return LOC_PROT_ERR | TO_ERR
    if status <= MW_BIND_ERR:
        return WR_FLUSH_ERR | TO_ERR
    return status | TO_ERR


def receive_error(world, row, arg):
    """rxe_resp.c: of a bad or short receive copy_data says EINVAL, which is RESPST_ERR_MALFORMED_WQE; do_class_ac_error
    completes the receive of a request with what the request is told."""
    syndrome, status = arg >> 8, arg & 255
    if status == WR_FLUSH_ERR:
        return syndrome << 8 | (REM_ACCESS_ERR if syndrome == NAK_REMOTE_ACCESS else REM_INV_REQ_ERR)
    return NAK_REMOTE_OPERATIONAL << 8 | LOC_QP_OP_ERR


def short_receive(world, row, arg):
    """rxe_resp.c: check_length looks at datagrams only. Class E with an SRQ, whose receive is used up, else class D."""
    if qp(world, row).type != UD:
        return TO_ERR
    return REM_INV_REQ_ERR if arg else 0


def error_wakes(world, row, arg):
    """rxe_cq.c: the solicited bit of the packet decides, and there is none in what fails."""
    return 0


def late_receive(world, row, arg):
    """rxe_verbs.c: a program's receives go into the ring without a call."""
    return 0


def cq_overrun(world, row, arg):
    """rxe_cq.c: EBUSY, which only rxe_resp.c looks at (class G)."""
    return 0
