"""The receive queue: taking receive WQEs and completing them."""

from nicemu._jit import jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.verbs import WcFlag, WcOpcode
from nicemu.nic.cq import post_cqe
from nicemu.nic.dma import check_sges
from nicemu.tables.rows import qp

WC_RECV, WC_RECV_IMM, WITH_IMM = int(WcOpcode.RECV), int(WcOpcode.RECV_RDMA_WITH_IMM), int(WcFlag.WITH_IMM)
LOCAL_WRITE = 1


@jit
def recv_address(q, index):
    """Host address of a receive WQE."""
    return q.rq_ring + (index & (q.rq_slots - 1)) * q.rq_stride


@jit
def recv_available(q):
    """A receive WQE is posted that nobody took."""
    return load64(q.doorbell_record + rings.DB_RECV) > q.rq_next


@jit
def take_recv(world, q_row):
    """Take the next receive WQE for a message: its bytes, or -1 if a key, PD, range or right is bad."""
    q = qp(world, q_row)
    q.recv_wqe = q.rq_next
    q.recv_taken = 1
    q.rq_next += 1
    at = recv_address(q, q.recv_wqe)
    count = load32(at + rings.RECV_NUM_SGE)
    if count * rings.SGE_BYTES > q.rq_stride - rings.RECV_HEADER_BYTES:
        return -1
    return check_sges(world, q_row, q.pd, at + rings.RECV_HEADER_BYTES, count, LOCAL_WRITE)


@jit
def complete_recv(world, q_row, index, status, opcode, length, imm, solicited):
    """CQE of a receive WQE. False: the CQ is overrun."""
    q = qp(world, q_row)
    flags = WITH_IMM if imm >= 0 else 0
    lengths = (length, max(imm, 0), flags, index)
    return post_cqe(world, q.recv_cq, load64(recv_address(q, index)), q.number, status, opcode, lengths, solicited)
