"""The PSN check of the responder (Linux rxe check_psn). What comes ahead of a gap is firmware's to decide about."""

from nicemu._jit import cold, jit
from nicemu.nic import hooks
from nicemu.nic.hooks import ask
from nicemu.nic.psn import psn_diff
from nicemu.nic.qp_type import UC, UD
from nicemu.nic.responder_resource import resumes_cut_read
from nicemu.nic.verdict import ACCEPT, AHEAD, DROP, NAK_SEQUENCE, REACK, REPLAY, SAVED
from nicemu.tables.rows import nic, qp
from nicemu.wire import opcode as bth
from nicemu.wire.opcode import starts

NAK_OUT, RNR_OUT = 1, 2
"""``nak_pending``: what the requester was told about the expected PSN, or would have been, had firmware not kept
silent."""


@jit
def check_psn(world, q_row, row):
    """Expected: accept. Behind: a duplicate. Ahead: by default one NAK for the gap, then silence (rxe check_psn)."""
    q = qp(world, q_row)
    if q.type == UD:
        return ACCEPT
    if q.type == UC:
        return check_unreliable_psn(world, q, row)
    gap = psn_diff(row.psn, q.epsn)
    if gap == 0:
        q.nak_pending = 0
        return ACCEPT
    n = nic(world, q.nic)
    if gap > 0:
        n.out_of_sequence += 1
        return ahead(world, q_row, gap)
    n.duplicates += 1
    if row.opcode == bth.READ_REQUEST:
        return ACCEPT if resumes_cut_read(world, q, row) else REPLAY
    return SAVED if bth.is_non_posted(row.opcode) else REACK


@cold
def ahead(world, q_row, gap):
    """A request with ``gap`` packets missing before it: dropped, with or without a NAK, or kept. One NAK for a gap."""
    q = qp(world, q_row)
    slot = hooks.AFTER_RNR if q.nak_pending == RNR_OUT else hooks.PSN_AHEAD
    answer = ask(world, q.nic, slot, q_row, gap)
    if answer == hooks.KEEP:
        return AHEAD
    if answer == hooks.DROP or q.nak_pending == NAK_OUT:
        return DROP
    q.nak_pending = NAK_OUT
    return NAK_SEQUENCE


@jit
def check_unreliable_psn(world, q, row):
    """UC: a gap discards the message in progress; the next FIRST or ONLY starts anew (rxe check_psn)."""
    if starts(row.opcode):
        q.epsn = row.psn
        q.drop_message = 0
        q.message_opcode = 0
        q.message_offset = 0
        return ACCEPT
    if row.psn != q.epsn:
        nic(world, q.nic).out_of_sequence += 1
        return DROP
    return DROP if q.drop_message else ACCEPT
