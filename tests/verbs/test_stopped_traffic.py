"""What is taken away in the middle of traffic is not touched any more once the call that took it away has returned."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.qp import QPAttr

from .failures import ERR, FAST, FLUSHED, PATIENT, break_by_hand, gather, restart
from .memory import PAGE, Remote
from .sides import connect, pair, read, recv, send, state, write
from .waiting import leftovers, successes
from .windows import TYPE_1, TYPE_2, window, windows

__all__ = ["windows"]
COUNT, LENGTH, BEGUN = 40, 4 * PAGE, 5
"""Requests of a train, their bytes (all go to one place, so that a late one would be seen), and those done first."""


def writes(a, source, remote):
    """A train of WRITEs to one place, from four."""
    for wr_id in range(COUNT):
        write(a, source.sge((wr_id % 4) * PAGE, LENGTH), remote, wr_id=wr_id)


def reads(a, target, remote):
    """A train of READs into one place, from four."""
    for wr_id in range(COUNT):
        read(a, target.sge(0, LENGTH), Remote(remote.address + (wr_id % 4) * PAGE, remote.rkey), wr_id=wr_id)


def begun(side):
    """The first requests are done, the others are on their way."""
    assert [each.wr_id for each in successes(side.cq, BEGUN)] == list(range(BEGUN))


def in_order(done, *failures):
    """Successes, then at most one of `failures`, then flushes; each request once and in order."""
    assert [wr_id for wr_id, _ in done] == list(range(BEGUN, COUNT))
    names = [name for _, name in done]
    while names and names[0] == "SUCCESS":
        names.pop(0)
    if names:
        assert names[0] in {*failures, FLUSHED}
    assert set(names[1:]) <= {FLUSHED}


def stays(region, *cqs):
    """The region keeps its contents while everything that is on its way arrives."""
    before = region.bytes()
    for cq in cqs:
        leftovers(cq, 10)
    assert region.bytes() == before


@pytest.mark.parametrize("traffic", ["writes", "reads"])
def test_a_peer_destroyed_in_the_middle_of_traffic(near, far, traffic):
    a, b = pair(near, far, **FAST)
    mine, its = near.region(8), far.region(8)
    mine.fill(1), its.fill(2)
    writes(a, mine, its.remote()) if traffic == "writes" else reads(a, mine, its.remote())
    begun(near)
    b.close()
    before = its.bytes()
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "RETRY_EXC_ERR")
    assert its.bytes() == before


@pytest.mark.parametrize("how", ["error", "reset", "destroyed"])
def test_a_responder_that_is_stopped_is_not_written_any_more(near, far, how):
    a, b = pair(near, far, **FAST)
    source, target = near.region(8), far.region(8)
    source.fill(1), target.fill(2)
    writes(a, source, target.remote())
    begun(near)
    {"error": break_by_hand, "reset": restart, "destroyed": lambda qp: qp.close()}[how](b)
    before = target.bytes()
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "RETRY_EXC_ERR")
    assert target.bytes() == before


@pytest.mark.parametrize("how", ["error", "reset", "destroyed"])
def test_a_requester_that_is_stopped_reads_nothing_more(near, far, how):
    a, _b = pair(near, far, **PATIENT)
    target, source = near.region(8), far.region(8)
    target.fill(1), source.fill(2)
    reads(a, target, source.remote())
    begun(near)
    {"error": break_by_hand, "reset": restart, "destroyed": lambda qp: qp.close()}[how](a)
    stays(target, near.cq, far.cq)


def test_to_err_in_the_middle_of_traffic(near, far):
    a, b = pair(near, far, **PATIENT)
    source, target = near.region(8), far.region(8)
    writes(a, source, target.remote())
    begun(near)
    break_by_hand(a)
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5))
    assert (state(a), state(b)) == (ERR, "RTS")


def test_reset_in_the_middle_of_traffic_leaves_a_qp_that_can_start_anew(near, far):
    a, b = pair(near, far, **FAST)
    source, target = near.region(8), far.region(8)
    source.fill(1)
    writes(a, source, target.remote())
    begun(near)
    restart(a)
    gather(near.cq, 0)
    restart(b)
    connect(a, b, **PATIENT)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(), wr_id=100)
    assert [each.wr_id for each in successes(near.cq, 1)] == [100]
    assert [each.wr_id for each in successes(far.cq, 1)] == [7]
    assert target.bytes() == source.bytes()


def test_a_region_deregistered_in_the_middle_of_writes_to_it(near, far):
    a, _b = pair(near, far, **PATIENT)
    source, target = near.region(8), far.region(8)
    source.fill(1), target.fill(2)
    writes(a, source, target.remote())
    begun(near)
    target.mr.close()
    before = target.bytes()
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "REM_ACCESS_ERR")
    assert target.bytes() == before


def test_a_region_deregistered_in_the_middle_of_reads_from_it(near, far):
    """What a READ brought is from the region, or nothing: never bytes of somebody else."""
    a, _b = pair(near, far, **PATIENT)
    target, source = near.region(8), far.region(8)
    target.fill(1), source.fill(2)
    reads(a, target, source.remote())
    begun(near)
    source.mr.close()
    source.fill(bytes(source.length))
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "REM_ACCESS_ERR")
    assert bytes(64) not in target.bytes()


def test_a_region_deregistered_in_the_middle_of_reads_into_it(near, far):
    a, _b = pair(near, far, **PATIENT)
    target, source = near.region(8), far.region(8)
    target.fill(1), source.fill(2)
    reads(a, target, source.remote())
    begun(near)
    target.mr.close()
    before = target.bytes()
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "LOC_PROT_ERR")
    assert target.bytes() == before


def test_a_region_deregistered_in_the_middle_of_receives_into_it(near, far, accept):
    a, b = pair(near, far, **PATIENT)
    source, target = near.region(8), far.region(8)
    source.fill(1), target.fill(2)
    for wr_id in range(COUNT):
        recv(b, target.sge(0, LENGTH), wr_id=wr_id)
    for wr_id in range(COUNT):
        send(a, source.sge((wr_id % 4) * PAGE, LENGTH), wr_id=wr_id)
    begun(near)
    target.mr.close()
    before = target.bytes()
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "REM_OP_ERR")
    done = gather(far.cq, COUNT, 0.5)
    accept("receives, in their order", [wr_id for wr_id, _ in done], spec=list(range(COUNT)))
    assert target.bytes() == before


@pytest.mark.parametrize("kind", [TYPE_1, TYPE_2], ids=["type 1", "type 2"])
def test_a_window_closed_in_the_middle_of_writes_through_it(windows, kind):
    this = windows()
    mw = window(this.far, kind)
    status, rkey = this.bind(mw, length=2 * PAGE)
    assert status == "SUCCESS"
    for wr_id in range(COUNT):
        write(this.a, this.source.sge((wr_id % 2) * PAGE, 2 * PAGE), Remote(this.target.address, rkey), wr_id=wr_id)
    begun(this.near)
    mw.close()
    before = this.target.bytes()
    in_order(gather(this.near.cq, COUNT - BEGUN, seconds=5), "REM_ACCESS_ERR")
    assert this.target.bytes() == before


def test_a_window_invalidated_in_the_middle_of_writes_through_it(windows):
    """Once LOCAL_INV has completed, its key opens nothing."""
    this = windows()
    mw = window(this.far, TYPE_2)
    status, rkey = this.bind(mw, length=2 * PAGE)
    assert status == "SUCCESS"
    for wr_id in range(COUNT):
        write(this.a, this.source.sge((wr_id % 2) * PAGE, 2 * PAGE), Remote(this.target.address, rkey), wr_id=wr_id)
    begun(this.near)
    assert this.invalidate(rkey) == "SUCCESS"
    before = this.target.bytes()
    in_order(gather(this.near.cq, COUNT - BEGUN, seconds=5), "REM_ACCESS_ERR")
    assert this.target.bytes() == before


def test_a_qp_right_taken_away_in_the_middle_of_writes(near, far):
    """A QP changes what it serves in RTS: once modify has returned, no WRITE begins."""
    a, b = pair(near, far, **PATIENT)
    source, target = near.region(8), far.region(8)
    writes(a, source, target.remote())
    begun(near)
    attr = QPAttr()
    attr.qp_access_flags = e.IBV_ACCESS_LOCAL_WRITE
    b.modify(attr, e.IBV_QP_ACCESS_FLAGS)
    in_order(gather(near.cq, COUNT - BEGUN, seconds=5), "REM_INV_REQ_ERR")
    write(a, source.sge(0, 8), target.remote(), wr_id=99) if state(a) != ERR else None
    assert state(a) == ERR or gather(near.cq, 1) == [(99, "REM_INV_REQ_ERR")]
