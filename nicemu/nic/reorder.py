"""Requests kept ahead of a gap (``hooks.KEEP``), in PSN order, until what is missing has come: then they are judged as
if they had come behind it. One NAK asks for each gap; when one is closed and another is behind it, for that at once.
"""

from nicemu._jit import cold, jit
from nicemu.nic.backup_ring import leave, queue_first
from nicemu.nic.check_psn import NAK_OUT
from nicemu.nic.dma import commit_later
from nicemu.nic.psn import psn_diff
from nicemu.nic.verdict import NAK_SEQUENCE
from nicemu.tables.packets import free_packet, new_packet
from nicemu.tables.rows import nic, packet, qp
from nicemu.tables.trace import Ev, trace
from nicemu.wire import opcode as bth

DROP_EVENT = int(Ev.DROP)
MOST_AHEAD, MOST_AHEAD_OF_ALL = 128, 8192
"""Requests kept, of a QP (a requester's window) and of all: the packets are everybody's."""


@cold
def keep_ahead(world, q_row, p):
    """Put request ``p`` in its place; a second copy of one, and what finds no room, is dropped."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    leave(n, row, True)
    before, at = 0, q.ahead_head
    for _ in range(MOST_AHEAD):
        if at == 0 or psn_diff(packet(world, at).psn, row.psn) >= 0:
            break
        before, at = at, packet(world, at).next
    copy = at != 0 and packet(world, at).psn == row.psn
    if copy or q.ahead_count >= MOST_AHEAD or n.requests_waiting >= MOST_AHEAD_OF_ALL:
        trace(world, DROP_EVENT, q.nic, row.opcode, row.psn, q.number, 0)
        free_packet(world, p)
        return
    row.next = at
    if before == 0:
        q.ahead_head = p
    else:
        packet(world, before).next = p
    q.ahead_count += 1
    n.requests_waiting += 1
    n.requests_kept += 1


@jit
def take_first(world, q):
    """The kept request with the lowest PSN, out of its place."""
    p = q.ahead_head
    q.ahead_head = packet(world, p).next
    q.ahead_count -= 1
    nic(world, q.nic).requests_waiting -= 1
    return p


@cold
def let_follow(world, q_row):
    """The kept request that is expected now is the next to be judged; what came another way meanwhile is dropped."""
    q = qp(world, q_row)
    for _ in range(MOST_AHEAD):
        if q.ahead_head == 0 or psn_diff(packet(world, q.ahead_head).psn, q.epsn) > 0:
            return
        p = take_first(world, q)
        if packet(world, p).psn == q.epsn:
            queue_first(world, q_row, p)
            return
        free_packet(world, p)


@cold
def ask_for_gap(world, q_row):
    """A gap is in front of what is kept, and nobody has said so: a sequence NAK."""
    q = qp(world, q_row)
    if q.nak_pending != 0 or q.resp_error:
        return
    p = new_packet(world, q.nic)
    if p == 0:
        return
    q.nak_pending = NAK_OUT
    row = packet(world, p)
    row.qp = q_row
    row.opcode = bth.SEND
    row.psn = q.epsn
    row.verdict = NAK_SEQUENCE
    nic(world, q.nic).translation_delay = 0
    commit_later(world, q_row, p)


@jit
def drop_kept(world, q):
    """RESET or ERR: nobody will ask for them."""
    while q.ahead_head != 0:
        free_packet(world, take_first(world, q))
