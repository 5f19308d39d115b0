"""Raw packet QPs and work queues, receiving: each frame takes a receive WQE of every queue that flow steering names.

A frame without a WQE is dropped and counted. One that is longer than its WQE, or whose WQE is bad, fails it and takes
the queue to ERR (mlx5: an error completion, and the RQ's error state). Where a page of the WQE is missing the frame is
dropped, or kept in the backup ring with what comes behind it, as firmware says (:mod:`nicemu.nic.backup_ring`).
"""

from nicemu._jit import call, jit, load8, store8
from nicemu.abi.command import QpFlag
from nicemu.abi.rings import RECV_HEADER_BYTES
from nicemu.abi.verbs import AsyncEvent, QpState, WcFlag, WcStatus
from nicemu.nic import dma
from nicemu.nic.arrive import discard
from nicemu.nic.backup_ring import enter, keep, leave, suspend
from nicemu.nic.checksum import checksums_right
from nicemu.nic.cq import post_cqe
from nicemu.nic.dma import hold, move, translate_sges
from nicemu.nic.ethernet import CVLAN, ETHERNET_HEADER, MAC_BYTES, MAX_HEADERS, VLAN_TAG, load_big, read_frame
from nicemu.nic.page_fault import RESPONDER_RECV, failed_before, raise_fault
from nicemu.nic.qp_cache import touch
from nicemu.nic.qp_type import WORK_QUEUE
from nicemu.nic.receive_queue import WC_RECV, fail_recv, recv_address, recv_available, recv_count, take_recv
from nicemu.nic.rss import spread
from nicemu.nic.steering import choose, take_chosen
from nicemu.tables import units
from nicemu.tables.packets import clone_packet, free_packet, payload_address
from nicemu.tables.records import MAX_MTU
from nicemu.tables.rows import control, headers, nic, packet, qp, vector
from nicemu.tables.wheel import push
from nicemu.wire.crc32 import crc32

ACCEPT, NO_WQE, WAIT, NO_PAGE, TOO_LONG, BAD_WQE = range(6)
"""Verdicts on a frame for a queue."""
RTR, SQE = int(QpState.RTR), int(QpState.SQE)
CVLAN_STRIPPING, SCATTER_FCS = int(QpFlag.CVLAN_STRIPPING), int(QpFlag.SCATTER_FCS)
IP_CSUM_OK, FCS_BYTES = int(WcFlag.IP_CSUM_OK), 4
LOC_LEN_ERR, LOC_PROT_ERR = int(WcStatus.LOC_LEN_ERR), int(WcStatus.LOC_PROT_ERR)
WR_FLUSH_ERR = int(WcStatus.WR_FLUSH_ERR)
QP_FATAL, WQ_FATAL = int(AsyncEvent.QP_FATAL), int(AsyncEvent.WQ_FATAL)


def raw_arrive(world, p, _):
    """RAW_ARRIVE: a raw frame has reached the NIC: to each queue that wants it, or dropped."""
    row = packet(world, p)
    n = nic(world, row.dest_nic)
    if not ETHERNET_HEADER <= row.payload <= MAX_MTU + MAX_HEADERS:
        n.malformed += 1
        discard(world, p)
        return 0
    read_frame(world, p)
    left = choose(world, n)
    if left == 0:
        n.raw_unsteered += 1
        discard(world, p)
    while left > 0:
        q_row = take_chosen(world, n)
        left -= 1
        frame = p if left == 0 else clone_packet(world, p)
        if frame != 0:
            accept(world, spread(world, q_row), frame)
    return 0


@jit
def accept(world, q_row, p):
    """A frame for a queue: in line behind those that wait there."""
    q = qp(world, q_row)
    if q.valid == 0 or q.state < RTR or q.state > SQE or q.resp_error:
        discard(world, p)
        return
    n = nic(world, q.nic)
    row = packet(world, p)
    row.in_backup = 0
    if q.recv_suspended and not enter(world, n, row):
        discard(world, p)
        return
    prepare(world, q, p)
    row.kind = q.nic
    row.qp = q_row
    row.next = 0
    if q.rx_head == 0:
        q.rx_head = p
    else:
        packet(world, q.rx_tail).next = p
    q.rx_tail = p
    q.rx_waiting += 1
    n.rx_waiting += 1
    drain(world, q_row)


@jit
def prepare(world, q, p):
    """What the queue gets of the frame that was read last: ``length`` bytes, flags, a VLAN tag that is stripped."""
    row = packet(world, p)
    row.grh = 0
    row.imm = 0
    row.length = row.payload
    row.result = IP_CSUM_OK if checksums_right(world, p) else 0
    if q.rx_flags & SCATTER_FCS:
        append_fcs(world, p)
    if q.rx_flags & CVLAN_STRIPPING and headers(world, 0).vlan != 0:
        strip_tag(world, p)


@jit
def append_fcs(world, p):
    """The frame check sequence, its low byte first."""
    row = packet(world, p)
    frame = payload_address(world, p)
    fcs = crc32(0, frame, row.payload)
    for i in range(FCS_BYTES):
        store8(frame + row.payload + i, (fcs >> (8 * i)) & 0xFF)
    row.length += FCS_BYTES


