# mypy: ignore-errors
"""The loop: a heap in (time, sequence) order and three kinds of events. No protocol: no checks, no loss, no CQEs.

SEND builds a packet of the QP (one translation through a direct-mapped IOTLB, one copy) and schedules its arrival and
the next SEND; ARRIVE translates and copies it out, and answers the last of a message, or each 32nd, with an ACK, which
opens the window.
"""

from pathlib import Path

from nicemu._jit import copy_bytes, entry, jit, load64
from nicemu.bench.event_loop.tables import (
    IOTLB_LINES,
    PAGE_BITS,
    PAYLOAD_BYTES,
    control,
    event,
    packet,
    qp,
    source_line,
    target_line,
)

SEND, ARRIVE, ACK = 0, 1, 2
HEADER_BYTES, ACK_BYTES, ACK_EVERY = 70, 75, 32


@jit
def put(e, time, sequence, kind, row):
    """Store one event."""
    e.time = time
    e.sequence = sequence
    e.kind = kind
    e.row = row


@jit
def push(world, time, kind, row):
    """Schedule an event."""
    c = control(world, 0)
    i = c.pending
    c.pending = i + 1
    sequence = c.sequence
    c.sequence = sequence + 1
    while i > 0:
        parent = (i - 1) >> 1
        p = event(world, parent)
        if p.time <= time:
            break
        put(event(world, i), p.time, p.sequence, p.kind, p.row)
        i = parent
    put(event(world, i), time, sequence, kind, row)


@jit
def pop(world):
    """Remove the first event."""
    c = control(world, 0)
    n = c.pending - 1
    c.pending = n
    last = event(world, n)
    time, sequence = last.time, last.sequence
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        e = event(world, child)
        if child + 1 < n:
            right = event(world, child + 1)
            if right.time < e.time or (right.time == e.time and right.sequence < e.sequence):
                child += 1
                e = right
        if time < e.time or (time == e.time and sequence < e.sequence):
            break
        put(event(world, i), e.time, e.sequence, e.kind, e.row)
        i = child
    put(event(world, i), time, sequence, last.kind, last.row)


@jit
def translate(line, mtt, va):
    """The address of a byte, by the line of its page."""
    page = va >> PAGE_BITS
    if line.page != page:
        line.page = page
        line.address = load64(mtt + 8 * page)
    return line.address + (va & ((1 << PAGE_BITS) - 1))


@jit
def free(world, number):
    """A packet is done with."""
    c = control(world, 0)
    packet(world, number).next = c.packet_free
    c.packet_free = number


@jit
def send(world, row):
    """Build one packet of a QP, unless its window is full."""
    c, q = control(world, 0), qp(world, row)
    if q.left == 0:
        return
    if q.in_flight >= c.window:
        q.stopped = 1
        return
    number = c.packet_free
    p = packet(world, number)
    c.packet_free = p.next
    length = min(c.mtu, c.message - q.offset)
    address = translate(source_line(world, (q.offset >> PAGE_BITS) % IOTLB_LINES), c.source_mtt, q.offset)
    if c.copies:
        copy_bytes(c.payload + number * PAYLOAD_BYTES, address, length)
    p.psn, p.va, p.length, p.qp = q.psn, q.offset, length, row
    p.last = 1 if q.offset + length >= c.message else 0
    q.psn += 1
    q.in_flight += 1
    q.offset += length
    if p.last:
        q.offset = 0
        q.left -= 1
    start = max(c.now, c.port_free)
    c.port_free = start + (length + HEADER_BYTES) * c.ps_per_byte // 1000
    push(world, c.port_free + c.delay_ns, ARRIVE, number)
    push(world, c.port_free, SEND, row)


@jit
def arrive(world, number):
    """Take one packet in."""
    c, p = control(world, 0), packet(world, number)
    q = qp(world, p.qp)
    if p.psn != q.epsn:
        free(world, number)
        return
    q.epsn += 1
    address = translate(target_line(world, (p.va >> PAGE_BITS) % IOTLB_LINES), c.target_mtt, p.va)
    if c.copies:
        copy_bytes(address, c.payload + number * PAYLOAD_BYTES, p.length)
    q.msn += p.last
    if p.last or p.psn % ACK_EVERY == ACK_EVERY - 1:
        push(world, c.now + c.delay_ns + ACK_BYTES * c.ps_per_byte // 1000, ACK, number)
    else:
        free(world, number)


@jit
def acknowledge(world, number):
    """Packets up to this one are acknowledged; a QP that waited for that goes on."""
    p = packet(world, number)
    q = qp(world, p.qp)
    q.in_flight -= p.psn + 1 - q.acked
    q.acked = p.psn + 1
    free(world, number)
    if q.stopped:
        q.stopped = 0
        push(world, control(world, 0).now, SEND, p.qp)


@entry("int64(int64)", folder=Path(__file__).parent)
def run(world):
    """Run until nothing is left; how many events that were."""
    c = control(world, 0)
    while c.pending > 0:
        e = event(world, 0)
        kind, row = e.kind, e.row
        c.now = e.time
        pop(world)
        c.ran += 1
        if kind == SEND:
            send(world, row)
        elif kind == ARRIVE:
            arrive(world, row)
        else:
            acknowledge(world, row)
    return c.ran
