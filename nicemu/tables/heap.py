"""The event heap: (time, sequence) order, for all NICs and links of a lab, inside compiled code.

A binary heap in the EVENT table. Packets that follow each other, out of a port, along a link, into memory, form
*lanes*: only the first of a lane is in the heap; the others wait in their own rows. ``stale`` counts events that will
do nothing (cancelled timers), so that a heap of only those is idle.
"""

from nicemu._jit import cold, entry, jit
from nicemu.tables.records import LANES_PER_NIC, Trap
from nicemu.tables.rows import control, event, lane, packet

HEAP_FULL = int(Trap.HEAP_FULL)
MAX_EVENTS = (1 << 20) - 8


@cold
def trap(world, code, row):
    """Stop the run: our bug or a table limit."""
    c = control(world, 0)
    if c.trap == 0:
        c.trap = code
        c.trap_row = row


@jit
def put(e, time, sequence, kind, a, b, of_lane):
    """Store one event."""
    e.time = time
    e.sequence = sequence
    e.kind = kind
    e.a = a
    e.b = b
    e.lane = of_lane


@jit
def copy_event(to, e):
    """Store one event."""
    put(to, e.time, e.sequence, e.kind, e.a, e.b, e.lane)


@jit
def next_sequence(c):
    """The order of an event among those of one time."""
    sequence = c.sequence
    c.sequence = sequence + 1
    return sequence


@jit
def insert(world, time, kind, a, b, of_lane):
    """An event of its own in the heap, at ``time`` or now if that is past."""
    c = control(world, 0)
    i = c.pending
    if i >= MAX_EVENTS:
        trap(world, HEAP_FULL, i)
        return
    c.pending = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        p = event(world, parent)
        if p.time <= time:
            break
        copy_event(event(world, i), p)
        i = parent
    put(event(world, i), time, next_sequence(c), kind, a, b, of_lane)


@jit
def push(world, time, kind, a, b):
    """Schedule event ``kind(a, b)`` at ``time`` ns; events of one time run in the order they were pushed."""
    insert(world, max(time, control(world, 0).now), kind, a, b, 0)


@jit
def push_packet(world, of_lane, time, kind, p, b):
    """Schedule event ``kind(p, b)`` of a packet, behind those of its lane if it comes after them."""
    c = control(world, 0)
    time = max(time, c.now)
    queue = lane(world, of_lane)
    last = queue.last
    if last == 0 or packet(world, last).due > time:
        insert(world, time, kind, p, b, of_lane if last == 0 else 0)
        if last != 0:
            return
    else:
        row = packet(world, p)
        row.order = next_sequence(c)
        row.event = kind
        row.event_b = b
        packet(world, last).follower = p
    queue.last = p
    row = packet(world, p)
    row.due = time
    row.follower = 0


@jit
def sift(world, n, new):
    """Put the event in row ``new``, behind a heap of ``n`` whose first place is free, where it belongs."""
    e = event(world, new)
    time, sequence = e.time, e.sequence
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        c = event(world, child)
        if child + 1 < n:
            right = event(world, child + 1)
            if right.time < c.time or (right.time == c.time and right.sequence < c.sequence):
                child += 1
                c = right
        if time < c.time or (time == c.time and sequence < c.sequence):
            break
        copy_event(event(world, i), c)
        i = child
    copy_event(event(world, i), e)


@jit
def pop(world):
    """Remove the first event (read row 0 before); the next packet of its lane takes its place."""
    c = control(world, 0)
    n = c.pending
    first = event(world, 0)
    if first.lane != 0:
        follower = packet(world, first.a).follower
        if follower != 0:
            row = packet(world, follower)
            put(event(world, n), row.due, row.order, row.event, follower, row.event_b, first.lane)
            sift(world, n, n)
            return
        lane(world, first.lane).last = 0
    c.pending = n - 1
    sift(world, n - 1, n - 1)


@jit
def departures(nic_number):
    """The lane of a NIC's egress port."""
    return LANES_PER_NIC * nic_number


@jit
def commits(nic_number):
    """The lane of a NIC's DMA engine."""
    return LANES_PER_NIC * nic_number - 1


@jit
def arrivals(way):
    """The lane of a link: two to a NIC."""
    return LANES_PER_NIC * ((way + 1) >> 1) - 2 - (way & 1)


@entry("void(int64, int64, int64, int64, int64)")
def schedule(world, time, kind, a, b):
    """``push`` for Python."""
    push(world, time, kind, a, b)
