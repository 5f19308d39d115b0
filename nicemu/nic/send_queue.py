"""The send queue: fetching WQEs, retiring them in order, going back, the ACK timer, flushing.

WQE counters are absolute; ``SQ_ENTRY`` keeps what the requester and completer know about each outstanding WQE.
"""

from nicemu._jit import call, cold, jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.verbs import AsyncEvent, QpState, SendFlag, WcOpcode, WcStatus
from nicemu.nic import hooks
from nicemu.nic.cq import post_cqe
from nicemu.nic.datagram import find_av
from nicemu.nic.dma import check_sges
from nicemu.nic.eq import post_async
from nicemu.nic.hooks import BY_GAP, GO_ON, ONLY, TO_ERR, ask, ask_ns
from nicemu.nic.program_ring import SEND_SLOT, move, sends_posted
from nicemu.nic.psn import packet_count, psn_add, psn_diff
from nicemu.nic.qp_type import (
    ATOMIC_CMP_AND_SWP,
    ATOMIC_FETCH_AND_ADD,
    ATOMIC_WRITE,
    BIND_MW,
    FLUSH,
    LOCAL_INV,
    RAW_PACKET,
    RDMA_READ,
    SEND,
    TSO,
    UD,
    is_local,
    is_non_posted,
    is_reliable,
    may_post,
    returns_data,
)
from nicemu.nic.segmentation import fits_frames, header_bytes, segment_bytes
from nicemu.tables import units
from nicemu.tables.rows import control, nic, qp, sq_entry, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.tables.wheel import push

RETRANSMIT, WQE, WQE_DONE = int(Ev.RETRANSMIT), int(Ev.WQE), int(Ev.WQE_DONE)
SIGNALED, INLINE, FENCE, SOLICITED = 2, 8, int(SendFlag.FENCE), 4
LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR = 1, 2, 4
WC_SEND, WC_RDMA_WRITE, WC_RDMA_READ = int(WcOpcode.SEND), int(WcOpcode.RDMA_WRITE), int(WcOpcode.RDMA_READ)
WC_COMP_SWAP, WC_FETCH_ADD, WC_BIND_MW = int(WcOpcode.COMP_SWAP), int(WcOpcode.FETCH_ADD), int(WcOpcode.BIND_MW)
WC_TSO = int(WcOpcode.TSO)
WC_LOCAL_INV, WC_FLUSH, WC_ATOMIC_WRITE = int(WcOpcode.LOCAL_INV), int(WcOpcode.FLUSH), int(WcOpcode.ATOMIC_WRITE)
WR_FLUSH_ERR = int(WcStatus.WR_FLUSH_ERR)
RTS, SQD, ERR = int(QpState.RTS), int(QpState.SQD), int(QpState.ERR)
MAX_MESSAGE = 1 << 31
QP_FATAL, SQ_DRAINED = int(AsyncEvent.QP_FATAL), int(AsyncEvent.SQ_DRAINED)
ACK_TIMEOUT_UNIT_NS = 4096
UNSENT = -1
"""Status of a WQE that completes without an error and is not sent."""


@jit
def wqe_address(q, index):
    """Host address of a send WQE."""
    return q.sq_ring + (index & (q.sq_slots - 1)) * q.sq_stride


@jit
def entry_of(world, q, index):
    """What we know of a WQE."""
    return sq_entry(world, q.sq_entry + (index & (q.sq_slots - 1)))


@jit
def posted(world, q_row):
    """Send WQEs posted so far: by the library, or by the device where the send queue is its own."""
    q = qp(world, q_row)
    return q.rndv_produced if q.rendezvous else sends_posted(world, q_row)


@jit
def check_wqe(world, q_row, at, e):
    """Status of a WQE before anything is sent: operation, address handle, lengths, keys; fills the entry."""
    q = qp(world, q_row)
    e.opcode = load32(at + rings.SEND_OPCODE)
    e.flags = load32(at + rings.SEND_FLAGS)
    e.num_sge = 0
    e.length = 0
    if not may_post(q, e.opcode) or (is_non_posted(e.opcode) and q.max_rd_atomic == 0):
        return LOC_QP_OP_ERR
    if is_local(e.opcode) or e.opcode == FLUSH:
        return 0
    if q.type == UD and find_av(world, q_row, load32(at + rings.SEND_RKEY)) == 0:
        return LOC_QP_OP_ERR
    status = check_data(world, q_row, at, e)
    return status if status != 0 else check_message_length(q, e, at)


