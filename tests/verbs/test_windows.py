"""Memory windows of both types: what they open, for whom and how long."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MWBind, MWBindInfo
from pyverbs.wr import SendWR

from .failures import ERR, NUMBER_OPEN, RTS, gather, rights
from .memory import PAGE, Remote
from .sides import chain, connect, move_to, pair, recv, refusal, request, send, state
from .waiting import successes
from .windows import BINDABLE, RIGHTS, TYPE_1, TYPE_2, window, windows

__all__ = ["windows"]
OK, DENIED = "SUCCESS", "REM_ACCESS_ERR"
TYPES = pytest.mark.parametrize("kind", [TYPE_1, TYPE_2], ids=["type 1", "type 2"])


def bound(this, kind, **options):
    """A window over the target's first page; (the window, its key)."""
    mw = window(this.far, kind)
    status, rkey = this.bind(mw, **options)
    assert status == OK
    return mw, rkey


@TYPES
@pytest.mark.parametrize("operation", ["write", "read", "atomic"])
def test_a_bound_window_opens_its_part_of_the_region(windows, kind, operation):
    this = windows()
    _mw, rkey = bound(this, kind, start=PAGE, length=2 * PAGE)
    assert this.ask(operation, rkey, at=PAGE + 64) == OK
    before = this.before[1]
    after = this.target.bytes()
    assert after[: PAGE + 64] == before[: PAGE + 64]
    assert after[PAGE + 72 :] == before[PAGE + 72 :]
    if operation == "write":
        assert after[PAGE + 64 : PAGE + 72] == this.source.bytes(0, 8)
    if operation == "read":
        assert this.source.bytes(0, 8) == before[PAGE + 64 : PAGE + 72]
    if operation == "atomic":
        old = int.from_bytes(before[PAGE + 64 : PAGE + 72], "little")
        assert after[PAGE + 64 : PAGE + 72] == ((old + 1) % 2**64).to_bytes(8, "little")
        assert this.source.bytes(0, 8) == before[PAGE + 64 : PAGE + 72]


@TYPES
def test_a_whole_window_is_written_in_one_message(windows, kind):
    this = windows()
    _mw, rkey = bound(this, kind, start=100, length=3 * PAGE)
    assert this.ask("write", rkey, at=100, length=3 * PAGE) == OK
    before = this.before[1]
    assert this.target.bytes() == before[:100] + this.source.bytes(0, 3 * PAGE) + before[100 + 3 * PAGE :]


@TYPES
def test_binding_gives_the_window_another_key(windows, kind):
    this = windows()
    mw = window(this.far, kind)
    before = mw.rkey
    status, rkey = this.bind(mw)
    assert (status, rkey >> 8) == (OK, before >> 8)
    assert rkey != before


@TYPES
def test_a_window_that_is_not_bound_opens_nothing(windows, kind):
    this = windows()
    mw = window(this.far, kind)
    assert this.ask("write", mw.rkey) == DENIED
    this.nothing_changed()


@TYPES
def test_the_key_of_before_the_bind_opens_nothing(windows, kind):
    this = windows()
    mw = window(this.far, kind)
    old = mw.rkey
    this.bind(mw)
    assert this.ask("write", old) == DENIED
    this.nothing_changed()


@TYPES
@pytest.mark.parametrize("operation", ["write", "read"])
@pytest.mark.parametrize("at, length", [(99, 8), (100 + PAGE - 7, 8), (100 + PAGE, 1), (0, 8), (2 * PAGE, 8)])
def test_what_is_in_the_region_but_not_in_the_window_is_closed(windows, accept, kind, operation, at, length):
    this = windows()
    _mw, rkey = bound(this, kind, start=100, length=PAGE)
    accept("status", this.ask(operation, rkey, at=at, length=length), spec=DENIED, rxe=OK,
           why="rxe is wrong: it checks the range of the region behind the window, not the window's own; IBA 10.6.7.2 "
               "(recalled): a window limits access to the range it is bound to")  # fmt: skip
    if state(this.a) == ERR:
        this.nothing_changed()


