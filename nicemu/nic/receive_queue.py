"""Receive queues, own and shared: taking receive WQEs and completing them (Linux rxe_resp.c check_resource, rxe_srq.c).

A WQE of an SRQ is copied when it is taken, so its slot is free at once; the device says so in the SRQ's doorbell
record.
"""

from nicemu._jit import call, copy_bytes, jit, load32, load64, store64
from nicemu.abi import rings
from nicemu.abi.tag_matching import MAX_TAG_SGES
from nicemu.abi.verbs import AsyncEvent, WcFlag, WcOpcode
from nicemu.nic.cq import post_cqe
from nicemu.nic.datagram import GRH_BYTES
from nicemu.nic.dma import check_sges
from nicemu.nic.eq import post_async
from nicemu.nic.program_ring import RECV_SLOT, SRQ_SLOT, SRQ_TAKEN, move, recvs_posted, srq_posted
from nicemu.nic.qp_type import UD
from nicemu.nic.tag_list import buffer_address
from nicemu.tables import units
from nicemu.tables.records import SRQ_WQE_BYTES
from nicemu.tables.rows import packet, qp, srq, srq_wqe_base, vector
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

WC_RECV, WC_RECV_IMM = int(WcOpcode.RECV), int(WcOpcode.RECV_RDMA_WITH_IMM)
GRH, WITH_IMM, WITH_INV = int(WcFlag.GRH), int(WcFlag.WITH_IMM), int(WcFlag.WITH_INV)
SRQ_ERR, SRQ_LIMIT_REACHED = int(AsyncEvent.SRQ_ERR), int(AsyncEvent.SRQ_LIMIT_REACHED)
LOCAL_WRITE = 1
RECV_TAKEN = int(Ev.RECV_TAKEN)


@jit
def slot_address(q, index):
    """Host address of a slot of the QP's own receive ring."""
    return q.rq_ring + (index & (q.rq_slots - 1)) * q.rq_stride


@jit
def recv_address(world, q_row):
    """Host address of the receive WQE that the QP has taken; a tag's buffer has the same form."""
    q = qp(world, q_row)
    if q.tag:
        return buffer_address(world, q.tag)
    if q.srq:
        return srq_wqe_base(world) + q_row * SRQ_WQE_BYTES
    return slot_address(q, q.recv_wqe)


@jit
def recv_room(world, q_row):
    """SGEs that fit a receive WQE."""
    q = qp(world, q_row)
    if q.tag:
        return MAX_TAG_SGES
    stride = srq(world, q.srq).stride if q.srq else q.rq_stride
    return (stride - rings.RECV_HEADER_BYTES) // rings.SGE_BYTES


@jit
def recv_count(world, q_row):
    """SGEs of the receive WQE taken; the ring is the program's memory, so never more than fit."""
    return min(load32(recv_address(world, q_row) + rings.RECV_NUM_SGE), recv_room(world, q_row))


@jit
def srq_available(world, row):
    """WQEs of an SRQ that nobody took. A producer counter that cannot be is SRQ_ERR, once."""
    s = srq(world, row)
    if s.error:
        return 0
    count = srq_posted(world, row) - s.next
    if count > s.slots:
        s.error = 1
        post_async(world, s.nic, SRQ_ERR, s.number)
        return 0
    return max(count, 0)


@jit
def recv_available(world, q_row):
    """A receive WQE is posted that nobody took."""
    q = qp(world, q_row)
    if q.srq:
        return srq_available(world, q.srq) > 0
    return q.rq_slots > 0 and recvs_posted(world, q_row) > q.rq_next


@jit
def take_from_srq(world, q_row):
    """Copy the next WQE of the SRQ and free its slot; below the limit SRQ_LIMIT_REACHED is raised, once an arming."""
    q = qp(world, q_row)
    s = srq(world, q.srq)
    if s.ring_mkey:
        move(world, q.srq, SRQ_SLOT, s.next)
    at = s.ring + (s.next & (s.slots - 1)) * s.stride
    copy_bytes(srq_wqe_base(world) + q_row * SRQ_WQE_BYTES, at, min(s.stride, SRQ_WQE_BYTES))
    q.recv_wqe = s.next
    s.next += 1
    store64(s.doorbell_record + rings.DB_SRQ_CONSUMER, s.next)
    if s.record_mkey:
        move(world, q.srq, SRQ_TAKEN, 0)
    if s.limit and srq_available(world, q.srq) < s.limit:
        s.limit = 0
        post_async(world, s.nic, SRQ_LIMIT_REACHED, s.number)


@jit
def take_recv(world, q_row):
    """Take the next receive WQE for a message: its bytes, or -1 if a key, PD, range or right is bad."""
    q = qp(world, q_row)
    q.tagging = 0
    q.tag = 0
    if q.srq:
        take_from_srq(world, q_row)
    else:
        q.recv_wqe = q.rq_next
        q.rq_next += 1
        if q.ring_mkey:
            move(world, q_row, RECV_SLOT, q.recv_wqe)
    q.recv_taken = 1
    at = recv_address(world, q_row)
    q.recv_wr_id = load64(at)
    count = load32(at + rings.RECV_NUM_SGE)
    room = -1
    if count <= recv_room(world, q_row):
        room = check_sges(world, q_row, q.pd, at + rings.RECV_HEADER_BYTES, count, LOCAL_WRITE)
    trace(world, RECV_TAKEN, q.nic, q.number, q.recv_wqe, srq(world, q.srq).number, room)
    return room


@jit
def complete_recv(world, q_row, p):
    """CQE of the receive WQE that packet ``p`` ends. False: the CQ is overrun."""
    row = packet(world, p)
    q = qp(world, q_row)
    flags = 0
    imm = 0
    length = row.result
    if bth.with_imm(row.opcode):
        flags = WITH_IMM
        imm = row.imm
    elif row.opcode == bth.LAST_INV or row.opcode == bth.ONLY_INV:
        flags = WITH_INV
        imm = row.imm
    if q.type == UD:
        flags |= GRH
        length += GRH_BYTES
    opcode = WC_RECV if bth.is_send(row.opcode) else WC_RECV_IMM
    source = row.source_qpn if q.type == UD else 0
    lengths = (length, imm, flags, row.entry, source)
    return post_cqe(world, row.cq, row.wr_id, q.number, 0, opcode, lengths, row.solicited)


@jit
def fail_recv(world, q_row, status):
    """The receive WQE taken, if there is one, completes with ``status``."""
    q = qp(world, q_row)
    if q.recv_taken:
        q.recv_taken = 0
        if q.tagging:
            call(vector(world, units.TAG_FAILED).address, world, q_row, status)
            return
        post_cqe(world, q.recv_cq, q.recv_wr_id, q.number, status, WC_RECV, (0, 0, 0, q.recv_wqe, 0), 0)


@jit
def flush_slot(world, q_row, index, status):
    """The receive WQE in a slot of the QP's own ring completes with ``status``."""
    q = qp(world, q_row)
    if q.ring_mkey:
        move(world, q_row, RECV_SLOT, index)
    wr_id = load64(slot_address(q, index))
    post_cqe(world, q.recv_cq, wr_id, q.number, status, WC_RECV, (0, 0, 0, index, 0), 0)


def recv_tells(world, q_row, status):
    """RECV_TELLS: the receive at hand, taken or the next one, completes with ``status`` of firmware's choice."""
    if qp(world, q_row).recv_taken == 0:
        take_recv(world, q_row)
    fail_recv(world, q_row, status)
    return 0
