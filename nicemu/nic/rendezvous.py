"""Rendezvous offload: the device fetches the payload of a matched request by an RDMA READ on the same connection, and
then tells the sender with a FIN message (rdma-core, document on hardware tag matching).

The QP's send queue is the device's own: a ring of the driver's into which only the device writes, worked off by the
ordinary requester and completer. A READ in it carries, in fields a READ has no use for, what the FIN and the completion
need: ``imm`` the header's own 32 bits, ``compare_add`` its tag, ``swap`` the TAG row.
"""

from nicemu._jit import jit, load32, load64, store32, store64
from nicemu.abi import rings
from nicemu.abi.tag_matching import (
    RNDV_BYTES,
    RVH_LENGTH,
    RVH_RKEY,
    RVH_VA,
    TAG_FREED,
    TMH_APP_CTX,
    TMH_TAG,
    TmhOp,
)
from nicemu.abi.verbs import AsyncEvent, WcFlag, WcOpcode, WcStatus
from nicemu.nic.big_endian import load_big32, load_big64, store_big
from nicemu.nic.cq import post_cqe
from nicemu.nic.eq import post_async
from nicemu.nic.qp_type import RDMA_READ, SEND
from nicemu.nic.send_queue import INLINE, entry_of, kick, wqe_address
from nicemu.nic.tag_list import FREE, buffer_address
from nicemu.tables.packets import payload_address
from nicemu.tables.rows import nic, packet, qp, tag, tag_list

FIN, QP_FATAL, DATA_VALID = int(TmhOp.FIN), int(AsyncEvent.QP_FATAL), int(WcFlag.TM_DATA_VALID)
WC_TM_RECV, WR_FLUSH_ERR = int(WcOpcode.TM_RECV), int(WcStatus.WR_FLUSH_ERR)
WQES_EACH = 2
"""A READ and a FIN."""


@jit
def is_offloaded(q):
    """The device may use the QP's send queue, and its peer answers READs."""
    return q.rendezvous != 0 and q.max_rd_atomic > 0


@jit
def can_start(q):
    """The send queue has room for one rendezvous more."""
    return q.rndv_open < q.sq_slots // WQES_EACH


@jit
def next_wqe(world, q_row):
    """Host address of the next WQE of the device's own, zeroed; it is posted with this."""
    q = qp(world, q_row)
    at = wqe_address(q, q.rndv_produced)
    for word in range(rings.SEND_HEADER_BYTES // 8):
        store64(at + 8 * word, 0)
    q.rndv_produced += 1
    return at


@jit
def copy_sges(world, to, at, length):
    """The first ``length`` bytes of a tag's buffer as SGEs of a WQE: how many SGEs."""
    buffer = buffer_address(world, at)
    count = 0
    for i in range(load32(buffer + rings.RECV_NUM_SGE)):
        sge = buffer + rings.RECV_HEADER_BYTES + i * rings.SGE_BYTES
        size = min(load32(sge + rings.SGE_LENGTH), length)
        if size > 0:
            place = to + count * rings.SGE_BYTES
            store64(place, load64(sge))
            store32(place + rings.SGE_LENGTH, size)
            store32(place + rings.SGE_LKEY, load32(sge + rings.SGE_LKEY))
            count += 1
            length -= size
    return count


@jit
def start(world, q_row, p):
    """Post the READ of the request in packet ``p``."""
    q = qp(world, q_row)
    row = packet(world, p)
    head = payload_address(world, p)
    at = next_wqe(world, q_row)
    store64(at, row.wr_id)
    store32(at + rings.SEND_OPCODE, RDMA_READ)
    store32(at + rings.SEND_IMM, load_big32(head + TMH_APP_CTX))
    store64(at + rings.SEND_COMPARE_ADD, load_big64(head + TMH_TAG))
    store64(at + rings.SEND_SWAP, row.tag)
    store64(at + rings.SEND_REMOTE_ADDR, load_big64(head + RVH_VA))
    store32(at + rings.SEND_RKEY, load_big32(head + RVH_RKEY))
    count = copy_sges(world, at + rings.SEND_HEADER_BYTES, row.tag, load_big32(head + RVH_LENGTH))
    store32(at + rings.SEND_NUM_SGE, count)
    n = nic(world, q.nic)
    n.rendezvous += 1
    kick(world, q_row, n.wqe_fetch_ns)


@jit
def post_fin(world, q_row, read, length):
    """Post the FIN of the READ at ``read``: the request's own headers with another operation."""
    at = next_wqe(world, q_row)
    store32(at + rings.SEND_OPCODE, SEND)
    store32(at + rings.SEND_FLAGS, INLINE)
    store32(at + rings.SEND_INLINE_LENGTH, RNDV_BYTES)
    head = at + rings.SEND_HEADER_BYTES
    store_big(head, FIN << 24, 4)
    store_big(head + TMH_APP_CTX, load32(read + rings.SEND_IMM), 4)
    store_big(head + TMH_TAG, load64(read + rings.SEND_COMPARE_ADD), 8)
    store_big(head + RVH_VA, load64(read + rings.SEND_REMOTE_ADDR), 8)
    store_big(head + RVH_RKEY, load32(read + rings.SEND_RKEY), 4)
    store_big(head + RVH_LENGTH, length, 4)


@jit
def complete_read(world, q_row, index, at):
    """The payload is in the tag's buffer, or could not be read: the second completion. False: the CQ is overrun."""
    q = qp(world, q_row)
    e = entry_of(world, q, index)
    row = load64(at + rings.SEND_SWAP)
    tag(world, row).state = FREE
    counter = TAG_FREED | row - tag_list(world, q.srq).first
    flags, length = 0, 0
    if e.status == 0:
        flags, length = DATA_VALID, e.length
    lengths = (length, 0, flags, counter, 0)
    return post_cqe(world, q.recv_cq, load64(at), q.number, e.status, WC_TM_RECV, lengths, 0)


def rendezvous(world, q_row, index):
    """RENDEZVOUS: a WQE of the device's own is done, with the status of its entry. 0: the CQ is overrun.

    A FIN that could not be sent has no completion: the QP goes to ERR with QP_FATAL.
    """
    q = qp(world, q_row)
    status = entry_of(world, q, index).status
    at = wqe_address(q, index)
    if load32(at + rings.SEND_OPCODE) == SEND:
        q.rndv_open -= 1
        if status != 0 and status != WR_FLUSH_ERR:
            post_async(world, q.nic, QP_FATAL, q.number)
        return 1
    good = complete_read(world, q_row, index, at)
    if status == 0 and good:
        post_fin(world, q_row, at, entry_of(world, q, index).length)
    else:
        q.rndv_open -= 1
    return 1 if good else 0
