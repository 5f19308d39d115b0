"""The tag list of a TM-SRQ: tags in the order in which they were posted, and the operations that change it.

Software counts the unexpected messages it has handled and says so with its operations. As long as that is not the
device's own count, a tag that is added matches nothing: a message that came before it may be waiting for it in
software (rdma-core, document on hardware tag matching). The device's rows are the truth; the library chooses handles.
"""

from enum import IntEnum

from nicemu._jit import acquire64, copy_bytes, jit, load32, load64, store32, store64
from nicemu.abi.command import TagListField
from nicemu.abi.rings import RECV_HEADER_BYTES, RECV_NUM_SGE, SGE_BYTES
from nicemu.abi.tag_matching import (
    COUNT_MASK,
    DB_OPS_CONSUMER,
    DB_OPS_PRODUCER,
    MAX_TAG_SGES,
    OP_FLAGS,
    OP_HANDLE,
    OP_HEADER_BYTES,
    OP_MASK,
    OP_NUM_SGE,
    OP_OPCODE,
    OP_RECV_WR_ID,
    OP_STATUS,
    OP_STRIDE,
    OP_TAG,
    OP_UNEXPECTED,
    OP_WR_ID,
    RNDV_BYTES,
    TMH_BYTES,
    OpFlag,
    TagOp,
)
from nicemu.abi.verbs import AsyncEvent, SrqType, WcFlag, WcOpcode, WcStatus
from nicemu.nic.cq import post_cqe
from nicemu.nic.eq import post_async
from nicemu.tables import units
from nicemu.tables.records import TAG_WQE_BYTES
from nicemu.tables.rows import control, nic, srq, tag, tag_list, tag_wqe_base
from nicemu.tables.wheel import push


class TagState(IntEnum):
    """What a row of TAG is: nothing, in the list, or the buffer of a message that is not complete yet."""

    FREE, POSTED, CONSUMED = range(3)


class Tagging(IntEnum):
    """How a TM-SRQ takes a message: not at all, whole into an untagged buffer (as one without a tag, or unexpected), or
    into the buffer of the tag it matched (its payload, a rendezvous, or a rendezvous that software has to do)."""

    NONE, NO_TAG, UNEXPECTED, EAGER, RENDEZVOUS, SOFTWARE = range(6)


NONE, NO_TAG, UNEXPECTED, EAGER, RENDEZVOUS, SOFTWARE = (int(how) for how in Tagging)
FREE, POSTED, CONSUMED = (int(state) for state in TagState)
ADD, DEL, SYNC = (int(op) for op in TagOp)
SIGNALED, SYNC_FLAG = int(OpFlag.SIGNALED), int(OpFlag.SYNC)
TM, WC_TM_ADD, SYNC_REQ = int(SrqType.TM), int(WcOpcode.TM_ADD), int(WcFlag.TM_SYNC_REQ)
TM_ERR, LOC_QP_OP_ERR = int(WcStatus.TM_ERR), int(WcStatus.LOC_QP_OP_ERR)
SRQ_ERR = int(AsyncEvent.SRQ_ERR)
F_FIRST, F_COUNT, F_RING, F_SLOTS, F_RECORD, F_QPN = (int(field) for field in TagListField)


@jit
def serves_tags(world, q):
    """The QP receives from a TM-SRQ."""
    return q.srq != 0 and srq(world, q.srq).type == TM


@jit
def placed(q, offset):
    """Of the first ``offset`` bytes of the message in progress, how many go into its buffer: without the header of an
    eager one, nothing of a rendezvous, the headers of one that software has to do."""
    if q.tagging == EAGER:
        return max(offset - TMH_BYTES, 0)
    if q.tagging == RENDEZVOUS:
        return 0
    return min(offset, RNDV_BYTES) if q.tagging == SOFTWARE else offset


@jit
def buffer_address(world, row):
    """Host address of a tag's buffer, in the form of a receive WQE."""
    return tag_wqe_base(world) + row * TAG_WQE_BYTES


@jit
def create_list(world, row, mailbox):
    """CREATE_SRQ: an empty list."""
    t = tag_list(world, row)
    t.first = load64(mailbox + 8 * F_FIRST)
    t.count = load64(mailbox + 8 * F_COUNT)
    t.ring = load64(mailbox + 8 * F_RING)
    t.slots = load64(mailbox + 8 * F_SLOTS)
    t.doorbell_record = load64(mailbox + 8 * F_RECORD)
    t.qpn = load64(mailbox + 8 * F_QPN)
    t.head = t.tail = t.next = t.busy = 0
    t.unexpected = t.handled = 0
    for i in range(t.first, t.first + t.count):
        entry = tag(world, i)
        entry.state = FREE
        entry.list = row


@jit
def unlink(world, row, at):
    """Take a tag out of the order of matching."""
    t = tag_list(world, row)
    entry = tag(world, at)
    if entry.previous:
        tag(world, entry.previous).next = entry.next
    else:
        t.head = entry.next
    if entry.next:
        tag(world, entry.next).previous = entry.previous
    else:
        t.tail = entry.previous


@jit
def in_step(t):
    """Software has handled all unexpected messages."""
    return t.handled == t.unexpected


