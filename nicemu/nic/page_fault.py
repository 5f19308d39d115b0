"""Page faults: suspend what hardware suspends, report once per class, resume on the driver's command.

A QP can have four faults open, one per :class:`FaultType`; further faults of an open class are merged (mlx5
page-fault EQEs; NPF paper). At most ``max_fault_per_qp`` of them are reported at a time; the next one is when one is
resumed. A report that finds the page-fault EQ full waits, its fault open, until the driver has made room.

A receive fault of an SRQ's WQE is reported as an RDMA fault (key, address, bytes), since the WQE is the NIC's copy;
mlx5 has a type RMP for it. So is one of a work queue's. Left out: memory-scheme faults.
"""

from nicemu._jit import call, cold, jit
from nicemu.abi.rings import EqeType, FaultSubtype, FaultType
from nicemu.abi.verbs import PAGE_SHIFT, WcStatus
from nicemu.nic import hooks
from nicemu.nic.eq import PAGE_FAULT_EQN, is_full, link_held, post_eqe
from nicemu.nic.hooks import REDIRECT, ask, ask_ns
from nicemu.nic.qp_type import WORK_QUEUE, is_raw
from nicemu.nic.spread import FAULTS, factor, scaled
from nicemu.tables import units
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.rows import control, eq, fault, mkey, nic, packet, qp, sq_entry, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.tables.wheel import push

RESPONDER_RDMA, REQUESTER_SEND = int(FaultType.RESPONDER_RDMA), int(FaultType.REQUESTER_SEND)
RESPONDER_RECV, REQUESTER_READ = int(FaultType.RESPONDER_RECV), int(FaultType.REQUESTER_READ)
PAGE_FAULT, WQE, RDMA = int(EqeType.PAGE_FAULT), int(FaultSubtype.WQE), int(FaultSubtype.RDMA)
LOC_PROT_ERR = int(WcStatus.LOC_PROT_ERR)
FAULT, RESUME = int(Ev.FAULT), int(Ev.RESUME)
WITHIN_PAGE = (1 << PAGE_SHIFT) - 1
MOST_PAGES = (1 << 31) - 1
"""What the EQE's word for the pages asked for has room for."""
HOLDS = 2
"""``read_suspended``: responses wait, those that come too."""
READ_WAITS = 2
"""``recv_suspended``: the responses of the READ in progress wait for a page."""


@jit
def reported(world, q_row):
    """Faults of a QP that are open and not waiting to be reported."""
    count = 0
    for kind in range(FAULTS_PER_QP):
        f = fault(world, q_row * FAULTS_PER_QP + kind)
        if f.open and f.waiting == 0:
            count += 1
    return count


@jit
def report_waiting(world, q_row):
    """One fault of the QP is done: the first that waits is reported now."""
    for kind in range(FAULTS_PER_QP):
        row = q_row * FAULTS_PER_QP + kind
        f = fault(world, row)
        if f.open and f.waiting:
            f.waiting = 0
            find_out(world, row)
            return


@jit
def pages_of(world, f):
    """Pages that the driver will look at: of the rest of the operation, or as many as firmware asks for."""
    left = f.op_length
    if f.type == REQUESTER_SEND or f.type == REQUESTER_READ:
        left -= f.bytes_committed
    elif f.type == RESPONDER_RECV and qp(world, f.qp).srq == 0:
        left = qp(world, f.qp).recv_length - f.bytes_committed
    pages = ((f.va & WITHIN_PAGE) + max(left, 1) + WITHIN_PAGE) >> PAGE_SHIFT
    return min(pages, f.pages) if f.pages > 0 else pages


@jit
def find_out(world, row):
    """Firmware finds out what is missing, and reports it after a while; of a redirected access when its bytes have
    moved."""
    f = fault(world, row)
    q = qp(world, f.qp)
    n = nic(world, q.nic)
    f.pages = min(max(ask(world, q.nic, hooks.FAULT_PAGES, f.qp, row), 0), MOST_PAGES)
    ns = n.fault_detect_ns + (pages_of(world, f) - 1) * n.fault_detect_page_ns
    ns = ask_ns(world, q.nic, hooks.FAULT_DETECT, f.qp, scaled(ns, f.factor))
    if f.redirected:
        ns += n.pcie_latency_ns
    push(world, control(world, 0).now + ns, units.FAULT_REPORT, row, q.incarnation)