@TYPES
@pytest.mark.parametrize("at, length", [(-8, 8), (4 * PAGE - 7, 8), (4 * PAGE, 1)])
def test_what_is_not_in_the_region_is_closed(windows, kind, at, length):
    this = windows()
    _mw, rkey = bound(this, kind, start=0, length=4 * PAGE)
    assert this.ask("write", rkey, at=at, length=length) == DENIED
    this.nothing_changed()


@TYPES
@pytest.mark.parametrize("operation, names", [
    ("write", "REMOTE_READ REMOTE_ATOMIC"), ("read", "REMOTE_WRITE REMOTE_ATOMIC"),
    ("atomic", "REMOTE_READ REMOTE_WRITE"), ("write", ""), ("read", ""),
])  # fmt: skip
def test_a_right_that_the_window_has_not_is_refused(windows, kind, operation, names):
    this = windows()
    _mw, rkey = bound(this, kind, rights=rights(names))
    assert this.ask(operation, rkey) == DENIED
    this.nothing_changed()


@TYPES
def test_a_window_opens_what_the_region_itself_does_not(windows, kind):
    """Remote rights are the window's; the region needs MW_BIND, and LOCAL_WRITE for what changes it."""
    this = windows(access=BINDABLE)
    mw, rkey = bound(this, kind)
    assert this.ask("write", rkey) == OK
    assert this.ask("write", this.target.rkey) == DENIED
    assert mw.rkey


def test_type_1_is_bound_to_nothing_by_length_0(windows):
    this = windows()
    mw, rkey = bound(this, TYPE_1)
    status, new = this.bind(mw, length=0, rights=0)
    assert status == OK
    assert this.ask("write", rkey) == DENIED
    this.nothing_changed()
    assert new != rkey


def test_type_1_is_bound_anew_to_another_range(windows):
    this = windows()
    mw, first = bound(this, TYPE_1, start=0, length=PAGE)
    status, second = this.bind(mw, start=2 * PAGE, length=PAGE)
    assert status == OK
    assert this.ask("write", second, at=2 * PAGE) == OK
    assert this.target.bytes(2 * PAGE, 8) == this.source.bytes(0, 8)
    assert this.ask("write", first, at=0) == DENIED
    assert this.target.bytes(0, 2 * PAGE) == this.before[1][: 2 * PAGE]


def test_type_1_is_bound_anew_to_another_region(windows, far):
    this = windows()
    other = far.region(1, BINDABLE)
    other.fill(5)
    mw, _first = bound(this, TYPE_1)
    status, second = this.bind(mw, region=other, length=PAGE)
    assert status == OK
    assert this.ask("write", second, at=other.address - this.target.address) == OK
    assert other.bytes(0, 8) == this.source.bytes(0, 8)
    this.target.mr.close()


def test_type_1_serves_every_qp_of_its_pd(windows, near, far):
    this = windows()
    _mw, rkey = bound(this, TYPE_1)
    c, _d = pair(near, far)
    assert this.ask("write", rkey, qp=c) == OK
    assert this.target.bytes(0, 8) == this.source.bytes(0, 8)


def test_type_2_serves_only_the_qp_that_bound_it(windows, near, far):
    this = windows()
    _mw, rkey = bound(this, TYPE_2)
    c, d = pair(near, far)
    assert this.ask("write", rkey, qp=c) == DENIED
    this.nothing_changed()
    assert (state(d), state(this.b)) == (ERR, RTS)
    assert this.ask("write", rkey) == OK


def test_type_2_is_closed_by_a_local_invalidate(windows):
    this = windows()
    _mw, rkey = bound(this, TYPE_2)
    assert this.invalidate(rkey) == OK
    assert this.ask("write", rkey) == DENIED
    this.nothing_changed()


