"""Requests that the peer refuses: the status on both sides, the states, the event, and no byte changed."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QPAttr

from .failures import CALL_OR_COMPLETION, ERR, FLUSHED, PATIENT, check, rights
from .memory import ALL, PAGE, Remote
from .sides import atomic, pair, read, recv, refusal, send, state, write
from .waiting import successes

__all__ = ["check"]
DENIED, INVALID = "REM_ACCESS_ERR", "REM_INV_REQ_ERR"
OPERATIONS = ("write", "read", "atomic")
NO_EVENT = "rxe is wrong: it raises QP_ACCESS_ERR only; IBA 11.6.3.2 (recalled) has an event for an invalid request"


def ask(qp, operation, sge, remote, wr_id=1, **options):
    """Post one of OPERATIONS; an atomic takes 8 bytes."""
    if operation == "atomic":
        atomic(qp, sge, remote, add=1, wr_id=wr_id, **options)
    else:
        {"write": write, "read": read}[operation](qp, sge, remote, wr_id=wr_id, **options)


class Refused:
    """Two connected QPs with memory of known contents, and the rule that none of it changes."""

    def __init__(self, near, far, check, access=ALL, pages=2, **changes):
        self.a, self.b = pair(near, far, **{**PATIENT, **changes})
        self.source, self.target = near.region(pages), far.region(pages, access)
        self.source.fill(1), self.target.fill(2)
        self.check = check
        self._before = self.source.bytes(), self.target.bytes()

    def ask(self, operation, length=8, remote=None, wr_id=1):
        ask(self.a, operation, self.source.sge(0, length), remote or self.target.remote(), wr_id)

    def by_access(self, near=((1, DENIED),), **expected):
        """The peer saw memory that the request may not have."""
        self.check(self.a, self.b, near=near, states=(ERR, ERR), events=([], ["QP_ACCESS_ERR"]), **expected)
        self.nothing_changed()

    def as_invalid(self, near=((1, INVALID),), **expected):
        """The peer saw a request that makes no sense."""
        self.check(self.a, self.b, near=near, states=(ERR, ERR), events=([], ["QP_REQ_ERR"]),
                    rxe={"events": ([], [])}, why=NO_EVENT, **expected)  # fmt: skip
        self.nothing_changed()

    def nothing_changed(self):
        assert (self.source.bytes(), self.target.bytes()) == self._before


@pytest.fixture
def refused(near, far, check):
    return lambda **options: Refused(near, far, check, **options)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_rkey_that_does_not_exist(refused, operation):
    this = refused()
    this.ask(operation, remote=Remote(this.target.address, 0x7FFF01))
    this.by_access()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_rkey_whose_low_byte_is_wrong(refused, operation):
    """The byte that a consumer may choose, and that an old key differs in."""
    this = refused()
    this.ask(operation, remote=Remote(this.target.address, this.target.rkey ^ 1))
    this.by_access()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_region_of_another_pd(refused, far, operation):
    this = refused()
    pd = PD(far.context)
    mr = MR(pd, this.target.length, ALL, address=this.target.address)
    this.ask(operation, remote=Remote(this.target.address, mr.rkey))
    this.by_access()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_region_that_was_deregistered(refused, operation):
    this = refused()
    remote = this.target.remote()
    this.target.mr.close()
    this.ask(operation, remote=remote)
    this.by_access()


@pytest.mark.parametrize("operation, access", [
    ("write", "LOCAL_WRITE REMOTE_READ REMOTE_ATOMIC"), ("read", "LOCAL_WRITE REMOTE_WRITE REMOTE_ATOMIC"),
    ("atomic", "LOCAL_WRITE REMOTE_READ REMOTE_WRITE"), ("write", "LOCAL_WRITE"), ("read", ""),
])  # fmt: skip
def test_a_region_without_the_right(refused, operation, access):
    this = refused(access=rights(access))
    this.ask(operation)
    this.by_access()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_qp_without_the_right(refused, operation):
    """The region would allow it: the QP does not support the operation (IBA 11.6.2, recalled)."""
    this = refused(access=ALL)
    others = " ".join(f"REMOTE_{name.upper()}" for name in OPERATIONS if name != operation)
    attr = QPAttr()
    attr.qp_access_flags = rights(others)
    this.b.modify(attr, e.IBV_QP_ACCESS_FLAGS)
    this.ask(operation)
    this.as_invalid()


@pytest.mark.parametrize("operation", ["write", "read"])
@pytest.mark.parametrize("start, length", [
    (-1, 8), (-8, 8), (-8, 16), (2 * PAGE - 7, 8), (2 * PAGE, 8), (2 * PAGE, 1), (1, 2 * PAGE), (PAGE, PAGE + 1),
    (1 << 32, 8),
])  # fmt: skip
def test_a_range_that_is_not_all_inside_the_region(refused, operation, start, length):
    this = refused(pages=2)
    ask(this.a, operation, this.source.sge(0, min(length, 2 * PAGE)), this.target.remote(start))
    this.by_access()


@pytest.mark.parametrize("operation", ["write", "read"])
@pytest.mark.parametrize("below", [1, 4, 8])
def test_a_range_that_wraps_at_the_end_of_the_address_space(refused, operation, below):
    this = refused()
    this.ask(operation, length=16, remote=Remote(2**64 - below, this.target.rkey))
    this.by_access()


@pytest.mark.parametrize("start", [-8, 2 * PAGE])
def test_an_atomic_outside_the_region(refused, start):
    this = refused(pages=2)
    this.ask("atomic", remote=this.target.remote(start))
    this.by_access()


def test_a_multi_packet_write_past_the_end_writes_nothing(refused):
    """The range is checked at the first packet, whole (IBA 9.7.5.2.4, recalled)."""
    this = refused(pages=4)
    ask(this.a, "write", this.source.sge(0, 4000), this.target.remote(4 * PAGE - 3999))
    this.by_access()


def test_a_multi_packet_read_past_the_end_reads_nothing(refused):
    this = refused(pages=4)
    ask(this.a, "read", this.source.sge(0, 4000), this.target.remote(4 * PAGE - 3999))
    this.by_access()


@pytest.mark.parametrize("offset", [1, 4, 7])
def test_a_misaligned_atomic(refused, accept, offset):
    this = refused()
    remote = this.target.remote(offset)
    refused_at_once = refusal(atomic, this.a, this.source.sge(0, 8), remote, add=1, wr_id=1)
    accept("posting a misaligned atomic", refused_at_once, spec={"accepted", "EINVAL"}, why=CALL_OR_COMPLETION)
    if refused_at_once == "accepted":
        this.as_invalid()
    this.nothing_changed()


@pytest.mark.parametrize("operation", ["read", "atomic"])
def test_a_peer_without_responder_resources(refused, operation):
    """max_dest_rd_atomic 0: insufficient buffering for a new READ or atomic (IBA 11.6.2, recalled)."""
    this = refused(max_dest_rd_atomic=0)
    this.ask(operation)
    this.as_invalid()


def test_what_came_before_the_refused_request_is_done(refused, check):
    this = refused()
    write(this.a, this.source.sge(0, 16), this.target.remote(), wr_id=1)
    write(this.a, this.source.sge(0, 16), this.target.remote(-8), wr_id=2)
    check(this.a, this.b, near=[(1, "SUCCESS"), (2, DENIED)], states=(ERR, ERR), events=([], ["QP_ACCESS_ERR"]))
    assert this.target.bytes(0, 16) == this.source.bytes(0, 16)


def test_what_comes_behind_the_refused_request_is_not(refused):
    this = refused()
    this.ask("write", remote=Remote(this.target.address, 1), wr_id=1)
    for wr_id, operation in enumerate(("write", "read", "atomic"), 2):
        this.ask(operation, wr_id=wr_id)
    send(this.a, this.source.sge(0, 8), wr_id=5, flags=0)
    this.by_access(near=[(1, DENIED), (2, FLUSHED), (3, FLUSHED), (4, FLUSHED), (5, FLUSHED)])


def test_receives_of_both_sides_are_flushed(refused):
    this = refused()
    for wr_id in (11, 12):
        recv(this.a, this.source.sge(), wr_id=wr_id)
        recv(this.b, this.target.sge(), wr_id=wr_id + 10)
    this.ask("write", remote=Remote(this.target.address, 1))
    near = [(1, DENIED), (11, FLUSHED), (12, FLUSHED)]
    this.by_access(near=near, far=[(21, FLUSHED), (22, FLUSHED)])


def test_requests_of_the_side_that_refused_are_flushed(refused):
    this = refused(rnr_retry=7)
    send(this.b, this.target.sge(0, 8), wr_id=31)  # waits for a receive of A
    this.ask("write", remote=Remote(this.target.address, 1))
    this.by_access(far=[(31, FLUSHED)])


def test_a_write_with_immediate_that_is_refused_takes_no_receive(refused):
    this = refused()
    recv(this.b, this.target.sge(), wr_id=21)
    write(this.a, this.source.sge(0, 8), Remote(this.target.address, 1), imm=5, wr_id=1)
    this.check(this.a, this.b, near=[(1, DENIED)], far=[(21, FLUSHED)], states=(ERR, ERR),
                events=([], ["QP_ACCESS_ERR"]), rxe={"far": [(21, DENIED)], "events": ([], [])},
                why="rxe is wrong: REM_ACCESS_ERR is a status of the side that asks (IBA 11.6.2, recalled); the "
                    "message had taken no receive: it is flushed; and the failure is an event")  # fmt: skip
    this.nothing_changed()


@pytest.mark.parametrize("operation", ["write", "read"])
def test_a_request_of_no_bytes_needs_no_key(near, far, operation):
    """IBA C9-88 (recalled): the R_Key of a zero-length request is not checked."""
    a, b = pair(near, far, **PATIENT)
    source, target = near.region(), far.region()
    ask(a, operation, source.sge(0, 0), Remote(target.address, 0x7FFF01))
    successes(near.cq, 1)
    assert (state(a), state(b)) == ("RTS", "RTS")


def test_other_qps_of_the_pd_are_not_concerned(refused, near, far):
    this = refused()
    c, d = pair(near, far)
    this.ask("write", remote=Remote(this.target.address, 1))
    this.by_access()
    write(c, this.source.sge(0, 8), this.target.remote(), wr_id=9)
    assert successes(near.cq, 1)[0].wr_id == 9
    assert (state(c), state(d)) == ("RTS", "RTS")