@jit
def redirects(world, q_row):
    """The bytes of a missing page go to or come from the redirect page: firmware's choice. What they are nobody ever
    sees: the access is repeated when the page is there."""
    q = qp(world, q_row)
    if ask(world, q.nic, hooks.MISSING_PAGE, q_row, control(world, 0).fault_write) != REDIRECT:
        return 0
    nic(world, q.nic).redirects += 1
    return 1


@jit
def try_later(world, row):
    """Firmware may let a send queue or a READ try again before the driver resumes it."""
    f = fault(world, row)
    if f.retrying or (f.type != REQUESTER_SEND and f.type != REQUESTER_READ):
        return
    wait = ask_ns(world, qp(world, f.qp).nic, hooks.REQUESTER_FAULT, f.qp, f.type)
    if wait > 0:
        f.retrying = 1
        push(world, control(world, 0).now + wait, units.FAULT_RETRY, row, f.number)


@cold
def raise_fault(world, q_row, kind, wqe, committed, op_length):
    """Record a fault at ``fault_address`` and report it, unless one of its class is open already."""
    q = qp(world, q_row)
    c = control(world, 0)
    row = q_row * FAULTS_PER_QP + kind
    f = fault(world, row)
    n = nic(world, q.nic)
    redirected = redirects(world, q_row)
    if f.open:
        f.merged += 1
        n.page_faults_merged += 1
        try_later(world, row)
        return
    f.open = 1
    f.type = kind
    f.qp = q_row
    f.mkey = c.fault_mkey
    f.va = c.fault_address
    f.wqe = wqe
    f.bytes_committed = committed
    f.op_length = op_length
    f.error = 0
    f.time = c.now
    f.merged = 0
    f.incarnation = q.incarnation
    if f.held:
        f.held = 2
    f.waiting = 0
    f.redirected = redirected
    f.retrying = 0
    n.page_faults += 1
    f.number = n.page_faults
    f.factor = factor(world, q.nic, FAULTS, f.number)
    m = mkey(world, f.mkey)
    page = (f.va >> PAGE_SHIFT) - (m.base >> PAGE_SHIFT)
    trace(world, FAULT, q.nic, kind, two(q.number, wqe), m.number, page)
    try_later(world, row)
    if reported(world, q_row) > n.max_fault_per_qp:
        f.waiting = 1
        return
    find_out(world, row)


def report(world, row, incarnation):
    """FAULT_REPORT: the page-fault EQE, once firmware has found out what is missing."""
    f = fault(world, row)
    q = qp(world, f.qp)
    if incarnation != q.incarnation:
        return 0
    eq_row = nic(world, q.nic).eq_base + PAGE_FAULT_EQN
    if is_full(world, eq_row):
        hold_fault(world, eq_row, row)
        return 0
    post_fault(world, row)
    return 0


@jit
def hold_fault(world, eq_row, row):
    """Keep a report until the page-fault EQ has room."""
    f = fault(world, row)
    nic(world, qp(world, f.qp).nic).faults_held += 1
    if f.held == 0:
        f.next_held = 0
        e = eq(world, eq_row)
        if e.held_head != 0:
            fault(world, e.held_tail).next_held = row
        link_held(world, eq_row, row)
    f.held = 1


@jit
def release_fault(world, row):
    """The page-fault EQ has room: report, unless the QP was reset meanwhile."""
    f = fault(world, row)
    due = f.held == 1 and f.open != 0
    f.held = 0
    if due:
        post_fault(world, row)


@jit
def post_fault(world, row):
    """The page-fault EQE."""
    f = fault(world, row)
    q = qp(world, f.qp)
    in_srq = f.type == RESPONDER_RECV and (q.srq != 0 or q.type == WORK_QUEUE)
    subtype = RDMA if f.type == RESPONDER_RDMA or in_srq else WQE
    last = f.op_length if subtype == RDMA else f.wqe & 0xFFFFFFFF
    asked = last | f.pages << 32
    words = (q.number | f.type << 32, row, mkey(world, f.mkey).key, f.va, f.bytes_committed, asked, f.time)
    post_eqe(world, nic(world, q.nic).eq_base + PAGE_FAULT_EQN, PAGE_FAULT, subtype, words)