@jit
def activate(world, row):
    """If software and device are in step, all tags may match."""
    t = tag_list(world, row)
    at = t.head if in_step(t) else 0
    while at != 0:
        entry = tag(world, at)
        entry.active = 1
        at = entry.next


@jit
def count_unexpected(world, row, change):
    """One unexpected message more (1), or one fewer (-1): it came to nothing and software will not hear of it."""
    t = tag_list(world, row)
    t.unexpected = (t.unexpected + change) & COUNT_MASK
    if change < 0:
        activate(world, row)


@jit
def find_match(world, row, wanted):
    """The first tag that may match ``wanted``: TAG row, 0 if none (man page: TMH.tag & entry.mask == entry.tag)."""
    at = tag_list(world, row).head
    while at != 0:
        entry = tag(world, at)
        if entry.active and wanted & entry.mask == entry.tag:
            return at
        at = entry.next
    return 0


@jit
def consume(world, row, at):
    """A message takes this tag's buffer."""
    unlink(world, row, at)
    tag(world, at).state = CONSUMED


@jit
def row_of(t, handle):
    """TAG row of a handle, 0 if there is none."""
    return t.first + handle if 0 <= handle < t.count else 0


@jit
def add_tag(world, row, at):
    """IBV_WR_TAG_ADD: to the end of the list. TM_ERR: no such handle, or it is in use."""
    t = tag_list(world, row)
    where = row_of(t, load32(at + OP_HANDLE))
    entry = tag(world, where)
    if where == 0 or entry.state != FREE:
        return TM_ERR
    entry.state = POSTED
    entry.tag = load64(at + OP_TAG)
    entry.mask = load64(at + OP_MASK)
    entry.active = 1 if in_step(t) else 0
    entry.next = 0
    entry.previous = t.tail
    if t.tail:
        tag(world, t.tail).next = where
    else:
        t.head = where
    t.tail = where
    count = min(load32(at + OP_NUM_SGE), MAX_TAG_SGES)
    buffer = buffer_address(world, where)
    store64(buffer, load64(at + OP_RECV_WR_ID))
    store32(buffer + RECV_NUM_SGE, count)
    copy_bytes(buffer + RECV_HEADER_BYTES, at + OP_HEADER_BYTES, count * SGE_BYTES)
    return 0


@jit
def delete_tag(world, row, at):
    """IBV_WR_TAG_DEL. TM_ERR: a message has taken it, or it is not there."""
    where = row_of(tag_list(world, row), load32(at + OP_HANDLE))
    entry = tag(world, where)
    if where == 0 or entry.state != POSTED:
        return TM_ERR
    unlink(world, row, where)
    entry.state = FREE
    return 0


@jit
def execute(world, row, at):
    """One operation: the count of handled messages that comes with it first, then what it is about."""
    t = tag_list(world, row)
    if load32(at + OP_FLAGS) & SYNC_FLAG:
        t.handled = load32(at + OP_UNEXPECTED) & COUNT_MASK
        activate(world, row)
    opcode = load32(at + OP_OPCODE)
    if opcode == ADD:
        return add_tag(world, row, at)
    if opcode == DEL:
        return delete_tag(world, row, at)
    return 0 if opcode == SYNC else LOC_QP_OP_ERR


@jit
def waiting(world, row):
    """Operations posted and not executed. A producer counter that cannot be is SRQ_ERR, once."""
    s = srq(world, row)
    t = tag_list(world, row)
    if s.valid == 0 or s.type != TM or s.error:
        return 0
    count = acquire64(t.doorbell_record + DB_OPS_PRODUCER) - t.next
    if count > t.slots:
        s.error = 1
        post_async(world, s.nic, SRQ_ERR, s.number)
        return 0
    return max(count, 0)


@jit
def perform(world, row):
    """Execute the next operation, write its status, complete it if it asked for that."""
    s = srq(world, row)
    t = tag_list(world, row)
    at = t.ring + (t.next & (t.slots - 1)) * OP_STRIDE
    status = execute(world, row, at)
    store32(at + OP_STATUS, status)
    counter = t.next
    t.next += 1
    store64(t.doorbell_record + DB_OPS_CONSUMER, t.next)
    if load32(at + OP_FLAGS) & SIGNALED:
        flags = 0 if in_step(t) else SYNC_REQ
        opcode = WC_TM_ADD + min(load32(at + OP_OPCODE), SYNC)
        lengths = (0, 0, flags, counter & 0x7FFFFFFF, 0)
        post_cqe(world, s.cq, load64(at + OP_WR_ID), t.qpn, status, opcode, lengths, 0)


def tag_operation(world, row, fetched):
    """TAG_OPERATION: a doorbell (``fetched`` 0), or an operation has been fetched (1). One at a time, in order."""
    t = tag_list(world, row)
    if fetched == 0 and t.busy:
        return 0
    t.busy = 0
    if waiting(world, row) == 0:
        return 0
    if fetched:
        perform(world, row)
    if fetched == 0 or waiting(world, row):
        t.busy = 1
        s = srq(world, row)
        push(world, control(world, 0).now + nic(world, s.nic).wqe_fetch_ns, units.TAG_OPERATION, row, 1)
    return 0
