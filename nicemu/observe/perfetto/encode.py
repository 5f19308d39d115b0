# mypy: ignore-errors
"""The kernel: rows of the trace table into packets."""

from pathlib import Path

from nicemu._jit import entry, jit, load64
from nicemu.observe.perfetto import faults, packets, queue_pairs, threads
from nicemu.observe.perfetto.proto import INSTANT
from nicemu.observe.perfetto.queue_pairs import close_all
from nicemu.observe.perfetto.rows import ROW_BYTES, raw, shape_of, time_of
from nicemu.observe.perfetto.state import command, counter, nic, qp, scribe, seen, shape, thread
from nicemu.observe.perfetto.tracks import count, end_slice, gauge, put_counter
from nicemu.observe.perfetto.words import Action, Gauge
from nicemu.tables.trace import CONTINUED, Ev

LONGEST = 1 << 15
"""Bytes that one event can need: at a RESET every slice of its QP ends."""
(
    AT_ONCE, WQE, WQE_DONE, SEND, RECEIVE, LINK, CQE, EQE, INTERRUPT, COMMAND, COMMAND_DONE, FAULT, RESUME, MTT_UPDATE,
    RNR_WAIT, RNR_OVER, SQ_HELD, QP_STATE, QP_PATH, QP_INSTANT, IOTLB_MISS, LOST, POST, THREAD_START, THREAD_END, SPAN,
    SPAN_DONE, FAULT_WORK, THREAD_INSTANT, HOST_INSTANT,
) = (int(action) for action in Action)  # fmt: skip
LINK_IN, MISSES = int(Ev.LINK_IN), int(Gauge.MISSES)
GAUGES, FOR_EVER = len(Gauge), 1 << 62


@jit
def draw_packet(world, r, action, nic_number):
    """Events of packets, cables, CQs and commands; False: it is none."""
    if action == SEND:
        packets.sent(world, r, nic_number)
    elif action == RECEIVE:
        packets.received(world, r, nic_number)
    elif action == LINK:
        packets.on_cable(world, r, nic_number, 1 if shape_of(world, r) == LINK_IN else 0)
    elif action == CQE:
        packets.completed(world, r, nic_number)
    elif action == COMMAND:
        packets.commanded(world, r, nic_number)
    elif action == COMMAND_DONE:
        packets.command_done(world, r, nic_number)
    elif action == LOST:
        packets.lost(world, r, nic_number)
    else:
        return False
    return True


@jit
def draw_qp(world, r, action, nic_number):
    """Events of QPs; False: it is none."""
    if action == WQE:
        queue_pairs.fetched(world, r, nic_number)
    elif action == WQE_DONE:
        queue_pairs.retired(world, r, nic_number)
    elif action == RNR_WAIT:
        queue_pairs.start_wait(world, r, nic_number, queue_pairs.RNR_WAIT)
    elif action == SQ_HELD:
        queue_pairs.start_wait(world, r, nic_number, queue_pairs.SQ_HELD)
    elif action == RNR_OVER:
        queue_pairs.rnr_over(world, r, nic_number)
    elif action == QP_STATE:
        queue_pairs.changed(world, r, nic_number)
    elif action == QP_PATH:
        queue_pairs.connected(world, r, nic_number)
    elif action == QP_INSTANT:
        queue_pairs.mark(world, r, nic_number)
    else:
        return False
    return True


@jit
def draw_fault(world, r, action, nic_number):
    """Events of page faults and their way; False: it is none."""
    track = nic(world, nic_number).first + shape(world, shape_of(world, r)).place
    if action == FAULT:
        faults.raised(world, r, nic_number)
    elif action == EQE:
        faults.reported(world, r, nic_number, track)
    elif action == INTERRUPT:
        faults.interrupted(world, r, nic_number, track)
    elif action == MTT_UPDATE:
        faults.updated(world, r, nic_number, track)
    elif action == RESUME:
        faults.resumed(world, r, nic_number, track)
    else:
        raw(world, r, INSTANT, track, 0)
        if action == IOTLB_MISS:
            count(world, time_of(world, r), gauge(nic_number, MISSES), 1)


@jit
def draw_host(world, r, action, place):
    """Events of the host."""
    if action == POST:
        queue_pairs.posted(world, r)
    elif action == THREAD_START:
        threads.started(world, r, place)
    elif action == THREAD_END:
        threads.ended(world, r, place)
    elif action == SPAN:
        threads.span(world, r, place)
    elif action == SPAN_DONE:
        threads.span_done(world, r, place)
    elif action == FAULT_WORK:
        threads.fault_work(world, r, place)
    elif action == THREAD_INSTANT:
        threads.inside(world, r, place)
    else:
        raw(world, r, INSTANT, place, 0)


@jit
def draw(world, r):
    """One event."""
    sh = shape(world, shape_of(world, r))
    if sh.action >= POST:
        draw_host(world, r, sh.action, sh.place)
        return
    nic_number = load64(scribe(world, 0).rows + r * ROW_BYTES + 24)
    if not draw_packet(world, r, sh.action, nic_number) and not draw_qp(world, r, sh.action, nic_number):
        draw_fault(world, r, sh.action, nic_number)


@entry("int64(int64, int64, int64)", folder=Path(__file__).parent)
def encode(world, r, rows):
    """Write the packets of rows ``r`` to ``rows`` of the trace table, or of as many as the buffer takes.

    ``world``: the writer's. The answer is the next row; ``at`` of its SCRIBE row says how far it wrote.
    """
    s = scribe(world, 0)
    while r < rows and s.at < s.end:
        if shape_of(world, r) != CONTINUED:
            packets.cables_until(world, time_of(world, r))
            draw(world, r)
        r += 1
    return r


@jit
def finish_nic(world, nic_number, time):
    """End what is open on a NIC's tracks of commands, and tell its counters once more."""
    for k in range(nic_number * packets.SLOTS, (nic_number + 1) * packets.SLOTS):
        if command(world, k).open:
            command(world, k).open = 0
            end_slice(world, time, command(world, k).track)
    for row in range(nic_number * GAUGES, (nic_number + 1) * GAUGES):
        if counter(world, row).stale:
            put_counter(world, time, row)


@entry("int64(int64, int64, int64)", folder=Path(__file__).parent)
def finish_qps(world, first, time):
    """The trace ends: end what is open of the QPs from row ``first`` of SEEN on, one after the other as far as there is
    room for each; the next row, 0: all are done."""
    s = scribe(world, 0)
    if first == 1:
        packets.cables_until(world, time)
    for k in range(first, s.seen + 1):
        if s.at >= s.end:
            return k
        row = seen(world, k).qp
        queue_pairs.end_wait(world, time, qp(world, row), 0)
        close_all(world, time, 1 + (row - 1) // s.qps, row)
    return 0


@entry("int64(int64, int64, int64)", folder=Path(__file__).parent)
def finish(world, time, _):
    """The trace ends: end what is open of host threads, NICs and, last, on cables."""
    s = scribe(world, 0)
    for row in range(1, threads.THREADS + 1):
        if thread(world, row).number:
            threads.end_spans(world, time, row, 0)
            end_slice(world, time, threads.track_of(world, row))
            threads.leave_lane(world, row)
    for k in range(1, s.nics + 1):
        finish_nic(world, k, time)
    packets.cables_until(world, FOR_EVER)
    return 0
