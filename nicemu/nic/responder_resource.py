"""Responder resources: the READs, atomics, FLUSHes and ATOMIC WRITEs remembered for a replay (rxe resp_res)."""

from nicemu._jit import cold, jit
from nicemu.abi.verbs import Access
from nicemu.nic.mkey import check_mkey
from nicemu.nic.psn import in_range, packet_count, psn_add, psn_diff
from nicemu.tables.rows import nic, qp, resource
from nicemu.wire import opcode as bth

READ, ANSWERED = 1, 2
"""Kinds: a READ is executed again when asked again; of all others the answer is kept."""
REMOTE_READ = int(Access.REMOTE_READ)


@jit
def find_resource(world, q, psn, kind):
    """The remembered request that covers ``psn``, 0 if none."""
    for i in range(nic(world, q.nic).resources):
        r = resource(world, q.resource_base + i)
        if r.kind == kind and psn_diff(psn, r.first_psn) >= 0 and psn_diff(psn, r.last_psn) <= 0:
            return q.resource_base + i
    return 0


@cold
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


@cold
def open_resource(world, q, row):
    """Remember an accepted request; the answer is how many PSNs it takes."""
    is_read = row.opcode == bth.READ_REQUEST
    count = packet_count(row.length, q.mtu) if is_read else 1
    row.entry = q.resource_base + q.resource_head % nic(world, q.nic).resources
    q.resource_head += 1
    r = resource(world, row.entry)
    r.kind = READ if is_read else ANSWERED
    r.opcode = row.opcode
    r.first_psn = row.psn
    r.last_psn = psn_add(row.psn, count - 1)
    r.va = row.va
    r.mkey = q.message_mkey
    r.key = row.rkey
    r.length = row.length
    r.done = 0
    return count


@cold
def replay(world, q_row, row):
    """A duplicate READ that is the rest of a remembered one, and of its bytes, is executed again, reading memory now
    (rxe duplicate_request). Its resource; 0: drop, -1: the memory is not to be had any more."""
    q = qp(world, q_row)
    found = find_resource(world, q, row.psn, READ)
    if found == 0:
        return 0
    r = resource(world, found)
    last = psn_add(row.psn, packet_count(row.length, q.mtu) - 1)
    if last != r.last_psn or not in_range(row.va, row.length, r.va, r.length) or q.access & REMOTE_READ == 0:
        return 0
    target = 0
    if row.length > 0:
        target = check_mkey(world, q_row, row.rkey, q.pd, row.va, row.length, REMOTE_READ)
        if target == 0:
            return -1
    r.first_psn = row.psn
    r.va = row.va
    r.length = row.length
    r.mkey = target
    r.key = row.rkey
    return found


@cold
def saved(world, q, row):
    """The remembered answer to a duplicate atomic, FLUSH or ATOMIC WRITE, 0 if nobody remembers."""
    found = find_resource(world, q, row.psn, ANSWERED)
    return found if found and resource(world, found).opcode == row.opcode else 0