def test_type_2_is_closed_by_a_send_with_invalidate(windows, far, near):
    this = windows()
    _mw, rkey = bound(this, TYPE_2)
    recv(this.b, this.target.sge(PAGE, 64), wr_id=7)
    send(this.a, this.source.sge(0, 8), invalidate=rkey, wr_id=1)
    successes(near.cq, 1)
    (done,) = successes(far.cq, 1)
    assert (done.wr_id, done.imm_data) == (7, rkey)
    before = this.target.bytes()
    assert this.ask("write", rkey) == DENIED
    assert this.target.bytes() == before


def test_requests_before_the_invalidate_still_go_through(windows, near, far):
    """WRITE, then SEND with invalidate, in one train: the order of the wire."""
    this = windows()
    _mw, rkey = bound(this, TYPE_2)
    recv(this.b, this.target.sge(PAGE, 64), wr_id=7)
    write = request(e.IBV_WR_RDMA_WRITE, this.source.sge(0, 3000), Remote(this.target.address, rkey), wr_id=1)
    this.a.post_send(chain(write, request(e.IBV_WR_SEND_WITH_INV, this.source.sge(0, 8), imm=rkey, wr_id=2)))
    assert gather(near.cq, 2) == [(1, OK), (2, OK)]
    assert successes(far.cq, 1)[0].wr_id == 7
    assert this.target.bytes(0, 3000) == this.source.bytes(0, 3000)


@TYPES
def test_a_closed_window_opens_nothing(windows, kind):
    this = windows()
    mw, rkey = bound(this, kind)
    mw.close()
    assert this.ask("write", rkey) == DENIED
    this.nothing_changed()


@TYPES
def test_a_region_is_not_deregistered_under_its_window(windows, accept, kind):
    """IBA 10.6.6.2.4 (recalled): deregistering a region with windows bound to it is an error."""
    this = windows()
    mw, rkey = bound(this, kind)
    answer = refusal(this.target.mr.close)
    accept("errno", answer, spec={"EBUSY", "EINVAL"}, why=NUMBER_OPEN)
    assert this.ask("write", rkey) == OK
    mw.close()
    this.target.mr.close()


def test_two_windows_over_the_same_bytes_have_rights_of_their_own(windows):
    this = windows()
    _reads, rkey_reads = bound(this, TYPE_1, rights=rights("REMOTE_READ"))
    _writes, rkey_writes = bound(this, TYPE_1, rights=rights("REMOTE_WRITE"))
    assert this.ask("write", rkey_writes) == OK
    assert this.ask("read", rkey_reads, at=64) == OK
    assert this.target.bytes(0, 8) != this.before[1][:8]
    assert this.ask("write", rkey_reads, at=128) == DENIED
    assert this.target.bytes(64) == this.before[1][64:]


def test_a_window_of_the_failed_qp_serves_it_after_reset(windows, accept):
    """A type 2 window belongs to its QP as long as it is bound."""
    this = windows()
    _mw, rkey = bound(this, TYPE_2)
    move_to(this.b, e.IBV_QPS_RESET), move_to(this.a, e.IBV_QPS_RESET)
    connect(this.a, this.b)
    accept("status", this.ask("write", rkey), spec={OK, DENIED},
           why="left open: IBA 10.6.7.2.2 (recalled) leaves it to the device whether RESET unbinds")  # fmt: skip


def test_bind_mw_is_for_type_1_only(windows):
    this = windows()
    mw = window(this.far, TYPE_2)
    info = MWBindInfo(this.target.mr, this.target.address, PAGE, RIGHTS)
    assert refusal(this.b.bind_mw, mw, MWBind(info, e.IBV_SEND_SIGNALED)) == "EINVAL"


def test_an_unsignaled_bind_has_no_completion(windows, far):
    this = windows()
    mw = window(this.far, TYPE_2)
    wr = SendWR(wr_id=1, opcode=e.IBV_WR_BIND_MW, send_flags=0)
    wr.set_bind_wr(mw, MWBindInfo(this.target.mr, this.target.address, PAGE, RIGHTS))
    this.b.post_send(wr)
    assert gather(far.cq, 0) == []
    assert this.ask("write", wr.rkey) == OK
