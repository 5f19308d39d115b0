"""Completion queues: CQEs into host rings, arming, solicited events, overrun (Linux rxe_cq.c)."""

from nicemu._jit import jit, load64, store32, store64
from nicemu.abi import rings
from nicemu.abi.rings import CQE_BYTES, EqeType
from nicemu.abi.verbs import AsyncEvent
from nicemu.nic.eq import post_async, post_eqe
from nicemu.tables.rows import control, cq, nic
from nicemu.tables.trace import Ev, trace

CQE, COMP, CQ_ERR = int(Ev.CQE), int(EqeType.COMP), int(AsyncEvent.CQ_ERR)
ARM_NEXT, ARM_SOLICITED = 1, 2


@jit
def post_cqe(world, row, wr_id, qpn, status, opcode, lengths, solicited):
    """Write a CQE. ``lengths``: (byte_len, imm_data, wc_flags, wqe counter, source QP).

    True if it went in; an overrun CQ takes nothing more.
    """
    q = cq(world, row)
    c = control(world, 0)
    if q.valid == 0 or q.overrun:
        return False
    if q.produced - load64(q.doorbell_record) >= q.slots:
        q.overrun = 1
        post_async(world, q.nic, CQ_ERR, q.number)
        return False
    at = q.ring + (q.produced & (q.slots - 1)) * CQE_BYTES
    store64(at + rings.CQE_WR_ID, wr_id)
    store32(at + rings.CQE_QP_NUM, qpn)
    store32(at + rings.CQE_SRC_QP, lengths[4])
    store32(at + rings.CQE_BYTE_LEN, lengths[0])
    store32(at + rings.CQE_IMM, lengths[1])
    store32(at + rings.CQE_STATUS, status)
    store32(at + rings.CQE_OPCODE, opcode)
    store32(at + rings.CQE_WC_FLAGS, lengths[2])
    store32(at + rings.CQE_VENDOR_ERR, 0)
    store64(at + rings.CQE_TIMESTAMP, c.now)
    store32(at + rings.CQE_WQE_COUNTER, lengths[3] & 0xFFFFFFFF)
    store32(at + rings.CQE_PKEY_INDEX, 0)
    store32(at + rings.CQE_OWNER, (q.produced // q.slots + 1) & 1)
    q.produced += 1
    nic(world, q.nic).cqes += 1
    trace(world, CQE, q.nic, q.number, qpn, status, opcode)
    if q.watch:
        c.cqe_hits += 1
    if q.armed == ARM_NEXT or (q.armed == ARM_SOLICITED and (solicited or status != 0)):
        q.armed = 0
        post_eqe(world, q.eqn, COMP, 0, (q.number, 0, 0, 0, 0, 0, 0))
    return True


def arm(world, row, kind):
    """CQ_ARM: one event for the next completion (1) or the next solicited or failed one (2)."""
    q = cq(world, row)
    if q.valid:
        q.armed = ARM_NEXT if q.armed == ARM_NEXT else kind
    return 0
