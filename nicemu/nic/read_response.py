"""READ_RESPONSE: the responses of a READ, one packet an event (Linux rxe_resp.c read_reply)."""

from nicemu._jit import call, jit
from nicemu.abi.verbs import Access, AsyncEvent
from nicemu.nic import hooks
from nicemu.nic.check_psn import RNR_OUT
from nicemu.nic.congestion import next_turn
from nicemu.nic.dma import translate_range
from nicemu.nic.hooks import STALL, ask
from nicemu.nic.mkey import check_mkey
from nicemu.nic.page_fault import READ_WAITS, RESPONDER_RDMA, failed_before, raise_fault
from nicemu.nic.port import transmit
from nicemu.nic.psn import psn_add, psn_diff
from nicemu.nic.reply import credit_syndrome, reply, send_reply
from nicemu.tables import units
from nicemu.tables.packets import free_packet
from nicemu.tables.rows import control, nic, packet, qp, resource, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth

REMOTE_READ, QP_ACCESS_ERR = int(Access.REMOTE_READ), int(AsyncEvent.QP_ACCESS_ERR)
NAK, RNR_NAK = int(Ev.NAK), int(Ev.RNR_NAK)


@jit
def read_opcode(psn, r):
    """FIRST, MIDDLE, LAST or ONLY of a READ's responses."""
    if r.first_psn == r.last_psn:
        return bth.READ_RESP_ONLY
    if psn == r.first_psn:
        return bth.READ_RESP_FIRST
    return bth.READ_RESP_LAST if psn == r.last_psn else bth.READ_RESP_MIDDLE


@jit
def read_refused(world, q_row, psn):
    """A READ cannot go on: its memory is not there or no longer registered."""
    q = qp(world, q_row)
    q.read_active = 0
    q.resp_error = 1
    trace(world, NAK, q.nic, q.number, psn, bth.NAK_REMOTE_ACCESS, 0)
    send_reply(world, q_row, bth.ACKNOWLEDGE, psn, bth.NAK_REMOTE_ACCESS)
    call(vector(world, units.QP_ERROR).address, world, q_row, QP_ACCESS_ERR)


@jit
def read_faulted(world, q_row, psn):
    """A page of a READ is missing: RNR NAK at this response (or an error), take back what follows, end the READ; or
    wait."""
    q = qp(world, q_row)
    r = resource(world, q.read_active)
    if failed_before(world, q_row, RESPONDER_RDMA):
        read_refused(world, q_row, psn)
        return
    done = psn_diff(psn, r.first_psn) * q.mtu
    raise_fault(world, q_row, RESPONDER_RDMA, 0, done, r.length - done)
    code = ask(world, q.nic, hooks.RESPONDER_FAULT, q_row, q.min_rnr_timer)
    if code == STALL:
        q.recv_suspended = READ_WAITS
        return
    q.read_active = 0
    if code >= 0:
        nic(world, q.nic).rnr_naks_sent += 1
        trace(world, RNR_NAK, q.nic, q.number, psn, code, 0)
        send_reply(world, q_row, bth.ACKNOWLEDGE, psn, bth.RNR_NAK | code)
    if psn_add(r.last_psn, 1) == q.epsn:
        q.epsn = psn
        q.nak_pending = RNR_OUT
        if psn == r.first_psn:
            r.kind = 0
        else:
            r.last_psn = psn_add(psn, -1)
    call(vector(world, units.RESPONDER).address, world, q_row, 0)


@jit
def gather(world, q_row, p, r, done):
    """Translate what response ``p`` carries, ``done`` bytes into the READ. False: refused or faulted, and answered."""
    q = qp(world, q_row)
    row = packet(world, p)
    if r.length > 0 and check_mkey(world, q_row, r.key, q.pd, r.va, r.length, REMOTE_READ) == 0:
        psn = row.psn
        free_packet(world, p)
        read_refused(world, q_row, psn)
        return False
    if row.payload > 0 and translate_range(world, p, r.mkey, r.va + done, row.payload, False) != 0:
        psn = row.psn
        free_packet(world, p)
        read_faulted(world, q_row, psn)
        return False
    return True


def read_response(world, q_row, incarnation):
    """READ_RESPONSE: send one response packet of the active READ, then come back for the next."""
    q = qp(world, q_row)
    if q.incarnation != incarnation or q.read_active == 0:
        return 0
    r = resource(world, q.read_active)
    n = nic(world, q.nic)
    psn = r.next_psn
    done = psn_diff(psn, r.first_psn) * q.mtu
    p = reply(world, q_row, read_opcode(psn, r), psn, credit_syndrome(world, q_row))
    if p == 0:
        return 0
    payload = min(r.length - done, q.mtu)
    packet(world, p).payload = payload
    n.translation_delay = 0
    if not gather(world, q_row, p, r, done):
        return 0
    now = control(world, 0).now
    transmit(world, p, max(now + n.pcie_latency_ns + n.translation_delay, n.dma_last))
    pause = next_turn(world, q_row, payload)
    if q.cc_kbps != 0:
        pause = max(pause, q.paced_until - now)
    r.next_psn = psn_add(psn, 1)
    if psn == r.last_psn:
        q.msn = psn_add(q.msn, 1)
        q.read_active = 0
        call(vector(world, units.RESPONDER).address, world, q_row, 0)
        return 0
    push(world, now + pause, units.READ_RESPONSE, q_row, incarnation)
    return 0
