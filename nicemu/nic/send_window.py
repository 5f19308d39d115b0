"""What holds a send WQE back: READs and atomics outstanding, the window, credits, a fence (Linux rxe_req.c)."""

from nicemu._jit import jit
from nicemu.nic.psn import psn_add, psn_ahead, psn_diff
from nicemu.nic.qp_type import is_non_posted, takes_receive
from nicemu.nic.send_queue import FENCE, entry_of
from nicemu.tables.trace import Ev, Held, trace

WINDOW = 128
"""Request packets on their way that are not acknowledged yet (rxe's cap)."""
UNLIMITED = -1
SQ_HELD = int(Ev.SQ_HELD)
BY_READS, BY_WINDOW, BY_CREDITS, BY_FENCE = int(Held.READS), int(Held.WINDOW), int(Held.CREDITS), int(Held.FENCE)


@jit
def reads_before(world, q, index):
    """A READ, atomic or other request with a response before WQE ``index`` that is not done yet."""
    for i in range(q.sq_una, index):
        e = entry_of(world, q, i)
        if is_non_posted(e.opcode) and e.done == 0:
            return True
    return False


@jit
def fenced(world, q, e):
    """A fence holds the WQE at ``sq_next`` back until the READs and atomics before it are done."""
    return e.flags & FENCE != 0 and reads_before(world, q, q.sq_next)


@jit
def has_credit(q, e):
    """End-to-end credits allow the message, or nothing is outstanding: then one packet may go and ask (IBA). Credits
    that went down in the middle of a message do not hold it before a packet has asked: nobody would answer."""
    if q.lsn == UNLIMITED or not takes_receive(e.opcode) or psn_diff(e.ssn, q.lsn) <= 0:
        return True
    return q.una_psn == psn_add(e.first_psn, q.sq_offset) or (q.sq_offset > 0 and e.asked == 0)


@jit
def held(world, q):
    """Why the WQE at ``sq_next`` may not start or go on, a :class:`Held`; 0: it may."""
    e = entry_of(world, q, q.sq_next)
    if is_non_posted(e.opcode):
        if e.counted == 0 and q.rd_atomic >= q.max_rd_atomic:
            return BY_READS
        if psn_ahead(e.last_psn, q.una_psn) >= 1 << 23:
            return BY_WINDOW
    elif psn_ahead(psn_add(e.first_psn, q.sq_offset), q.una_psn) >= WINDOW:
        return BY_WINDOW
    elif not has_credit(q, e):
        return BY_CREDITS
    return BY_FENCE if q.sq_offset == 0 and e.counted == 0 and fenced(world, q, e) else 0


@jit
def may_send(world, q):
    """The WQE at ``sq_next`` may start or go on."""
    reason = held(world, q)
    if reason != 0:
        trace(world, SQ_HELD, q.nic, q.number, q.sq_next, reason, 0)
    return reason == 0
