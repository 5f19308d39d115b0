"""Completer: ACKs, NAKs, RNR NAKs, READ responses and atomic ACKs at the requester (Linux rxe_comp.c)."""

from nicemu._jit import call, cold, jit, store64
from nicemu.abi import rings
from nicemu.abi.verbs import WcStatus
from nicemu.nic import dma, hooks
from nicemu.nic.congestion import has_own, set_rate
from nicemu.nic.dma import commit_later, move, translate_sges
from nicemu.nic.hooks import BY_GAP, BY_NAK, BY_RNR, BY_TIMEOUT, ONLY, ask, ask_ns
from nicemu.nic.page_fault import HOLDS, REQUESTER_READ, fail_entry, raise_fault
from nicemu.nic.psn import psn_add, psn_diff
from nicemu.nic.qp_type import RDMA_READ, is_non_posted, returns_data
from nicemu.nic.reply import credit_count
from nicemu.nic.send_queue import (
    LOC_PROT_ERR,
    RTS,
    SQD,
    await_timer,
    entry_of,
    go_back,
    jump,
    rewind,
    skip_acknowledged,
    start_timer,
    stop_timer,
    wqe_address,
)
from nicemu.tables import units
from nicemu.tables.packets import free_packet, payload_address
from nicemu.tables.rows import control, nic, packet, qp, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth

BAD_RESP_ERR, REM_INV_REQ_ERR = int(WcStatus.BAD_RESP_ERR), int(WcStatus.REM_INV_REQ_ERR)
REM_ACCESS_ERR, REM_OP_ERR = int(WcStatus.REM_ACCESS_ERR), int(WcStatus.REM_OP_ERR)
RETRY_EXC_ERR, RNR_RETRY_EXC_ERR = int(WcStatus.RETRY_EXC_ERR), int(WcStatus.RNR_RETRY_EXC_ERR)
TIMEOUT, RNR_WAIT, RNR_OVER = int(Ev.TIMEOUT), int(Ev.RNR_WAIT), int(Ev.RNR_OVER)
INFINITE = 7
IMPLIED, NAKED = 1, 2
"""Bits of ``rewound``: went back since the last progress for a missing response, for a sequence NAK."""
RNR_UNIT_NS = 10_000
MOST_HELD = 512
"""Responses of a QP that wait for a page."""


