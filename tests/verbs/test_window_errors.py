"""Binds and invalidations that are refused: the QP fails, the window stays as it was."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MWBindInfo
from pyverbs.pd import PD
from pyverbs.wr import SendWR

from .failures import CALL_OR_COMPLETION, ERR, FLUSHED, FLUSHES_ITSELF, RTS, gather, outcome, per_queue, rights
from .memory import ALL, PAGE
from .sides import connect, move_to, pair, recv, refusal, send, state
from .windows import BINDABLE, RIGHTS, TYPE_1, TYPE_2, window, windows

__all__ = ["windows"]
OK, REFUSED = "SUCCESS", "MW_BIND_ERR"
BIND = f"in the call or as a completion is left open; {FLUSHES_ITSELF}"
NOT_ITS_OWN = (
    "rxe is wrong: it invalidates a window that another QP bound; a type 2B window may only be invalidated through the "
    "QP that it is bound to (IBA 10.6.7.2.4, recalled)"
)
NO_EVENT = (
    "rxe is wrong: a responder's error that no NAK tells of is an affiliated asynchronous error (IBA 9.9.3, recalled)"
)
TYPES = pytest.mark.parametrize("kind", [TYPE_1, TYPE_2], ids=["type 1", "type 2"])


def refused(this, accept, mw, **options):
    """The bind fails, in the call or as a completion: then B is in ERR."""
    answer = []
    observed = refusal(lambda: answer.append(this.bind(mw, **options)))
    completed = observed == "accepted"
    if completed:
        observed = answer[0][0]
    accept("the bind", observed, spec={REFUSED, "EINVAL", "EPERM"}, rxe=FLUSHED, why=BIND)
    assert state(this.b) == (ERR if completed else RTS)


@TYPES
@pytest.mark.parametrize("start, length", [(-1, PAGE), (3 * PAGE + 1, PAGE), (0, 4 * PAGE + 1), (4 * PAGE, 1)])
def test_a_range_that_is_not_all_inside_the_region(windows, accept, kind, start, length):
    this = windows()
    refused(this, accept, window(this.far, kind), start=start, length=length)


@TYPES
def test_a_region_without_the_right_to_bind(windows, accept, kind):
    this = windows(access=ALL)
    refused(this, accept, window(this.far, kind))


@TYPES
@pytest.mark.parametrize("right", ["REMOTE_WRITE", "REMOTE_ATOMIC"])
def test_a_window_that_writes_needs_a_region_with_local_write(windows, accept, kind, right):
    this = windows(access=e.IBV_ACCESS_MW_BIND)
    refused(this, accept, window(this.far, kind), rights=rights(right))


@TYPES
def test_a_window_that_only_reads_needs_no_local_write(windows, kind):
    this = windows(access=e.IBV_ACCESS_MW_BIND)
    mw = window(this.far, kind)
    status, rkey = this.bind(mw, rights=e.IBV_ACCESS_REMOTE_READ)
    assert status == OK
    assert this.ask("read", rkey, at=8) == OK
    assert this.source.bytes(0, 8) == this.before[1][8:16]


def test_type_2_of_no_bytes(windows, accept):
    """IBA 10.6.7.2.2 (recalled): a type 2 window is unbound by invalidation, not by a bind of length 0."""
    this = windows()
    refused(this, accept, window(this.far, TYPE_2), length=0)


def test_type_2_that_is_bound_already(windows, accept):
    """Its first range stays open."""
    this = windows()
    mw = window(this.far, TYPE_2)
    _status, rkey = this.bind(mw)
    c, d = pair(this.near, this.far)
    accept("the second bind", this.bind(mw, start=2 * PAGE, qp=d)[0], spec=REFUSED, rxe=FLUSHED, why=BIND)
    assert state(d) == ERR
    assert this.ask("write", rkey) == OK
    assert state(c) == RTS


@TYPES
def test_a_region_of_another_pd(windows, far, accept, kind):
    """IBA C10-72 (as rxe_mw.c cites it): window, region and QP are of one protection domain."""
    this = windows()
    mw = window(far, kind, PD(far.context))
    refused(this, accept, mw)


def test_a_window_s_state_survives_a_refused_bind(windows, accept):
    """Type 1 bound; a second bind fails: the first range is still open under its key, unless the device closed it."""
    this = windows()
    mw = window(this.far, TYPE_1)
    _status, rkey = this.bind(mw)
    refused(this, accept, mw, length=5 * PAGE)
    c, _d = pair(this.near, this.far)
    assert this.ask("write", rkey, qp=c) == OK
    assert this.target.bytes(0, 8) == this.source.bytes(0, 8)


def test_a_refused_bind_flushes_what_stands_behind_it(windows, far, accept):
    this = windows()
    mw = window(far, TYPE_2)
    recv(this.b, this.target.sge(), wr_id=11)
    wr = SendWR(wr_id=1, opcode=e.IBV_WR_BIND_MW, send_flags=e.IBV_SEND_SIGNALED)
    wr.set_bind_wr(mw, MWBindInfo(this.target.mr, this.target.address, 5 * PAGE, RIGHTS))
    this.b.post_send(wr)
    send(this.b, this.target.sge(0, 8), wr_id=2, flags=0)
    done = per_queue(gather(far.cq, 3))
    behind = [(2, FLUSHED), (11, FLUSHED)]
    accept("completions", done, spec=[(1, REFUSED), *behind], rxe=[(1, FLUSHED), *behind], why=BIND)
    assert state(this.a) == RTS


@pytest.mark.parametrize("key", ["no such window", "a region", "type 1"])
def test_a_local_invalidate_of_what_is_no_type_2_window(windows, accept, key):
    this = windows()
    if key == "type 1":
        mw = window(this.far, TYPE_1)
        _status, rkey = this.bind(mw)
    else:
        rkey = 0x7FFF01 if key == "no such window" else this.target.rkey
    accept("status", this.invalidate(rkey), spec="LOC_QP_OP_ERR", rxe=FLUSHED, why=FLUSHES_ITSELF)
    assert state(this.b) == ERR


@pytest.mark.unsafe_on_rxe("invalidating a type 2 window that is not bound follows null pointers in the kernel")
def test_a_local_invalidate_of_a_window_that_is_not_bound(windows, accept):
    this = windows()
    mw = window(this.far, TYPE_2)
    accept("status", this.invalidate(mw.rkey), spec="LOC_QP_OP_ERR", rxe=FLUSHED, why=FLUSHES_ITSELF)
    assert state(this.b) == ERR


@pytest.mark.unsafe_on_rxe("invalidating a type 2 window that is not bound follows null pointers in the kernel")
def test_a_second_local_invalidate_of_a_window(windows, accept):
    this = windows()
    mw = window(this.far, TYPE_2)
    _status, rkey = this.bind(mw)
    assert this.invalidate(rkey) == OK
    accept("status", this.invalidate(rkey), spec="LOC_QP_OP_ERR", rxe=FLUSHED, why=FLUSHES_ITSELF)
    assert state(this.b) == ERR


@pytest.mark.parametrize("key", ["no such window", "a region", "type 1", "another QP's"])
def test_a_send_with_invalidate_of_what_may_not_be_invalidated(windows, accept, near, far, key):
    """IBA 9.9.6.3 class J (as rxe_resp.c has it): the message is acknowledged, the receive fails, B goes to ERR."""
    this = windows()
    if key in ("type 1", "another QP's"):
        mw = window(this.far, TYPE_1 if key == "type 1" else TYPE_2)
        other = pair(near, far)[1] if key != "type 1" else None
        _status, rkey = this.bind(mw, qp=other)
    else:
        rkey = 0x7FFF01 if key == "no such window" else this.target.rkey
    recv(this.b, this.target.sge(PAGE, 64), wr_id=7)
    send(this.a, this.source.sge(0, 8), invalidate=rkey, wr_id=1)
    seen = outcome(this.a, this.b, 1, 1, 1)
    taken = {"rxe": [(7, OK)], "why": NOT_ITS_OWN} if key == "another QP's" else {}
    accept("the receive", seen.far, spec=[(7, "REM_INV_REQ_ERR")], **taken)
    accept("the send", seen.near, spec=[(1, OK)])
    accept("states", seen.states, spec=(RTS, ERR), **(taken and {**taken, "rxe": (RTS, RTS)}))
    accept("events of B", seen.events[1], spec=["QP_ACCESS_ERR"], rxe=[], why=NO_EVENT)
    if key == "type 1":  # still open
        c, _d = pair(near, far)
        assert this.ask("write", rkey, qp=c) == OK


def test_a_window_of_another_pd_is_closed_to_the_qp(windows, near, far):
    """A window of PD 2, bound by a QP of PD 2, asked for through a QP of PD 1."""
    this = windows()
    pd = PD(far.context)
    mw = window(far, TYPE_1, pd)
    old, far.pd = far.pd, pd
    region = far.region(1, BINDABLE)
    region.fill(3)
    before = region.bytes()
    c, d = pair(near, far)
    far.pd = old
    status, rkey = this.bind(mw, region=region, length=PAGE, qp=d)
    assert status == OK
    at = region.address - this.target.address
    assert this.ask("write", rkey, at=at) == "REM_ACCESS_ERR"
    assert region.bytes() == before
    assert this.ask("write", rkey, at=at, qp=c) == OK


@TYPES
def test_a_failed_pair_binds_again_after_reset(windows, accept, kind):
    this = windows()
    refused(this, accept, window(this.far, kind), length=5 * PAGE)
    move_to(this.a, e.IBV_QPS_RESET), move_to(this.b, e.IBV_QPS_RESET)
    connect(this.a, this.b)
    mw = window(this.far, kind)
    status, rkey = this.bind(mw)
    assert status == OK
    assert this.ask("write", rkey) == OK
    mw.close()


def test_a_window_over_a_region_that_is_gone_cannot_be_made(windows, accept):
    """A stale lkey; the window was never bound to it."""
    this = windows()
    mw = window(this.far, TYPE_2)
    wr = SendWR(wr_id=70, opcode=e.IBV_WR_BIND_MW, send_flags=e.IBV_SEND_SIGNALED)
    wr.set_bind_wr(mw, MWBindInfo(this.target.mr, this.target.address, PAGE, RIGHTS))
    this.target.mr.close()
    answer = refusal(this.b.post_send, wr)
    accept("posting it", answer, spec={"accepted", "EINVAL"}, why=CALL_OR_COMPLETION)
    if answer == "accepted":
        accept("status", this.one(this.far, 70), spec=REFUSED, rxe=FLUSHED, why=BIND)
