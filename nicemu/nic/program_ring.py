"""Rings and doorbell records that lie in memory of the program (``ibv_alloc_parent_domain(3)``, allocators).

Such memory is held by the driver and has a key of its own, which no protection domain opens. The device keeps a copy of
each ring and record, where it works: before it reads a slot or counter it fetches that from the program's memory, and
what it writes it stores there at once. Memory that is gone reads as ones, as a PCIe read that nobody answers; what is
written to it is lost.
"""

from nicemu._jit import acquire64, call, cold, fill_bytes, jit
from nicemu.abi import rings
from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT
from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.memory.copy import read_frame, write_frame
from nicemu.nic.lent import before_write
from nicemu.tables import radix, units
from nicemu.tables.rows import cq, mkey, qp, srq, vector

SEND_SLOT, RECV_SLOT, QP_RECORD, SRQ_SLOT, SRQ_RECORD, SRQ_TAKEN, CQE_SLOT, CQ_RECORD = range(8)
KIND_BITS = 3
FRAME_MASK = (1 << MTT_FRAME_BITS) - 1
PAGE_BYTES = 1 << PAGE_SHIFT
PAGE_OFFSET = PAGE_BYTES - 1
COUNTER_BYTES = 8


@jit
def place_of(world, mkey_row, offset):
    """(frame, byte within it) of a byte of held memory; frame 0: there is none."""
    m = mkey(world, mkey_row)
    place = offset + m.first
    if m.valid == 0:
        return 0, place & PAGE_OFFSET
    entry = radix.find(world, m.root, m.levels, place >> PAGE_SHIFT)
    return (entry >> MTT_FRAME_SHIFT) & FRAME_MASK, place & PAGE_OFFSET


@jit
def fetch_bytes(world, mkey_row, offset, copy, length):
    """From the program's memory into the device's copy."""
    while length > 0:
        frame, within = place_of(world, mkey_row, offset)
        chunk = min(length, PAGE_BYTES - within)
        if frame == 0 or not read_frame(world, frame, within, copy, chunk):
            fill_bytes(copy, 0xFF, chunk)
        offset += chunk
        copy += chunk
        length -= chunk


@jit
def store_bytes(world, mkey_row, offset, copy, length):
    """From the device's copy into the program's memory."""
    while length > 0:
        frame, within = place_of(world, mkey_row, offset)
        chunk = min(length, PAGE_BYTES - within)
        if frame != 0:
            before_write(world, frame)
            write_frame(world, frame, within, copy, chunk)
        offset += chunk
        copy += chunk
        length -= chunk


@jit
def of_qp(world, row, kind, index):
    """A QP's receive ring comes first in its memory, then its send ring (mlx5)."""
    q = qp(world, row)
    if kind == QP_RECORD:
        fetch_bytes(world, q.record_mkey, 0, q.doorbell_record, rings.DOORBELL_RECORD_BYTES)
    elif kind == RECV_SLOT:
        within = (index & (q.rq_slots - 1)) * q.rq_stride
        fetch_bytes(world, q.ring_mkey, within, q.rq_ring + within, q.rq_stride)
    else:
        within = (index & (q.sq_slots - 1)) * q.sq_stride
        fetch_bytes(world, q.ring_mkey, q.rq_slots * q.rq_stride + within, q.sq_ring + within, q.sq_stride)


@jit
def of_srq(world, row, kind, index):
    """An SRQ's slot, its producer counter, or the device's counter."""
    s = srq(world, row)
    if kind == SRQ_SLOT:
        within = (index & (s.slots - 1)) * s.stride
        fetch_bytes(world, s.ring_mkey, within, s.ring + within, s.stride)
    elif kind == SRQ_RECORD:
        at = s.doorbell_record + rings.DB_SRQ_PRODUCER
        fetch_bytes(world, s.record_mkey, rings.DB_SRQ_PRODUCER, at, COUNTER_BYTES)
    else:
        at = s.doorbell_record + rings.DB_SRQ_CONSUMER
        store_bytes(world, s.record_mkey, rings.DB_SRQ_CONSUMER, at, COUNTER_BYTES)


def transfer(world, row, what):
    """PROGRAM_RING: move one slot or counter. ``what``: its kind, and its index above ``KIND_BITS``."""
    kind = what & ((1 << KIND_BITS) - 1)
    index = what >> KIND_BITS
    if kind <= QP_RECORD:
        of_qp(world, row, kind, index)
    elif kind <= SRQ_TAKEN:
        of_srq(world, row, kind, index)
    elif kind == CQE_SLOT:
        q = cq(world, row)
        within = (index & (q.slots - 1)) * rings.CQE_BYTES
        store_bytes(world, q.ring_mkey, within, q.ring + within, rings.CQE_BYTES)
    else:
        q = cq(world, row)
        fetch_bytes(world, q.record_mkey, 0, q.doorbell_record, COUNTER_BYTES)
    return 0


@cold
def move(world, row, kind, index):
    """Move one slot or counter of an object whose memory is the program's."""
    call(vector(world, units.PROGRAM_RING).address, world, row, index << KIND_BITS | kind)


@jit
def sends_posted(world, row):
    """The send producer counter of a QP, whatever the program wrote there."""
    q = qp(world, row)
    if q.record_mkey:
        move(world, row, QP_RECORD, 0)
    return acquire64(q.doorbell_record + rings.DB_SEND)


@jit
def recvs_posted(world, row):
    """The receive producer counter of a QP."""
    q = qp(world, row)
    if q.record_mkey:
        move(world, row, QP_RECORD, 0)
    return acquire64(q.doorbell_record + rings.DB_RECV)


@jit
def cqes_consumed(world, row):
    """The consumer counter of a CQ."""
    q = cq(world, row)
    if q.record_mkey:
        move(world, row, CQ_RECORD, 0)
    return acquire64(q.doorbell_record)


@jit
def srq_posted(world, row):
    """The producer counter of an SRQ."""
    s = srq(world, row)
    if s.record_mkey:
        move(world, row, SRQ_RECORD, 0)
    return acquire64(s.doorbell_record + rings.DB_SRQ_PRODUCER)