@cold
def failed_before(world, q_row, kind):
    """The driver could not resolve the last fault of this class, and it was this page: take the mark and say so."""
    f = fault(world, q_row * FAULTS_PER_QP + kind)
    c = control(world, 0)
    here = f.mkey == c.fault_mkey and f.va >> PAGE_SHIFT == c.fault_address >> PAGE_SHIFT
    failed = f.open == 0 and f.error != 0 and here
    if failed:
        f.error = 0
    return failed


@jit
def release_responses(world, q_row):
    """The responses that waited are taken in the order they came; what hits the next missing page waits again."""
    q = qp(world, q_row)
    p = q.cx_head
    q.cx_head = q.cx_tail = q.cx_waiting = 0
    while p != 0:
        following = packet(world, p).next
        call(vector(world, units.COMPLETER).address, world, q_row, p)
        p = following
    return 0


def resume(world, row, error):
    """RESUME: close the fault and restart what it held; with an error, complete the WQE or mark the responder."""
    f = fault(world, row)
    if f.open == 0:
        return 0
    f.open = 0
    q = qp(world, f.qp)
    nic(world, q.nic).resumes += 1
    trace(world, RESUME, q.nic, f.type, q.number, error, f.merged)
    if f.incarnation != q.incarnation:
        return 0
    report_waiting(world, f.qp)
    if f.type == REQUESTER_SEND or f.type == REQUESTER_READ:
        return restart_requester(world, row, error)
    f.error = error
    if q.recv_suspended == 0:
        return 0
    reads = q.recv_suspended == READ_WAITS
    q.recv_suspended = 0
    if reads:
        return call(vector(world, units.READ_RESPONSE).address, world, f.qp, q.incarnation)
    waits = units.RAW_RESUME if is_raw(q) else units.RESPONDER
    return call(vector(world, waits).address, world, f.qp, 0)


@jit
def restart_requester(world, row, error):
    """The send queue, or the READ, that fault ``row`` holds goes on; with an error its WQE fails."""
    f = fault(world, row)
    q = qp(world, f.qp)
    if f.type == REQUESTER_SEND:
        q.sq_suspended = 0
    else:
        holds = q.read_suspended == HOLDS
        q.read_suspended = 0
        if holds and error == 0:
            return release_responses(world, f.qp)
    if error:
        fail_entry(world, f.qp, f.wqe, LOC_PROT_ERR)
    return call(vector(world, units.RETIRE).address, world, f.qp, 1 if f.type == REQUESTER_READ else 0)


def retry(world, row, number):
    """FAULT_RETRY: what the fault holds tries again; if the page is still missing, that is merged with the fault."""
    f = fault(world, row)
    if f.open == 0 or f.number != number or f.incarnation != qp(world, f.qp).incarnation:
        return 0
    f.retrying = 0
    nic(world, qp(world, f.qp).nic).fault_retries += 1
    return restart_requester(world, row, 0)


@jit
def resume_time(world, n, row):
    """From decoding the resume of fault ``row`` to going on, ns; of one that is closed it makes no difference."""
    f = fault(world, row)
    if f.open == 0:
        return n.resume_ns
    return ask_ns(world, n.number, hooks.RESUME, f.qp, scaled(n.resume_ns, f.factor))


@cold
def fail_entry(world, q_row, index, status):
    """WQE ``index`` of the send queue has failed locally; it completes so when its turn comes."""
    q = qp(world, q_row)
    if index < q.sq_una or index >= q.sq_fetched:
        return
    e = sq_entry(world, q.sq_entry + (index & (q.sq_slots - 1)))
    if e.status == 0:
        e.status = max(ask(world, q.nic, hooks.SEND_ERROR, q_row, status << 8 | e.opcode & 255), 0) or status
    q.sq_error = 1
