"""Responses of a responder: ACKs, NAKs, atomic results, with credits and coalescing (IBA AETH; Linux rxe_resp.c)."""

from nicemu._jit import jit
from nicemu.nic.port import transmit
from nicemu.nic.program_ring import recvs_posted
from nicemu.nic.qp_type import transport_of
from nicemu.tables import units
from nicemu.tables.packets import new_packet
from nicemu.tables.rows import control, nic, packet, qp
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth


@jit
def reply(world, q_row, opcode, psn, syndrome):
    """A response packet to the peer of this QP, not sent yet; 0 with a trap if the pool is empty."""
    q = qp(world, q_row)
    p = new_packet(world, q.nic)
    row = packet(world, p)
    row.transport = transport_of(q)
    row.opcode = opcode
    row.psn = psn
    row.syndrome = syndrome
    row.msn = q.msn
    row.dest_nic = q.dest_nic
    row.dest_qpn = q.dest_qpn
    row.source_qpn = q.number
    row.qp = q_row
    row.av = q.av
    return p


@jit
def send_reply(world, q_row, opcode, psn, syndrome):
    """Send a response without payload."""
    p = reply(world, q_row, opcode, psn, syndrome)
    if p != 0:
        transmit(world, p, control(world, 0).now)


@jit
def credit_count(code):
    """Receive WQEs that a credit code stands for (IBA AETH credit table): 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    if code < 2:
        return code
    return (2 if code % 2 == 0 else 3) << (code // 2 - 1)


@jit
def credit_syndrome(world, q_row):
    """ACK syndrome: the largest credit code that is not more than what is posted; unlimited with an SRQ or where the
    profile has no end-to-end credits."""
    q = qp(world, q_row)
    if nic(world, q.nic).credits == 0 or q.srq != 0:
        return bth.ACK_UNLIMITED
    free = recvs_posted(world, q_row) - q.rq_next + q.recv_taken
    code = 30
    while code > 0 and credit_count(code) > free:
        code -= 1
    return code


@jit
def acknowledge(world, q_row, psn):
    """Send an ACK: now, or where the profile coalesces ACKs, one for all that are due within that time."""
    q = qp(world, q_row)
    wait = nic(world, q.nic).ack_coalescing_ns
    if wait == 0:
        send_reply(world, q_row, bth.ACKNOWLEDGE, psn, credit_syndrome(world, q_row))
        return
    q.ack_psn = psn
    if q.ack_event == 0:
        q.ack_event = 1
        push(world, control(world, 0).now + wait, units.ACK, q_row, q.incarnation)


def send_ack(world, q_row, incarnation):
    """ACK: the newest PSN that is to be acknowledged."""
    q = qp(world, q_row)
    if q.incarnation == incarnation:
        q.ack_event = 0
        if q.resp_error == 0:
            send_reply(world, q_row, bth.ACKNOWLEDGE, q.ack_psn, credit_syndrome(world, q_row))
    return 0
