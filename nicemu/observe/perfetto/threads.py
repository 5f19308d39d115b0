# mypy: ignore-errors
"""Host threads: verbs calls and system calls as slices on lanes of the program, interrupts and work items on lanes of
the driver, and inside them what they do and wait for."""

from nicemu._jit import jit
from nicemu.abi.rings import FaultType
from nicemu.observe.perfetto.faults import fault_row, taken_up
from nicemu.observe.perfetto.proto import BEGIN, END, INSTANT
from nicemu.observe.perfetto.rows import raw, shape_of, time_of, word
from nicemu.observe.perfetto.state import LANES, fault, lane, scribe, shape, text, thread
from nicemu.observe.perfetto.tracks import bit, end_slice, lowest_free, new_track
from nicemu.observe.perfetto.words import DRIVER, MOST_SPANS, PROGRAM, WORDS

THREADS = 1 << 12
"""Rows of THREAD: as many threads at a time are told apart, if their numbers are near each other."""
CALL_LANE, WORK_LANE = WORDS["call lane "], WORDS["worker lane "]
FIRST_FAULT = WORDS[FaultType(0).name]


@jit
def thread_row(world, number):
    """Row of THREAD of an open thread, 0: none."""
    row = 1 + (number & (THREADS - 1))
    return row if number and thread(world, row).number == number else 0


@jit
def take_lane(world, driver):
    """The lowest free lane of the program or the driver: a row of LANE; 0: all are in use."""
    s = scribe(world, 0)
    k = lowest_free(s.work_lanes if driver else s.call_lanes)
    if k < 0:
        return 0
    if driver:
        s.work_lanes |= bit(k)
    else:
        s.call_lanes |= bit(k)
    row = 1 + k + (LANES if driver else 0)
    if lane(world, row).track == 0:
        parent, iid = (DRIVER, WORK_LANE) if driver else (PROGRAM, CALL_LANE)
        lane(world, row).track = new_track(world, parent, iid, k, 10 + k)
    return row


@jit
def started(world, r, place):
    """``thread_start``: a slice. ``place``: where it goes if there is no room for one."""
    number = word(world, r, 0)
    t = thread(world, 1 + (number & (THREADS - 1)))
    driver = text(world, word(world, r, 1)).worker
    row = take_lane(world, driver) if t.number == 0 else 0
    if row == 0:
        raw(world, r, INSTANT, place, 0)
        return
    t.number = number
    t.lane = row
    t.driver = driver
    t.spans = 0
    t.fault = 0
    raw(world, r, BEGIN, lane(world, row).track, 0)


@jit
def track_of(world, row):
    """The track of a thread."""
    return lane(world, thread(world, row).lane).track


@jit
def end_spans(world, time, row, until):
    """End the innermost spans of a thread as far as the first of kind ``until``, which stays; 0: all. False: there is
    no such."""
    t = thread(world, row)
    spans = t.spans
    while spans and spans & 255 != until:
        spans >>= 8
    if until and spans == 0:
        return False
    while t.spans != spans:
        end_slice(world, time, track_of(world, row))
        t.spans >>= 8
    return True


@jit
def ended(world, r, place):
    """``thread_end``."""
    row = thread_row(world, word(world, r, 0))
    if row == 0:
        raw(world, r, INSTANT, place, 0)
        return
    end_spans(world, time_of(world, r), row, 0)
    raw(world, r, END, track_of(world, row), 0)
    leave_lane(world, row)


@jit
def leave_lane(world, row):
    """The lane of a thread is free again."""
    s = scribe(world, 0)
    t = thread(world, row)
    others = ~bit((t.lane - 1) % LANES)
    if t.driver:
        s.work_lanes &= others
    else:
        s.call_lanes &= others
    t.number = 0


@jit
def span(world, r, place):
    """Something begins in a thread, as the shape's ``span`` says what."""
    row = thread_row(world, thread_of(world, r))
    kind = shape(world, shape_of(world, r)).span
    t = thread(world, row)
    if row == 0 or t.spans >> (8 * (MOST_SPANS - 1)):
        raw(world, r, INSTANT, place, 0)
        return
    t.spans = t.spans << 8 | kind
    flow = fault(world, t.fault).flow if t.fault and fault(world, t.fault).open else 0
    raw(world, r, BEGIN, track_of(world, row), flow)


@jit
def span_done(world, r, place):
    """It ends."""
    row = thread_row(world, thread_of(world, r))
    kind = shape(world, shape_of(world, r)).span
    if row == 0 or not end_spans(world, time_of(world, r), row, kind):
        raw(world, r, INSTANT, place, 0)
        return
    raw(world, r, END, track_of(world, row), 0)
    thread(world, row).spans >>= 8


@jit
def thread_of(world, r):
    """Number of the thread of an event: a field of its own place in each shape."""
    return word(world, r, shape(world, shape_of(world, r)).thread)


@jit
def inside(world, r, place):
    """An instant in a thread."""
    row = thread_row(world, thread_of(world, r))
    raw(world, r, INSTANT, track_of(world, row) if row else place, 0)


@jit
def fault_work(world, r, place):
    """``fault_work``: the arrow of the fault comes here, and goes on with what the thread does."""
    row = thread_row(world, word(world, r, 0))
    nic_number = word(world, r, 1) + 1
    fault_at = fault_row(world, nic_number, word(world, r, 2), word(world, r, 3) - FIRST_FAULT)
    f = fault(world, fault_at)
    flow = f.flow if fault_at and f.open else 0
    if row and flow:
        thread(world, row).fault = fault_at
        taken_up(world, nic_number, fault_at)
    raw(world, r, INSTANT, track_of(world, row) if row else place, flow)
