"""What an RDMA request may touch: rights of QP and region, rkey, PD, range (Linux rxe_resp.c check_rkey)."""

from nicemu._jit import jit
from nicemu.abi.verbs import Access
from nicemu.nic.arrive import EXCESS
from nicemu.nic.mkey import check_mkey, find_mkey
from nicemu.nic.verdict import ACCEPT, ACCESS_ERROR, INVALID
from nicemu.tables.rows import mkey, nic, qp
from nicemu.wire import opcode as bth
from nicemu.wire.opcode import is_atomic, is_send, is_write, starts

REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC = int(Access.REMOTE_WRITE), int(Access.REMOTE_READ), int(Access.REMOTE_ATOMIC)
FLUSH_GLOBAL, FLUSH_PERSISTENT = int(Access.FLUSH_GLOBAL), int(Access.FLUSH_PERSISTENT)
FLUSH_RANGE, FLUSH_MR = 0, 1


@jit
def required_access(row):
    """Remote rights a request needs (rxe check_qp_attr_access); 0: a FLUSH of no known placement."""
    opcode = row.opcode
    if opcode == bth.FLUSH:
        globally = FLUSH_GLOBAL if row.compare_add & 1 else 0
        return globally | (FLUSH_PERSISTENT if row.compare_add & 2 else 0)
    if is_write(opcode) or opcode == bth.ATOMIC_WRITE:
        return REMOTE_WRITE
    return REMOTE_READ if opcode == bth.READ_REQUEST else REMOTE_ATOMIC


@jit
def target_mkey(world, q_row, row, need):
    """Row of the memory key that an RDMA request names, 0 if it may not. A FLUSH of a whole region has no range."""
    q = qp(world, q_row)
    if row.opcode == bth.FLUSH and row.swap == FLUSH_MR:
        base = mkey(world, find_mkey(world, q.nic, row.rkey)).base
        return check_mkey(world, q_row, row.rkey, q.pd, base, 0, need)
    return check_mkey(world, q_row, row.rkey, q.pd, row.va, row.length, need)


@jit
def check_rkey(world, q_row, row):
    """Rights of QP and region, rkey, PD, range; atomics aligned to 8 (rxe check_rkey). Sets the target."""
    q = qp(world, q_row)
    opcode = row.opcode
    if is_send(opcode) or not starts(opcode):
        return ACCEPT
    if (is_atomic(opcode) or opcode == bth.ATOMIC_WRITE) and row.va & 7:
        return INVALID
    need = required_access(row)
    if need == 0 or (opcode == bth.FLUSH and row.swap > FLUSH_MR):
        return INVALID
    if q.access & need != need:
        return INVALID  # an operation that this queue does not support, not a protection error (rxe check_op_valid)
    if bth.is_non_posted(opcode) and (q.max_dest_rd_atomic == 0 or row.counted == EXCESS):
        return INVALID
    q.message_mkey = 0
    if row.length > 0 or opcode == bth.FLUSH:
        q.message_mkey = target_mkey(world, q_row, row, need)
        if q.message_mkey == 0:
            return ACCESS_ERROR
        q.message_key = row.rkey
    q.message_va = row.va
    if is_write(opcode):
        q.message_length = row.length
        q.keys_seen = nic(world, q.nic).key_changes
    return ACCEPT
