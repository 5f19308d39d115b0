# mypy: ignore-errors
"""QPs: a track for each, its work requests as slices on lanes below it, and what its send queue waits for."""

from nicemu._jit import jit
from nicemu.abi.verbs import QpState
from nicemu.observe.perfetto.proto import BEGIN, END, INSTANT, NAME_IID, field, put_flow, put_text
from nicemu.observe.perfetto.rows import (
    begin_raw,
    close_name,
    end_raw,
    high,
    iid_of,
    low,
    open_name,
    put_size,
    raw,
    shape_of,
    shown,
    time_of,
    word,
)
from nicemu.observe.perfetto.state import LANES, fault, names_field, nic, qp, scribe, seen, shape, wr
from nicemu.observe.perfetto.tracks import bit, count, end_slice, gauge, lowest_free, new_track
from nicemu.observe.perfetto.words import WORDS, Gauge
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.trace import Ev

QP_NAME, WAITS_NAME, LANE_NAME = WORDS["QP "], WORDS["waits"], WORDS["WR lane "]
UNITS, SEND = WORDS[" B"], WORDS["SEND"]
WRS, FAULTS = int(Gauge.WRS), int(Gauge.FAULTS)
RNR_WAIT, SQ_HELD = int(Ev.RNR_WAIT), int(Ev.SQ_HELD)
RESET, INIT, ERR = int(QpState.RESET), int(QpState.INIT), int(QpState.ERR)
POSTED_AT_ONCE = 16
"""Work requests of one doorbell from which an arrow starts."""


@jit
def row_of(world, nic_number, qpn):
    """Row of QP; 0, the null object, if there is no such QP."""
    s = scribe(world, 0)
    return 1 + (nic_number - 1) * s.qps + qpn if 0 < nic_number <= s.nics and 0 < qpn < s.qps else 0


@jit
def track_of(world, nic_number, qpn):
    """A QP's track, made when first needed."""
    q = qp(world, row_of(world, nic_number, qpn))
    if q.track == 0:
        s = scribe(world, 0)
        s.seen += 1
        seen(world, s.seen).qp = row_of(world, nic_number, qpn)
        q.track = new_track(world, nic(world, nic_number).first, QP_NAME, qpn, 100 + qpn)
        q.waits = new_track(world, q.track, WAITS_NAME, -1, 0)
    return q.track


@jit
def flow_of(world, q_row, index):
    """The flow of a work request."""
    return q_row << 36 | (qp(world, q_row).life & 255) << 28 | index & 0xFFFFFFF


@jit
def lane_row(q_row, lane):
    """Row of WR of a lane."""
    return q_row * LANES + lane


@jit
def find_index(world, q_row, index):
    """Row of WR of the open work request ``index``, 0: it has no lane."""
    q = qp(world, q_row)
    guess = lane_row(q_row, index & (LANES - 1))
    if q.lanes == 0 or (wr(world, guess).open and wr(world, guess).index == index):
        return guess if q.lanes else 0
    for k in range(LANES):
        w = wr(world, lane_row(q_row, k))
        if w.open and w.index == index:
            return lane_row(q_row, k)
    return 0


@jit
def is_at(w, psn, last):
    """The packet of ``psn`` is a work request's first one, or its last one."""
    return w.open != 0 and (w.last_psn if last else w.first_psn) == psn


@jit
def find_psn(world, q_row, psn, last):
    """The flow of the open work request that begins, or ends, with ``psn``; 0: none."""
    q = qp(world, q_row)
    for step in range(LANES):
        if q.lanes == 0:
            return 0
        k = (q.hint + step) & (LANES - 1)
        if (q.lanes >> k) & 1 and is_at(wr(world, lane_row(q_row, k)), psn, last):
            q.hint = k
            return wr(world, lane_row(q_row, k)).flow
    return 0


@jit
def posted(world, r):
    """``doorbell`` of the host: arrows start here, one for each work request, as far as there are few."""
    sh = shape(world, shape_of(world, r))
    q_row = row_of(world, word(world, r, 1) + 1, word(world, r, 3))
    at = field(begin_raw(world, r, INSTANT, sh.place), NAME_IID, shown(world, r, sh))
    if q_row == 0 or word(world, r, 2) != SEND:
        end_raw(world, r, at, 0)
        return
    q = qp(world, q_row)
    end = word(world, r, 4)
    for index in range(q.posted, min(end, q.posted + POSTED_AT_ONCE)):
        at = put_flow(at, flow_of(world, q_row, index))
    q.announced = max(q.announced, min(end, q.posted + POSTED_AT_ONCE))
    q.posted = max(end, q.posted)
    end_raw(world, r, at, 0)


@jit
def put_operation(world, r, at):
    """``RDMA_WRITE 64 KiB``: the third field of a WQE names its operation, the fifth is its bytes."""
    start = at = open_name(at)
    operation = names_field(world, shape(world, shape_of(world, r)).first + 2)
    iid = iid_of(world, operation, low(word(world, r, 2)))
    if iid:
        at = put_text(world, at, iid)
    return close_name(start, put_size(world, at, low(word(world, r, 3)), UNITS))