@jit
def rnr_timer_ns(code):
    """RNR timer of a 5-bit code, ns (Linux rxe rnrnak_usec): 0 is 655.36 ms, then 0.01 ms growing by half octaves."""
    if code == 0:
        return 65536 * RNR_UNIT_NS
    if code < 4:
        return code * RNR_UNIT_NS
    octave = 1 << (code // 2 - 1)
    return (octave * 2 if code % 2 == 0 else octave * 3) * RNR_UNIT_NS


@jit
def index_of(world, q, psn):
    """The WQE that ``psn`` belongs to, -1 if none is outstanding there."""
    for index in range(q.sq_una, q.sq_fetched):
        e = entry_of(world, q, index)
        if psn_diff(psn, e.first_psn) < 0:
            return -1
        if psn_diff(psn, e.last_psn) <= 0:
            return index
    return -1


@jit
def acknowledge(world, q_row, psn):
    """Everything up to ``psn`` is acknowledged. A READ, atomic or FLUSH in it without its response is a gap: False."""
    q = qp(world, q_row)
    if psn_diff(psn, q.una_psn) < 0 or psn_diff(psn, q.sent_psn) >= 0:
        return True
    for index in range(q.sq_una, q.sq_fetched):
        e = entry_of(world, q, index)
        if psn_diff(e.first_psn, psn) > 0:
            break
        expected = psn_add(e.first_psn, e.received)
        if is_non_posted(e.opcode) and psn_diff(expected, min_psn(psn, e.last_psn)) <= 0:
            progress(world, q_row, expected)
            return False
    progress(world, q_row, psn_add(psn, 1))
    return True


@jit
def min_psn(a, b):
    """The earlier of two PSNs."""
    return a if psn_diff(a, b) < 0 else b


@jit
def progress(world, q_row, una):
    """The oldest unacknowledged PSN moved: reload both retry counters (rxe_comp.c)."""
    q = qp(world, q_row)
    fresh = psn_diff(una, q.una_psn)
    if fresh > 0:
        q.una_psn = una
        q.rewound = 0
        q.retries = q.retry_cnt
        q.rnr_retries = q.rnr_retry
        if has_own(world, q.nic, hooks.CC_ACK):
            set_rate(world, q_row, ask(world, q.nic, hooks.CC_ACK, q_row, fresh))
        start_timer(world, q_row)
        if q.jumps and psn_diff(psn_of_next(world, q), una) < 0:
            jump(q)
        if psn_diff(psn_of_next(world, q), una) < 0:
            skip_acknowledged(world, q)


@jit
def psn_of_next(world, q):
    """PSN of the next packet the requester would send."""
    if q.sq_next >= q.sq_fetched:
        return q.next_psn
    return psn_add(entry_of(world, q, q.sq_next).first_psn, q.sq_offset)


@cold
def fail_oldest(world, q_row, psn, status):
    """The WQE of ``psn`` completes with ``status``; the QP goes to ERR when its turn comes."""
    q = qp(world, q_row)
    index = index_of(world, q, psn)
    if index < 0:
        index = q.sq_una
    fail_entry(world, q_row, index, status)


@cold
def retry(world, q_row, reason, psn):
    """Send ``psn`` again at the cost of one retry, or fail with RETRY_EXC_ERR."""
    q = qp(world, q_row)
    infinite = q.retry_cnt == INFINITE and nic(world, q.nic).retry_7_infinite != 0
    if not infinite:
        if q.retries == 0:
            fail_oldest(world, q_row, q.una_psn, RETRY_EXC_ERR)
            return
        q.retries -= 1
    rewind(world, q_row, reason, psn)
    start_timer(world, q_row)


@cold
def implied_nak(world, q_row):
    """A response is missing before this one: ask again from there, once for all behind the gap (rxe_comp.c)."""
    q = qp(world, q_row)
    if q.rewound & IMPLIED or q.read_suspended:
        return
    nic(world, q.nic).reads_rewound += 1
    retry(world, q_row, BY_GAP, q.una_psn)
    q.rewound |= IMPLIED


@cold
def sequence_nak(world, q_row, psn):
    """Go back to ``psn``. A responder says so once for a gap: the same NAK again, without progress or a timeout since,
    is a copy and costs nothing (rxe_comp.c started_retry)."""
    q = qp(world, q_row)
    if q.rewound & NAKED:
        return
    retry(world, q_row, BY_NAK, psn)
    q.rewound |= NAKED


@cold
def rnr_nak(world, q_row, psn, code):
    """Wait the RNR timer, then go back to ``psn``; 7 retries are infinite (rxe_comp.c). While it waits nothing is sent,
    so another one is a copy. Firmware may let the rest of the queue go on and send only ``psn`` after the wait."""
    q = qp(world, q_row)
    if control(world, 0).now < q.rnr_until:
        return
    if q.rnr_retry != INFINITE:
        if q.rnr_retries == 0:
            fail_oldest(world, q_row, psn, RNR_RETRY_EXC_ERR)
            return
        q.rnr_retries -= 1
    if ask(world, q.nic, hooks.RETRANSMIT, q_row, BY_RNR << 24 | psn) == ONLY:
        q.rnr_alone, q.rnr_psn = 1, psn
    else:
        go_back(world, q_row, psn, False)
    if nic(world, q.nic).ack_timer_in_rnr == 0:
        stop_timer(world, q_row)
    now = control(world, 0).now
    q.rnr_until = now + ask_ns(world, q.nic, hooks.RNR_WAIT, q_row, rnr_timer_ns(code))
    trace(world, RNR_WAIT, q.nic, q.number, psn, q.rnr_until - now, 0)
    push(world, q.rnr_until, units.RNR_TIMER, q_row, q.incarnation)


@jit
def take_credits(q, row):
    """Credits of an AETH: the last message number that may be sent (IBA end-to-end flow control)."""
    code = row.syndrome & 31
    q.lsn = -1 if code == 31 else psn_add(row.msn, credit_count(code))


@jit
def ack_or_nak(world, q_row, p):
    """An ACKNOWLEDGE packet, by its AETH syndrome."""
    row = packet(world, p)
    q = qp(world, q_row)
    syndrome = row.syndrome
    if syndrome < bth.RNR_NAK:
        take_credits(q, row)
        if not acknowledge(world, q_row, row.psn):
            implied_nak(world, q_row)
        return
    if psn_diff(row.psn, q.una_psn) < 0 or psn_diff(row.psn, q.sent_psn) >= 0:
        return
    if not acknowledge(world, q_row, psn_add(row.psn, -1)):
        implied_nak(world, q_row)
        return
    if syndrome < bth.NAK_SEQUENCE:
        rnr_nak(world, q_row, row.psn, syndrome & 31)
    elif syndrome == bth.NAK_SEQUENCE:
        sequence_nak(world, q_row, row.psn)
    elif syndrome == bth.NAK_REMOTE_ACCESS:
        fail_oldest(world, q_row, row.psn, REM_ACCESS_ERR)
    elif syndrome == bth.NAK_REMOTE_OPERATIONAL:
        fail_oldest(world, q_row, row.psn, REM_OP_ERR)
    else:
        fail_oldest(world, q_row, row.psn, REM_INV_REQ_ERR)


@jit
def fits(q, e, row):
    """A response is of the kind and size that its request asked for; sets how many bytes it brings."""
    is_atomic = row.opcode == bth.ATOMIC_ACK
    if is_atomic != (returns_data(e.opcode) and e.opcode != RDMA_READ):
        return False
    if is_atomic:
        row.payload = 8
        return True
    if e.opcode != RDMA_READ:
        return row.opcode == bth.READ_RESP_ONLY and row.payload == 0
    return row.payload == min(e.length - psn_diff(row.psn, e.first_psn) * q.mtu, q.mtu)


@jit
def scatter(world, q_row, p, e):
    """Translate where a response's bytes go. A missing page suspends the READ; anything else fails the WQE."""
    row = packet(world, p)
    q = qp(world, q_row)
    row.kind = q.nic
    done = psn_diff(row.psn, e.first_psn) * q.mtu
    sges = wqe_address(q, row.entry) + rings.SEND_HEADER_BYTES
    verdict = translate_sges(world, p, q.pd, sges, e.num_sge, done, row.payload, True)
    if verdict == dma.FAULT:
        q.read_suspended = HOLDS if ask(world, q.nic, hooks.RESPONSE_FAULT, q_row, row.payload) else 1
        raise_fault(world, q_row, REQUESTER_READ, row.entry, done, e.length)
        stop_timer(world, q_row)
        return False
    if verdict != dma.OK:
        fail_entry(world, q_row, row.entry, LOC_PROT_ERR)
    return verdict == dma.OK


@jit
def accept_response(world, q_row, p):
    """Check a READ response or atomic ACK and translate its scatter list. True: its data moves at COMMIT."""
    row = packet(world, p)
    q = qp(world, q_row)
    if q.read_suspended or psn_diff(row.psn, q.una_psn) < 0 or psn_diff(row.psn, q.sent_psn) >= 0:
        return False
    if not acknowledge(world, q_row, psn_add(row.psn, -1)):
        implied_nak(world, q_row)
        return False
    index = index_of(world, q, row.psn)
    if index < 0:
        return False
    e = entry_of(world, q, index)
    if not is_non_posted(e.opcode):
        return False
    row.qp = q_row
    row.entry = index
    if not fits(q, e, row):
        fail_entry(world, q_row, index, BAD_RESP_ERR)
        return False
    if not scatter(world, q_row, p, e):
        return False
    e.received += 1
    row.last = 1 if row.psn == e.last_psn else 0
    if row.last:
        q.rd_atomic -= 1
    progress(world, q_row, psn_add(row.psn, 1))
    return True


@cold
def wait(world, q, p):
    """Response ``p`` waits with those before it for a page; one too many is dropped and will be asked for again."""
    if q.cx_waiting >= MOST_HELD:
        free_packet(world, p)
        return
    q.cx_waiting += 1
    packet(world, p).next = 0
    if q.cx_head == 0:
        q.cx_head = p
    else:
        packet(world, q.cx_tail).next = p
    q.cx_tail = p


def completer(world, q_row, p):
    """COMPLETER: a response packet arrived for this QP."""
    row = packet(world, p)
    q = qp(world, q_row)
    if q.state != RTS and q.state != SQD:
        free_packet(world, p)
        return 0
    if q.read_suspended == HOLDS:
        wait(world, q, p)
        return 0
    if row.opcode == bth.ACKNOWLEDGE:
        ack_or_nak(world, q_row, p)
        free_packet(world, p)
    elif accept_response(world, q_row, p):
        commit_later(world, q_row, p)
        return 0
    elif q.read_suspended == HOLDS:
        wait(world, q, p)
    else:
        free_packet(world, p)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)


