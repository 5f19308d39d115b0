"""The event heap: (time, sequence) order, for all NICs and links of a lab, inside compiled code.

A binary heap in the EVENT table. ``stale`` counts events that will do nothing (cancelled timers), so that a heap of
only those is idle.
"""

from nicemu._jit import entry, jit
from nicemu.tables.records import Trap
from nicemu.tables.rows import control, event


@jit
def trap(world, code, row):
    """Stop the run: our bug or a table limit."""
    c = control(world, 0)
    if c.trap == 0:
        c.trap = code
        c.trap_row = row


@jit
def put(e, time, sequence, kind, a, b):
    """Store one event."""
    e.time = time
    e.sequence = sequence
    e.kind = kind
    e.a = a
    e.b = b


@jit
def push(world, time, kind, a, b):
    """Schedule event ``kind(a, b)`` at ``time`` ns; events of one time run in the order they were pushed."""
    c = control(world, 0)
    i = c.pending
    if i >= MAX_EVENTS:
        trap(world, Trap.HEAP_FULL, i)
        return
    c.pending = i + 1
    sequence = c.sequence
    c.sequence = sequence + 1
    time = max(time, c.now)
    while i > 0:
        parent = (i - 1) >> 1
        p = event(world, parent)
        if p.time <= time:
            break
        put(event(world, i), p.time, p.sequence, p.kind, p.a, p.b)
        i = parent
    put(event(world, i), time, sequence, kind, a, b)


@jit
def pop(world):
    """Remove the first event (read row 0 before)."""
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
        put(event(world, i), e.time, e.sequence, e.kind, e.a, e.b)
        i = child
    put(event(world, i), time, sequence, last.kind, last.a, last.b)


MAX_EVENTS = (1 << 20) - 8


@entry("void(int64, int64, int64, int64, int64)")
def schedule(world, time, kind, a, b):
    """``push`` for Python."""
    push(world, time, kind, a, b)
