# mypy: ignore-errors
"""Page faults: a slice for each on a track of its QP, and the arrows from the fault over driver and mm to its end."""

from nicemu._jit import jit
from nicemu.abi.rings import EqeType, Eqn
from nicemu.observe.perfetto.proto import BEGIN, INSTANT, NAME_IID, field, put_decimal, put_flow, put_text
from nicemu.observe.perfetto.queue_pairs import row_of, track_of
from nicemu.observe.perfetto.rows import (
    begin_raw,
    close_name,
    end_raw,
    iid_of,
    low,
    open_name,
    raw,
    shape_of,
    shown,
    time_of,
    word,
)
from nicemu.observe.perfetto.state import WORKS, fault, names_field, nic, scribe, shape, work
from nicemu.observe.perfetto.tracks import count, end_slice, gauge, new_track
from nicemu.observe.perfetto.words import WORDS, Gauge
from nicemu.tables.records import FAULTS_PER_QP

PAGE_FAULT, VECTOR, FAULTS = int(EqeType.PAGE_FAULT), int(Eqn.PAGE_FAULT), int(Gauge.FAULTS)
FAULT_NAME, ON_MR, ON_PAGE = WORDS["fault "], WORDS["page fault MR "], WORDS[" page "]
FLOWS = 1 << 62
"""Flows of faults are beyond those of work requests."""


@jit
def fault_row(world, nic_number, qpn, kind):
    """Row of FAULT of a class of faults of a QP, 0 if there is no such QP."""
    q_row = row_of(world, nic_number, qpn)
    return q_row * FAULTS_PER_QP + (kind & (FAULTS_PER_QP - 1)) if q_row else 0


@jit
def put_place(world, r, at):
    """``page fault MR 3 page 7``."""
    start = open_name(at)
    at = put_decimal(put_text(world, start, ON_MR), word(world, r, 2))
    return close_name(start, put_decimal(put_text(world, at, ON_PAGE), word(world, r, 3)))


@jit
def raised(world, r, nic_number):
    """FAULT: a slice on the QP's track for such faults."""
    kind, qpn = word(world, r, 0), low(word(world, r, 1))
    qp_track = track_of(world, nic_number, qpn)
    row = fault_row(world, nic_number, qpn, kind)
    f = fault(world, row)
    if f.track == 0:
        iid = iid_of(world, names_field(world, shape(world, shape_of(world, r)).first), kind)
        f.track = new_track(world, qp_track, iid if iid else FAULT_NAME, -1, 1 + kind)
    if f.open:
        end_slice(world, time_of(world, r), f.track)
        count(world, time_of(world, r), gauge(nic_number, FAULTS), -1)
    s = scribe(world, 0)
    s.faults += 1
    f.open = 1
    f.flow = FLOWS + s.faults
    f.mkey = word(world, r, 2)
    f.page = word(world, r, 3)
    end_raw(world, r, put_place(world, r, begin_raw(world, r, BEGIN, f.track)), f.flow)
    count(world, time_of(world, r), gauge(nic_number, FAULTS), 1)


@jit
def reported(world, r, nic_number, track):
    """EQE: the arrow of a page fault goes on to it, and from it to the next interrupt of that queue."""
    flow = 0
    if word(world, r, 1) == PAGE_FAULT:
        data = word(world, r, 3)
        f = fault(world, fault_row(world, nic_number, low(data), data >> 32))
        n = nic(world, nic_number)
        flow = f.flow if f.open else 0
        if flow and n.reported < WORKS:
            work(world, (2 * nic_number + 1) * WORKS + n.reported).fault = flow
            n.reported += 1
    raw(world, r, INSTANT, track, flow)


@jit
def interrupted(world, r, nic_number, track):
    """INTERRUPT: of the page-fault queue: for all that was reported."""
    n = nic(world, nic_number)
    if word(world, r, 0) != VECTOR or word(world, r, 1):
        raw(world, r, INSTANT, track, 0)
        return
    at = begin_raw(world, r, INSTANT, track)
    at = field(at, NAME_IID, shown(world, r, shape(world, shape_of(world, r))))
    for k in range(n.reported):
        at = put_flow(at, work(world, (2 * nic_number + 1) * WORKS + k).fault)
    n.reported = 0
    end_raw(world, r, at, 0)


@jit
def taken_up(world, nic_number, row):
    """The driver works at a fault."""
    for k in range(2 * nic_number * WORKS, (2 * nic_number + 1) * WORKS):
        if work(world, k).fault == 0:
            work(world, k).fault = row
            return


@jit
def updated(world, r, nic_number, track):
    """MTT_UPDATE: the arrow of the fault that is being worked at and whose page is among those."""
    flow = 0
    for k in range(2 * nic_number * WORKS, (2 * nic_number + 1) * WORKS):
        f = fault(world, work(world, k).fault)
        page = f.page - word(world, r, 1)
        if work(world, k).fault and f.open and f.mkey == word(world, r, 0) and 0 <= page < word(world, r, 2):
            flow = f.flow
    raw(world, r, INSTANT, track, flow)


@jit
def resumed(world, r, nic_number, track):
    """RESUME: the slice ends, and the arrow."""
    row = fault_row(world, nic_number, word(world, r, 1), word(world, r, 0))
    f = fault(world, row)
    raw(world, r, INSTANT, track, f.flow if f.open else 0)
    for k in range(2 * nic_number * WORKS, (2 * nic_number + 1) * WORKS):
        if work(world, k).fault == row:
            work(world, k).fault = 0
    if f.open:
        f.open = 0
        end_slice(world, time_of(world, r), f.track)
        count(world, time_of(world, r), gauge(nic_number, FAULTS), -1)