@jit
def check_data(world, q_row, at, e):
    """Inline data fits its slot; SGEs have good keys, PDs, ranges and rights."""
    q = qp(world, q_row)
    count = load32(at + rings.SEND_NUM_SGE)
    room = q.sq_stride - rings.SEND_HEADER_BYTES
    if e.opcode == TSO:
        room -= header_bytes(at)
        if e.flags & INLINE or header_bytes(at) > q.tso_header:
            return LOC_QP_OP_ERR
    if e.flags & INLINE:
        e.length = load32(at + rings.SEND_INLINE_LENGTH)
        if e.length > room or returns_data(e.opcode):
            e.length = 0
            return LOC_QP_OP_ERR
        return 0
    if count * rings.SGE_BYTES > room:
        return LOC_QP_OP_ERR
    write = 1 if returns_data(e.opcode) else 0
    total = check_sges(world, q_row, q.pd, at + rings.SEND_HEADER_BYTES, count, write)
    if total < 0:
        return LOC_PROT_ERR
    e.num_sge = count
    e.length = total
    return 0


@jit
def check_message_length(q, e, at):
    """At most 2^31 bytes, a datagram one MTU; atomics and ATOMIC WRITE exactly eight; a frame as Ethernet says."""
    if q.type == RAW_PACKET and not fits_frames(q, e, at):
        e.length = 0
        return LOC_LEN_ERR
    eight = e.opcode == ATOMIC_CMP_AND_SWP or e.opcode == ATOMIC_FETCH_AND_ADD or e.opcode == ATOMIC_WRITE
    limit = q.mtu if q.type == UD else MAX_MESSAGE
    if e.length > limit or (eight and e.length != 8):
        e.length = 0
        return LOC_LEN_ERR
    return 0


@jit
def psn_count(q, e, at):
    """PSNs of a WQE: none for what the NIC does by itself, one for each packet or READ response."""
    if e.status != 0:
        return 1
    if is_local(e.opcode):
        return 0
    return packet_count(e.length, segment_bytes(at) if e.opcode == TSO else q.mtu)


@jit
def fetch(world, q_row):
    """Fetch the next WQE, check it, give it its PSNs."""
    q = qp(world, q_row)
    if q.ring_mkey:
        move(world, q_row, SEND_SLOT, q.sq_fetched)
    e = entry_of(world, q, q.sq_fetched)
    e.received = 0
    e.done = 0
    e.counted = 0
    e.asked = 0
    at = wqe_address(q, q.sq_fetched)
    e.status = check_wqe(world, q_row, at, e)
    if e.status != 0:
        answer = ask(world, q.nic, hooks.SEND_ERROR, q_row, e.status << 8 | e.opcode & 255)
        e.status = 0 if answer == GO_ON else answer or UNSENT
    count = psn_count(q, e, at)
    if count > 0:
        q.ssn = psn_add(q.ssn, 1)
    e.ssn = q.ssn
    e.first_psn = q.next_psn
    e.last_psn = psn_add(q.next_psn, count - 1)
    q.next_psn = psn_add(q.next_psn, count)
    trace(world, WQE, q.nic, q.number, q.sq_fetched, two(e.opcode, e.first_psn), two(e.length, e.last_psn))
    q.sq_fetched += 1
    if e.status != 0 and e.status != UNSENT:
        q.sq_error = 1


@cold
def pass_over(world, q_row):
    """Firmware takes the WQE at ``sq_next`` for sent, and nothing of it is."""
    q = qp(world, q_row)
    e = entry_of(world, q, q.sq_next)
    e.status = 0
    q.sq_next += 1
    q.sent_psn = q.una_psn = psn_add(e.last_psn, 1)


