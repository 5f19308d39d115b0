"""The timing wheel: events in the order of their times, those of one time in the order they were scheduled, for all
NICs and links of a lab, inside compiled code.

Times of the *window*, the 4096 ns around now that begin at a multiple of that, have a bucket each; later ones share
buckets, of 4096 ns, of 1024 times as much, and so on. When the window has no event left, the wheel turns to the window
of the next one, and the bucket it lay in is dealt out. So an event is scheduled and taken at the same cost, however
many there are. A bucket is a ring of EVENT rows, of which it names the last; PENDING has a bit for each that has any.
``stale`` counts events that will do nothing (cancelled timers), so that a wheel of only those is idle.
"""

from nicemu._jit import cold, entry, jit, load32, load64, lowest_bit, store32, store64
from nicemu.tables.records import Trap
from nicemu.tables.rows import bucket_base, coarse, control, event, pending_base
from nicemu.tables.trap import trap
from nicemu.tables.wheel_records import (
    COARSE_BITS,
    COARSE_BUCKETS,
    COARSE_LEVELS,
    COARSE_WORDS,
    WINDOW_BITS,
    WINDOW_NS,
    WINDOW_WORDS,
    WORD_BITS,
)

EVENTS_EXHAUSTED = int(Trap.EVENTS_EXHAUSTED)
LAST_TIME = (1 << WINDOW_BITS + COARSE_BITS * COARSE_LEVELS) - 1
"""Whatever is scheduled for later is scheduled for then, ns: a hundred years."""
WITHIN_WORD = (1 << WORD_BITS) - 1


@jit
def first_word(world, level):
    """Address of the bits of a level; 0: the window."""
    return pending_base(world) + 8 * (0 if level == 0 else WINDOW_WORDS + 1 + (level - 1) * (COARSE_WORDS + 1))


@jit
def summary(world, level):
    """Address of the word behind them that sums them up."""
    return first_word(world, level) + 8 * (WINDOW_WORDS if level == 0 else COARSE_WORDS)


@jit
def is_empty(world, level):
    """No event of this level."""
    return load64(summary(world, level)) == 0


@jit
def mark(world, level, at):
    """Bucket ``at`` of a level is not empty any more."""
    word, words = first_word(world, level) + 8 * (at >> WORD_BITS), summary(world, level)
    store64(word, load64(word) | 1 << (at & WITHIN_WORD))
    store64(words, load64(words) | 1 << (at >> WORD_BITS))


@jit
def first_bucket(world, level):
    """The first bucket of a level that is not empty."""
    word = lowest_bit(load64(summary(world, level)))
    return word << WORD_BITS | lowest_bit(load64(first_word(world, level) + 8 * word))


@jit
def unmark_first(world, level, at):
    """The first bucket of a level is empty."""
    word, words = first_word(world, level) + 8 * (at >> WORD_BITS), summary(world, level)
    rest = load64(word) & ~(1 << (at & WITHIN_WORD))
    store64(word, rest)
    if rest == 0:
        store64(words, load64(words) & ~(1 << (at >> WORD_BITS)))


@jit
def window_bucket(world, time):
    """Address of the bucket of a time in the window: the number of its last event, 0 if it is empty."""
    return bucket_base(world) + 4 * (time & WINDOW_NS - 1)


@jit
def follow(world, last, e):
    """Event ``e`` is a bucket's new last, behind ``last``. True: the bucket was empty."""
    row = event(world, e)
    if last == 0:
        row.next = e
        return True
    before = event(world, last)
    row.next = before.next
    before.next = e
    return False


@jit
def place(world, e, time):
    """Put event ``e`` into the bucket of its time."""
    ahead = time >> WINDOW_BITS ^ control(world, 0).window
    if ahead != 0:
        place_ahead(world, e, time, ahead)
        return
    ring = window_bucket(world, time)
    last = load32(ring)
    store32(ring, e)
    if follow(world, last, e):
        mark(world, 0, time & WINDOW_NS - 1)


@cold
def place_ahead(world, e, time, ahead):
    """Put event ``e`` into a coarse bucket: of the level at which its time and the window's part (``ahead``)."""
    level = 1
    while ahead >> COARSE_BITS * level != 0:
        level += 1
    at = time >> WINDOW_BITS + COARSE_BITS * (level - 1) & COARSE_BUCKETS - 1
    ring = coarse(world, (level - 1) * COARSE_BUCKETS + at)
    last, ring.last = ring.last, e
    if follow(world, last, e):
        mark(world, level, at)
        ring.earliest = time
    ring.earliest = min(ring.earliest, time)


