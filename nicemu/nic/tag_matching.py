"""Messages at a TM-SRQ: which buffer one goes into, and its completions (rdma-core, document on hardware tag matching).

The first packet decides: the first tag that matches its header, or the next untagged buffer. A match is told at once,
in the order of matches and unexpected messages; the data of a message of several packets, and of a rendezvous, by a
second completion with the same ``wr_id``. A message that is neither eager nor a rendezvous request, or too short for
its header, has no tag. A rendezvous request longer than ``max_rndv_hdr_size`` is unexpected: software has to handle it.

Chosen, where the document is silent: ``byte_len`` counts what was put into the tag's buffer, 0 as long as that is
nothing; the tag's buffer must belong to the QP's protection domain, as with every receive.
"""

from nicemu._jit import jit, load8, load32, load64
from nicemu.abi.rings import RECV_HEADER_BYTES, RECV_NUM_SGE
from nicemu.abi.tag_matching import (
    COUNT_MASK,
    RNDV_BYTES,
    RVH_LENGTH,
    TAG_FREED,
    TMH_APP_CTX,
    TMH_BYTES,
    TMH_TAG,
    TmhOp,
)
from nicemu.abi.verbs import WcFlag, WcOpcode, WcStatus
from nicemu.nic.big_endian import load_big32, load_big64
from nicemu.nic.cq import post_cqe, post_tagged_cqe
from nicemu.nic.dma import check_sges
from nicemu.nic.receive_queue import LOCAL_WRITE, recv_available, take_recv
from nicemu.nic.rendezvous import can_start, is_offloaded, start
from nicemu.nic.tag_list import (
    CONSUMED,
    EAGER,
    FREE,
    NO_TAG,
    NONE,
    RENDEZVOUS,
    SOFTWARE,
    UNEXPECTED,
    buffer_address,
    consume,
    count_unexpected,
    find_match,
)
from nicemu.tables.packets import payload_address
from nicemu.tables.rows import nic, packet, qp, tag, tag_list
from nicemu.wire import opcode as bth

OP_RNDV, OP_EAGER = int(TmhOp.RNDV), int(TmhOp.EAGER)
WC_TM_RECV, WC_TM_NO_TAG = int(WcOpcode.TM_RECV), int(WcOpcode.TM_NO_TAG)
WITH_IMM, SYNC_REQ, MATCH, DATA_VALID = (
    int(WcFlag.WITH_IMM), int(WcFlag.TM_SYNC_REQ), int(WcFlag.TM_MATCH), int(WcFlag.TM_DATA_VALID))  # fmt: skip
RNDV_INCOMPLETE = int(WcStatus.TM_RNDV_INCOMPLETE)
MOST_UNHANDLED = 0x3FFF
"""Unexpected messages that software has not handled, from which on their completions ask for it (mlx5)."""


@jit
def kind_of(world, p):
    """EAGER, RENDEZVOUS or NO_TAG: what the header at the head of a message says."""
    row = packet(world, p)
    operation = load8(payload_address(world, p)) if row.payload else 0
    if operation == OP_EAGER and row.payload >= TMH_BYTES:
        return EAGER
    return RENDEZVOUS if operation == OP_RNDV and row.payload >= RNDV_BYTES else NO_TAG


@jit
def is_too_long(world, q, row):
    """A rendezvous request that is more than one packet, or longer than the device handles."""
    return not bth.ends(row.opcode) or row.payload > nic(world, q.nic).max_rndv_hdr_size


@jit
def matching_tag(world, q, p, kind):
    """TAG row that the message may go to, 0: none."""
    if kind == NO_TAG or (kind == RENDEZVOUS and is_too_long(world, q, packet(world, p))):
        return 0
    return find_match(world, q.srq, load_big64(payload_address(world, p) + TMH_TAG))


@jit
def take_untagged(world, q_row, how):
    """The next untagged buffer. False: none is posted."""
    if not recv_available(world, q_row):
        return False
    q = qp(world, q_row)
    q.recv_length = take_recv(world, q_row)
    q.tagging = how
    if how == UNEXPECTED:
        count_unexpected(world, q.srq, 1)
        nic(world, q.nic).tags_unexpected += 1
    return True


@jit
def take_tag(world, q_row, at, how, length):
    """The buffer of a tag, ``length`` bytes long (-1: bad)."""
    q = qp(world, q_row)
    consume(world, q.srq, at)
    q.tagging = how
    q.tag = at
    q.recv_taken = 1
    q.recv_wqe = -2 - handle_of(world, at)  # no number of an untagged buffer
    q.recv_wr_id = load64(buffer_address(world, at))
    q.recv_length = length
    nic(world, q.nic).tags_matched += 1
    if how == RENDEZVOUS:
        q.rndv_open += 1


def take_message(world, q_row, p):
    """TAG_TAKE: where the message that packet ``p`` starts goes. 0: nothing is there for it, so RNR."""
    q = qp(world, q_row)
    kind = kind_of(world, p)
    at = matching_tag(world, q, p, kind)
    if at == 0:
        return 1 if take_untagged(world, q_row, NO_TAG if kind == NO_TAG else UNEXPECTED) else 0
    buffer = buffer_address(world, at)
    length = check_sges(world, q_row, q.pd, buffer + RECV_HEADER_BYTES, load32(buffer + RECV_NUM_SGE), LOCAL_WRITE)
    if kind == RENDEZVOUS and length >= 0:
        if not is_offloaded(q) or load_big32(payload_address(world, p) + RVH_LENGTH) > length:
            kind = SOFTWARE
        elif not can_start(q):
            return 0
    take_tag(world, q_row, at, kind, length)
    return 1