@jit
def kick(world, q_row, delay):
    """Let the requester run ``delay`` ns from now."""
    q = qp(world, q_row)
    if q.sq_scheduled == 0:
        q.sq_scheduled = 1
        push(world, control(world, 0).now + delay, units.REQUESTER, q_row, q.incarnation)


@jit
def outstanding(q):
    """Some packet sent is not acknowledged."""
    return q.sent_psn != q.una_psn


@jit
def timer_off(world, q):
    """The ACK timer must not run: disabled, suspended, in an RNR wait, or nothing outstanding."""
    waits = q.sq_suspended or q.read_suspended
    if control(world, 0).now < q.rnr_until and nic(world, q.nic).ack_timer_in_rnr == 0:
        waits = 1
    return q.timeout == 0 or waits or not outstanding(q)


@jit
def keep_timer(world, q_row):
    """Start the ACK timer if it should run and does not, stop it if it must not."""
    q = qp(world, q_row)
    if timer_off(world, q):
        stop_timer(world, q_row)
    elif q.timer_deadline == 0:
        start_timer(world, q_row)


@jit
def start_timer(world, q_row):
    """Start or restart the ACK timer: 4.096 us * 2^timeout, through the firmware (ib_modify_qp timeout)."""
    q = qp(world, q_row)
    c = control(world, 0)
    if timer_off(world, q):
        stop_timer(world, q_row)
        return
    period = max(ask_ns(world, q.nic, hooks.ACK_TIMEOUT, q_row, ACK_TIMEOUT_UNIT_NS << q.timeout), 1)
    was_off = q.timer_deadline == 0
    q.timer_deadline = c.now + max(period, nic(world, q.nic).ack_timeout_floor_ns)
    late = q.timer_deadline < q.timer_event
    if q.timer_event == 0 or late:
        if late and not was_off:
            c.stale += 1
        await_timer(world, q_row)
    elif was_off:
        c.stale -= 1


@jit
def await_timer(world, q_row):
    """An event at the ACK timer's deadline. One that is in the wheel already, and later, is not the QP's any more."""
    q = qp(world, q_row)
    q.timer_event = q.timer_deadline
    push(world, q.timer_deadline, units.ACK_TIMER, q_row, q.timer_deadline)


@jit
def stop_timer(world, q_row):
    """Turn the ACK timer off; its event stays in the wheel and counts as stale."""
    q = qp(world, q_row)
    if q.timer_deadline != 0:
        q.timer_deadline = 0
        if q.timer_event:
            control(world, 0).stale += 1


@cold
def rewind(world, q_row, reason, psn):
    """The next packet sent is the one of ``psn``; firmware says whether all behind it follow (go-back-N)."""
    only = ask(world, qp(world, q_row).nic, hooks.RETRANSMIT, q_row, reason << 24 | psn) == ONLY
    go_back(world, q_row, psn, only)


@cold
def go_back(world, q_row, psn, only):
    """The next packet sent is the one of ``psn``. ``only``: then the queue goes on where it is now."""
    q = qp(world, q_row)
    q.rnr_alone = 0
    if not only:
        q.jumps = 0
    for index in range(q.sq_una, q.sq_fetched):
        e = entry_of(world, q, index)
        if psn_diff(psn, e.last_psn) <= 0:
            if index > q.sq_next:
                q.jumps = 0
                return
            offset = max(psn_diff(psn, e.first_psn), 0)
            if only and q.jumps == 0 and (index < q.sq_next or offset < q.sq_offset):
                q.jumps, q.jump_next, q.jump_offset = 1, q.sq_next, q.sq_offset
            q.sq_next = index
            q.sq_offset = offset
            nic(world, q.nic).retransmits += 1
            trace(world, RETRANSMIT, q.nic, q.number, psn, 0, 0)
            return


@cold
def jump(q):
    """The one packet to be sent again was sent, or is acknowledged: the queue goes on where it was."""
    q.jumps = 0
    q.sq_next = q.jump_next
    q.sq_offset = q.jump_offset