@jit
def commit_response(world, q_row, p):
    """Second DMA instant of response data: into memory, then the WQE may complete."""
    row = packet(world, p)
    q = qp(world, q_row)
    if row.opcode == bth.ATOMIC_ACK:
        store64(payload_address(world, p), row.result)
    if move(world, p, True):
        if row.last and row.entry >= q.sq_una:
            entry_of(world, q, row.entry).done = 1
    else:
        fail_entry(world, q_row, row.entry, LOC_PROT_ERR)
    free_packet(world, p)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)


def ack_timer(world, q_row, due):
    """ACK_TIMER: nothing came for the timeout: go back to the oldest unacknowledged packet."""
    q = qp(world, q_row)
    c = control(world, 0)
    if due != q.timer_event or q.timer_deadline == 0:
        if due == q.timer_event:
            q.timer_event = 0
        c.stale -= 1
        return 0
    if c.now < q.timer_deadline:
        await_timer(world, q_row)
        return 0
    q.timer_event = 0
    q.timer_deadline = 0
    nic(world, q.nic).timeouts += 1
    q.rewound = 0
    trace(world, TIMEOUT, q.nic, q.number, q.una_psn, 0, 0)
    retry(world, q_row, BY_TIMEOUT, q.una_psn)
    return call(vector(world, units.RETIRE).address, world, q_row, 0)


def rnr_timer(world, q_row, incarnation):
    """RNR_TIMER: the wait is over."""
    q = qp(world, q_row)
    if q.incarnation == incarnation and q.rnr_until != 0 and control(world, 0).now >= q.rnr_until:
        q.rnr_until = 0
        trace(world, RNR_OVER, q.nic, q.number, 0, 0, 0)
        alone = q.rnr_alone != 0 and (q.state == RTS or q.state == SQD)
        q.rnr_alone = 0
        if alone and psn_diff(q.rnr_psn, q.una_psn) >= 0:
            go_back(world, q_row, q.rnr_psn, True)
        return call(vector(world, units.RETIRE).address, world, q_row, 0)
    return 0