@jit
def lane_for(world, nic_number, q_row, index):
    """A lane for a work request: its row of WR; 0: all are in use."""
    q = qp(world, q_row)
    k = lowest_free(q.lanes)
    if k < 0:
        return 0
    row = lane_row(q_row, k)
    if wr(world, row).track == 0:
        wr(world, row).track = new_track(world, q.track, LANE_NAME, k, 10 + k)
    q.lanes |= bit(k)
    return row


@jit
def fetched(world, r, nic_number):
    """WQE: a slice on the lowest free lane of its QP, until it is retired."""
    qpn, index = word(world, r, 0), word(world, r, 1)
    track = track_of(world, nic_number, qpn)
    q_row = row_of(world, nic_number, qpn)
    row = lane_for(world, nic_number, q_row, index) if q_row else 0
    flow = flow_of(world, q_row, index)
    qp(world, q_row).announced = max(qp(world, q_row).announced, index + 1)
    if row == 0:
        raw(world, r, INSTANT, track, flow)
        return
    w = wr(world, row)
    w.open = 1
    w.index = index
    w.first_psn = high(word(world, r, 2))
    w.last_psn = high(word(world, r, 3))
    w.flow = flow
    end_raw(world, r, put_operation(world, r, begin_raw(world, r, BEGIN, w.track)), flow)
    count(world, time_of(world, r), gauge(nic_number, WRS), 1)


@jit
def retired(world, r, nic_number):
    """WQE_DONE: the slice ends."""
    qpn, index = word(world, r, 0), word(world, r, 1)
    q_row = row_of(world, nic_number, qpn)
    row = find_index(world, q_row, index) if q_row else 0
    if row == 0:
        raw(world, r, INSTANT, track_of(world, nic_number, qpn), 0)
        return
    raw(world, r, END, wr(world, row).track, 0)
    free_lane(world, time_of(world, r), nic_number, row)


@jit
def free_lane(world, time, nic_number, row):
    """A lane is free again."""
    w = wr(world, row)
    w.open = 0
    q = qp(world, row // LANES)
    q.lanes &= ~bit(row % LANES)
    count(world, time, gauge(nic_number, WRS), -1)


@jit
def start_wait(world, r, nic_number, kind):
    """RNR_WAIT, SQ_HELD: the send queue waits; the latter is told again and again. A wait ends what was before it."""
    qpn = word(world, r, 0)
    track_of(world, nic_number, qpn)
    q = qp(world, row_of(world, nic_number, qpn))
    if (q.waiting == kind and kind == SQ_HELD) or (q.waiting == RNR_WAIT and kind == SQ_HELD):
        raw(world, r, INSTANT, q.waits, 0)
        return
    end_wait(world, time_of(world, r), q, kind)
    q.waiting = kind
    raw(world, r, BEGIN, q.waits, 0)


@jit
def end_wait(world, time, q, kind):
    """The wait that is drawn is over; ``kind``: only if it is of this kind, 0: of any."""
    if q.waiting and (kind == 0 or kind == RNR_WAIT or q.waiting == kind):
        end_slice(world, time, q.waits)
        q.waiting = 0


@jit
def rnr_over(world, r, nic_number):
    """RNR_OVER."""
    qpn = word(world, r, 0)
    track_of(world, nic_number, qpn)
    q = qp(world, row_of(world, nic_number, qpn))
    raw(world, r, END if q.waiting == RNR_WAIT else INSTANT, q.waits, 0)
    if q.waiting == RNR_WAIT:
        q.waiting = 0


@jit
def changed(world, r, nic_number):
    """QP_STATE: an instant; in RESET, INIT and ERR nothing of the old life goes on."""
    qpn, state = word(world, r, 0), word(world, r, 1)
    raw(world, r, INSTANT, track_of(world, nic_number, qpn), 0)
    q_row = row_of(world, nic_number, qpn)
    q = qp(world, q_row)
    if state in (RESET, INIT, ERR):
        end_wait(world, time_of(world, r), q, 0)
    if state in (RESET, INIT) and (q.lanes != 0 or q.posted != 0 or q.life == 0):
        close_all(world, time_of(world, r), nic_number, q_row)
        q.life += 1
        q.posted = q.announced = 0


@jit
def close_all(world, time, nic_number, q_row):
    """End every slice of a QP."""
    for k in range(LANES):
        w = wr(world, lane_row(q_row, k))
        if w.open:
            end_slice(world, time, w.track)
            free_lane(world, time, nic_number, lane_row(q_row, k))
    for kind in range(FAULTS_PER_QP):
        f = fault(world, q_row * FAULTS_PER_QP + kind)
        if f.open:
            f.open = 0
            end_slice(world, time, f.track)
            count(world, time, gauge(nic_number, FAULTS), -1)


@jit
def connected(world, r, nic_number):
    """QP_PATH: whose packets come, and where ours go."""
    qpn = word(world, r, 0)
    raw(world, r, INSTANT, track_of(world, nic_number, qpn), 0)
    qp(world, row_of(world, nic_number, qpn)).peer = row_of(world, word(world, r, 1) + 1, word(world, r, 2))


@jit
def mark(world, r, nic_number):
    """An instant on the QP's track: RETRANSMIT, TIMEOUT and the like."""
    raw(world, r, INSTANT, track_of(world, nic_number, word(world, r, 0)), 0)