@cold
def skip_acknowledged(world, q):
    """The send position never lies behind what is acknowledged: those WQEs may retire and leave the ring."""
    for index in range(q.sq_next, q.sq_fetched):
        e = entry_of(world, q, index)
        if is_local(e.opcode):
            if e.done:
                continue
            q.sq_next = index
            q.sq_offset = 0
            return
        if psn_diff(q.una_psn, e.last_psn) <= 0:
            q.sq_next = index
            q.sq_offset = max(psn_diff(q.una_psn, e.first_psn), 0)
            return
    q.sq_next = q.sq_fetched
    q.sq_offset = 0


@jit
def complete(world, q_row, index, status):
    """CQE of a send WQE, if it asked for one or failed. False: the CQ is overrun."""
    q = qp(world, q_row)
    if q.rendezvous:
        return call(vector(world, units.RENDEZVOUS).address, world, q_row, index) != 0
    e = entry_of(world, q, index)
    signaled = 1 if status != 0 or q.all_signaled != 0 or e.flags & SIGNALED != 0 else 0
    trace(world, WQE_DONE, q.nic, q.number, index, status, two(e.opcode, signaled))
    if signaled == 0:
        return True
    opcode = wc_opcode(e.opcode)
    length = e.length if returns_data(e.opcode) else 0
    wr_id = load64(wqe_address(q, index))
    return post_cqe(world, q.send_cq, wr_id, q.number, status, opcode, (length, 0, 0, index, 0), 0)


@jit
def wc_opcode(opcode):
    """Work-completion opcode of a work-request opcode."""
    if opcode == RDMA_READ:
        return WC_RDMA_READ
    if opcode == ATOMIC_CMP_AND_SWP:
        return WC_COMP_SWAP
    if opcode == ATOMIC_FETCH_AND_ADD:
        return WC_FETCH_ADD
    if opcode == BIND_MW:
        return WC_BIND_MW
    if opcode == LOCAL_INV:
        return WC_LOCAL_INV
    if opcode == FLUSH:
        return WC_FLUSH
    if opcode == ATOMIC_WRITE:
        return WC_ATOMIC_WRITE
    if opcode == TSO:
        return WC_TSO
    return WC_RDMA_WRITE if opcode < SEND else WC_SEND


@jit
def is_done(world, q, e):
    """A WQE may complete: acknowledged, its data landed, a local operation performed."""
    if is_local(e.opcode):
        return e.done != 0
    if psn_diff(e.last_psn, q.una_psn) >= 0:
        return False
    return e.done != 0 or not is_non_posted(e.opcode)


@jit
def drained(world, q):
    """SQD: what was started is finished and acknowledged; say so once if the program asked (verbs SQ_DRAINED)."""
    if q.state == SQD and q.sq_draining and q.sq_offset == 0 and q.sq_una == q.sq_next and not outstanding(q):
        q.sq_draining = 0
        if q.sqd_notify:
            q.sqd_notify = 0
            post_async(world, q.nic, SQ_DRAINED, q.number)


def retire(world, q_row, go_on):
    """RETIRE: complete WQEs in post order as far as they are acknowledged and their data has landed.

    A local error reached in order completes with its status and takes the QP to ERR; an unreliable one to SQE.
    ``go_on``: go back to the oldest unacknowledged packet first (a resume).
    """
    q = qp(world, q_row)
    if q.state != RTS and q.state != SQD:
        return 0
    if go_on:
        rewind(world, q_row, BY_GAP, q.una_psn)
    while q.sq_una < q.sq_fetched:
        e = entry_of(world, q, q.sq_una)
        status = e.status & 255
        if e.status == UNSENT or (status == 0 and not is_done(world, q, e)):
            break
        good = complete(world, q_row, q.sq_una, status)
        q.sq_una += 1
        if status != 0:
            failed = units.QP_ERROR if is_reliable(q) or e.status & TO_ERR else units.SQ_ERROR
            return call(vector(world, failed).address, world, q_row, 0)
        if not good:
            return call(vector(world, units.QP_ERROR).address, world, q_row, QP_FATAL)
    keep_timer(world, q_row)
    drained(world, q)
    kick(world, q_row, 0)
    return 0