@jit
def strip_tag(world, p):
    """The outermost tag, if it is a customer's, moves into the completion."""
    row = packet(world, p)
    frame = payload_address(world, p)
    if load_big(frame + 2 * MAC_BYTES, 2) != CVLAN:
        return
    row.imm = load_big(frame + 2 * MAC_BYTES + 2, 2)
    for i in range(2 * MAC_BYTES - 1, -1, -1):
        store8(frame + VLAN_TAG + i, load8(frame + i))
    row.grh = -VLAN_TAG
    row.length -= VLAN_TAG


@jit
def drain(world, q_row):
    """Place the frames in line, up to one that stays in the backup ring."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    while q.rx_head != 0 and q.recv_suspended == 0:
        p = q.rx_head
        row = packet(world, p)
        q.rx_head = row.next
        q.rx_waiting -= 1
        n.rx_waiting -= 1
        n.translation_delay = touch(world, q.nic, q_row)
        verdict = place(world, q_row, p)
        if verdict == WAIT:
            suspend(world, q_row, p)
            return
        leave(n, row, verdict == ACCEPT)
        if verdict == NO_WQE or verdict == NO_PAGE:
            n.raw_no_buffer += 1 if verdict == NO_WQE else 0
            discard(world, p)
        else:
            land(world, q_row, p, verdict)


@jit
def place(world, q_row, p):
    """Take a receive WQE and translate where the frame's bytes go."""
    q = qp(world, q_row)
    row = packet(world, p)
    if q.resp_error or (q.recv_taken == 0 and not recv_available(world, q_row)):
        return NO_WQE
    if q.recv_taken == 0:
        q.recv_length = take_recv(world, q_row)
    if q.recv_length < 0:
        return BAD_WQE
    if row.length > q.recv_length:
        return TOO_LONG
    row.segments = 0
    sges = recv_address(world, q_row) + RECV_HEADER_BYTES
    verdict = translate_sges(world, p, q.pd, sges, recv_count(world, q_row), 0, row.length, True)
    if verdict == dma.FAULT and not failed_before(world, q_row, RESPONDER_RECV):
        raise_fault(world, q_row, RESPONDER_RECV, q.recv_wqe, 0, row.length)
        return WAIT if keep(world, q_row, row) else NO_PAGE
    return ACCEPT if verdict == dma.OK else BAD_WQE


@jit
def land(world, q_row, p, verdict):
    """Decided; it happens at RAW_COMMIT, in order."""
    q = qp(world, q_row)
    row = packet(world, p)
    n = nic(world, q.nic)
    row.verdict = verdict
    row.entry = q.recv_wqe
    row.wr_id = q.recv_wr_id
    row.cq = q.recv_cq
    if verdict == ACCEPT:
        q.recv_taken = 0
    else:
        q.resp_error = 1
        row.segments = 0
    n.dma_last = max(n.dma_last, control(world, 0).now + n.pcie_latency_ns + n.translation_delay)
    hold(world, p, n.dma_last)
    q.commit_until = n.dma_last
    push(world, n.dma_last, units.RAW_COMMIT, p, q.incarnation)


@jit
def complete(world, q_row, p, status):
    """The CQE of packet ``p``'s receive WQE. False: the CQ is overrun."""
    row = packet(world, p)
    q = qp(world, q_row)
    lengths = (row.length, row.imm, row.result, row.entry, 0)
    if status != 0:
        lengths = (0, 0, 0, row.entry, 0)
    return post_cqe(world, row.cq, row.wr_id, q.number, status, WC_RECV, lengths, 0)


@jit
def fail(world, q_row, p):
    """The frame's WQE fails, and with it the queue."""
    q = qp(world, q_row)
    row = packet(world, p)
    q.commit_failed = 1
    q.resp_error = 1
    if row.verdict == ACCEPT:  # the program took a page away
        complete(world, q_row, p, LOC_PROT_ERR)
    else:
        fail_recv(world, q_row, LOC_LEN_ERR if row.verdict == TOO_LONG else LOC_PROT_ERR)
    call(vector(world, units.QP_ERROR).address, world, q_row, 0)


def raw_commit(world, p, incarnation):
    """RAW_COMMIT: the frame's bytes move, then its receive WQE completes."""
    row = packet(world, p)
    q_row = row.qp
    q = qp(world, q_row)
    if q.incarnation == incarnation:
        if q.commit_failed:
            if row.verdict == ACCEPT:
                complete(world, q_row, p, WR_FLUSH_ERR)
        elif row.verdict != ACCEPT or not move(world, p, True):
            fail(world, q_row, p)
        elif not complete(world, q_row, p, 0):
            event = WQ_FATAL if q.type == WORK_QUEUE else QP_FATAL
            call(vector(world, units.QP_ERROR).address, world, q_row, event)
    free_packet(world, p)
    return 0


def raw_resume(world, q_row, _):
    """RAW_RESUME: a receive page fault of the queue is closed."""
    drain(world, q_row)
    return 0