@jit
def lowest_level(world):
    """The level of the next event, of which the window has none."""
    level = 1
    while is_empty(world, level):
        level += 1
    return level


@cold
def turn(world):
    """The window has no event left: turn to the window of the next one."""
    c = control(world, 0)
    while is_empty(world, 0):
        level = lowest_level(world)
        at = first_bucket(world, level)
        ring = coarse(world, (level - 1) * COARSE_BUCKETS + at)
        last, ring.last = ring.last, 0
        unmark_first(world, level, at)
        shift = COARSE_BITS * (level - 1)
        c.window = (c.window >> shift + COARSE_BITS << COARSE_BITS | at) << shift
        e = event(world, last).next
        while True:
            row = event(world, e)
            follower = row.next
            place(world, e, row.time)
            if e == last:
                break
            e = follower


@cold
def next_time_ahead(world):
    """``next_time`` if the window has no event."""
    level = lowest_level(world)
    return coarse(world, (level - 1) * COARSE_BUCKETS + first_bucket(world, level)).earliest


@jit
def fill_front(world):
    """Take the window's first event, if it has one, out to the front."""
    c = control(world, 0)
    if is_empty(world, 0):
        c.front, c.front_time = 0, -1
        return
    at = first_bucket(world, 0)
    ring = window_bucket(world, at)
    number = load32(ring)
    last = event(world, number)
    e = last.next
    if e == number:
        store32(ring, 0)
        unmark_first(world, 0, at)
    else:
        last.next = event(world, e).next
    c.front, c.front_time = e, c.window << WINDOW_BITS | at


@cold
def put_back(world):
    """The event at the front goes back into its bucket, as the first."""
    c = control(world, 0)
    ring = window_bucket(world, c.front_time)
    last = load32(ring)
    if follow(world, last, c.front):
        store32(ring, c.front)
        mark(world, 0, c.front_time & WINDOW_NS - 1)


@cold
def find_front(world, until):
    """Nothing is at the front: the first event comes there if it is due until then. When it is due."""
    c = control(world, 0)
    if is_empty(world, 0):
        level = lowest_level(world)
        time = coarse(world, (level - 1) * COARSE_BUCKETS + first_bucket(world, level)).earliest
        if time > until:
            return time
        turn(world)
    fill_front(world)
    return c.front_time


@jit
def next_time(world, until):
    """When the next event is due, ns; there is one. If that is not later than ``until``, it is at the front."""
    c = control(world, 0)
    return c.front_time if c.front != 0 else find_front(world, until)


@jit
def pop(world):
    """Take the event at the front. The answer is its row, which keeps what is in it until something is scheduled."""
    c = control(world, 0)
    e = c.front
    fill_front(world)
    event(world, e).next = c.event_free
    c.event_free = e
    c.pending -= 1
    return e


@cold
def never_used(world):
    """An EVENT row that nobody had before, 0 with a trap if none is left."""
    c = control(world, 0)
    e = c.event_next
    if e >= c.event_end:
        trap(world, EVENTS_EXHAUSTED, e)
        return 0
    c.event_next = e + 1
    event(world, e).next = 0
    return e


@jit
def push(world, time, kind, a, b):
    """Schedule event ``kind(a, b)`` at ``time`` ns, or now if that is past."""
    c = control(world, 0)
    e = c.event_free
    if e == 0:
        e = never_used(world)
        if e == 0:
            return
    row = event(world, e)
    c.event_free = row.next
    c.pending += 1
    time = min(max(time, c.now), LAST_TIME)
    row.time = time
    row.kind = kind
    row.a = a
    row.b = b
    if time < c.front_time:
        put_back(world)
        c.front, c.front_time = e, time
    else:
        place(world, e, time)


@entry("int64(int64)")
def due(world):
    """``next_time`` for Python; the clock stays where it is. Without an event: ``LAST_TIME``."""
    return next_time(world, -1) if control(world, 0).pending != 0 else LAST_TIME


@entry("void(int64, int64, int64, int64, int64)")
def schedule(world, time, kind, a, b):
    """``push`` for Python."""
    push(world, time, kind, a, b)