@jit
def handle_of(world, at):
    """The handle of a TAG row."""
    return at - tag_list(world, tag(world, at).list).first


@jit
def release(world, at):
    """The message is done with the tag's buffer: the ``wqe_counter`` that gives the handle back."""
    tag(world, at).state = FREE
    return TAG_FREED | handle_of(world, at)


@jit
def complete_eager(world, q_row, p, flags):
    """CQE of a matched message. Without DATA_VALID the tag is not free yet."""
    row = packet(world, p)
    q = qp(world, q_row)
    imm = 0
    if flags & DATA_VALID and bth.with_imm(row.opcode):
        flags |= WITH_IMM
        imm = row.imm
    app_ctx, number = 0, 0
    if flags & MATCH:
        app_ctx = load_big32(payload_address(world, p) + TMH_APP_CTX)
        number = load_big64(payload_address(world, p) + TMH_TAG)
    counter, length = 0, 0
    if flags & DATA_VALID:
        counter = release(world, row.tag)
        length = max(row.result - TMH_BYTES, 0)  # a peer may send less when it sends again
    lengths = (length, imm, flags, counter, app_ctx)
    return post_tagged_cqe(world, row.cq, row.wr_id, q.number, 0, WC_TM_RECV, lengths, row.solicited, number)


@jit
def complete_rendezvous(world, q_row, p):
    """CQE of a matched rendezvous request: its payload comes later, or software has to fetch it and finds both headers
    in the tag's buffer."""
    row = packet(world, p)
    q = qp(world, q_row)
    at = payload_address(world, p)
    status, flags, counter, length = 0, MATCH, 0, 0
    if row.tagging == SOFTWARE:
        status, flags, counter, length = RNDV_INCOMPLETE, MATCH | DATA_VALID, release(world, row.tag), RNDV_BYTES
    lengths = (length, 0, flags, counter, load_big32(at + TMH_APP_CTX))
    number = load_big64(at + TMH_TAG)
    good = post_tagged_cqe(world, row.cq, row.wr_id, q.number, status, WC_TM_RECV, lengths, row.solicited, number)
    if row.tagging == RENDEZVOUS:
        start(world, q_row, p)
    return good


@jit
def complete_untagged(world, q_row, p):
    """CQE of a message that lies whole in an untagged buffer. After many that software has not handled, it asks for
    that."""
    row = packet(world, p)
    q = qp(world, q_row)
    flags, imm = 0, 0
    if bth.with_imm(row.opcode):
        flags, imm = WITH_IMM, row.imm
    t = tag_list(world, q.srq)
    if row.tagging == UNEXPECTED and (t.unexpected - t.handled) & COUNT_MASK > MOST_UNHANDLED:
        flags |= SYNC_REQ
    opcode = WC_TM_RECV if row.tagging == UNEXPECTED else WC_TM_NO_TAG
    lengths = (row.result, imm, flags, 0, 0)
    return post_cqe(world, row.cq, row.wr_id, q.number, 0, opcode, lengths, row.solicited)


@jit
def eager_flags(row):
    """What packet ``row`` of a matched message completes; 0: nothing."""
    flags = MATCH if bth.starts(row.opcode) else 0
    return flags | DATA_VALID if row.last else flags


def complete_message(world, q_row, p):
    """TAG_COMPLETE: the bytes of packet ``p`` are in memory: CQE of what it completes. 0: the CQ is overrun."""
    row = packet(world, p)
    good = True
    if row.tagging == EAGER:
        flags = eager_flags(row)
        good = flags == 0 or complete_eager(world, q_row, p, flags)
    elif row.last == 0:
        good = True
    elif row.tagging == RENDEZVOUS or row.tagging == SOFTWARE:
        good = complete_rendezvous(world, q_row, p)
    else:
        good = complete_untagged(world, q_row, p)
    return 1 if good else 0


@jit
def fail_message(world, q_row, taken, status):
    """What a message had taken completes with ``status``. ``taken``: how, TAG row, CQ, wr_id. An unexpected message
    that came to nothing does not count."""
    how, at, cq_row, wr_id = taken
    q = qp(world, q_row)
    counter = 0
    if how == UNEXPECTED:
        count_unexpected(world, q.srq, -1)
    elif how != NO_TAG:
        if tag(world, at).state != CONSUMED or tag(world, at).list != q.srq:
            return
        counter = release(world, at)
        if how == RENDEZVOUS:
            q.rndv_open = max(q.rndv_open - 1, 0)  # 0: of a life that a RESET has ended
    opcode = WC_TM_NO_TAG if how == NO_TAG else WC_TM_RECV
    post_cqe(world, cq_row, wr_id, q.number, status, opcode, (0, 0, 0, counter, 0), 0)


def tag_flush(world, p, status):
    """TAG_FLUSH: the message of packet ``p``, accepted and not complete, fails."""
    row = packet(world, p)
    fail_message(world, row.qp, (row.tagging, row.tag, row.cq, row.wr_id), status)
    return 0


def tag_failed(world, q_row, status):
    """TAG_FAILED: the message in progress fails."""
    q = qp(world, q_row)
    how, at = q.tagging, q.tag
    q.tagging = NONE
    q.tag = 0
    fail_message(world, q_row, (how, at, q.recv_cq, q.recv_wr_id), status)
    return 0
