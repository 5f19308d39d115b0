"""UC: what the receiver cannot take is dropped without a word, and later messages arrive."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.qp import QPAttr
from pyverbs.wr import SGE

from .failures import ERR, FLUSHED, FORBIDDEN_ELEMENT, RTS, check, gather
from .memory import ALL, Remote
from .sides import UC, pair, recv, send, state, write
from .waiting import leftovers, successes

__all__ = ["check"]


class Unreliable:
    """A and B of kind UC, with memory of known contents."""

    def __init__(self, near, far, access=ALL, **changes):
        self.a, self.b = pair(near, far, UC, **changes)
        self.source, self.target = near.region(2), far.region(2, access)
        self.source.fill(1), self.target.fill(2)
        self.before = self.target.bytes()

    def is_dropped(self):
        """A has a success, B nothing, and no byte changed."""
        assert gather(self.a.side.cq, 1) == [(1, "SUCCESS")]
        assert leftovers(self.b.side.cq, 4) == []
        assert self.target.bytes() == self.before
        assert (state(self.a), state(self.b)) == (RTS, RTS)

    def later_ones_arrive(self):
        recv(self.b, self.target.sge(), wr_id=80)
        send(self.a, self.source.sge(0, 3000), wr_id=81)
        successes(self.a.side.cq, 1)
        (done,) = successes(self.b.side.cq, 1)
        assert (done.wr_id, done.byte_len) == (80, 3000)
        assert self.target.bytes(0, 3000) == self.source.bytes(0, 3000)


@pytest.fixture
def uc(near, far):
    return lambda **options: Unreliable(near, far, **options)


@pytest.mark.parametrize("length", [8, 1024, 3000])
def test_a_write_with_an_rkey_that_does_not_exist(uc, length):
    this = uc()
    write(this.a, this.source.sge(0, length), Remote(this.target.address, 0x7FFF01), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


@pytest.mark.parametrize("start", [-8, 8192 - 7, 1 << 32])
def test_a_write_outside_the_region(uc, start):
    this = uc()
    write(this.a, this.source.sge(0, 8), this.target.remote(start), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


def test_a_write_that_leaves_the_region_writes_nothing(uc):
    this = uc()
    write(this.a, this.source.sge(0, 3000), this.target.remote(8192 - 2999), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


def test_a_write_to_a_region_without_the_right(uc):
    this = uc(access=e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_READ)
    write(this.a, this.source.sge(0, 8), this.target.remote(), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


def test_a_write_to_a_qp_without_the_right(uc):
    this = uc(access=ALL)
    attr = QPAttr()
    attr.qp_access_flags = e.IBV_ACCESS_LOCAL_WRITE
    this.b.modify(attr, e.IBV_QP_ACCESS_FLAGS)
    write(this.a, this.source.sge(0, 8), this.target.remote(), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


@pytest.mark.parametrize("length", [0, 8, 1024, 3000])
def test_a_send_without_a_receive(uc, length):
    this = uc()
    send(this.a, this.source.sge(0, length), wr_id=1)
    this.is_dropped()
    this.later_ones_arrive()


def test_a_write_with_immediate_without_a_receive(uc, accept, far):
    """It is dropped where the receive is missed: at its last packet."""
    this = uc()
    write(this.a, this.source.sge(0, 8), this.target.remote(), imm=5, wr_id=1)
    assert gather(this.a.side.cq, 1) == [(1, "SUCCESS")]
    assert leftovers(far.cq, 4) == []
    accept("state of B", state(this.b), spec=RTS)
    this.later_ones_arrive()


@pytest.mark.parametrize("length, room", [(65, 64), (3000, 2999), (3000, 100)])
def test_a_send_longer_than_the_receive(uc, far, accept, length, room):
    """IBA 9.8.2.2 (recalled) lets the receive fail or wait for the next message; memory behind it is untouched."""
    this = uc()
    recv(this.b, this.target.sge(0, room), wr_id=7)
    send(this.a, this.source.sge(0, length), wr_id=1)
    assert gather(this.a.side.cq, 1) == [(1, "SUCCESS")]
    seen = tuple(gather(far.cq, 1, 0.2))
    accept("the receive", seen, spec={(), ((7, "LOC_LEN_ERR"),)}, rxe={((7, "LOC_QP_OP_ERR"),)},
           why="dropped or Local Length Error is open (IBA 9.8.2, recalled); rxe calls it malformed")  # fmt: skip
    assert this.target.bytes()[room:] == this.before[room:]


def test_a_receive_with_a_bad_element(uc, check):
    this = uc()
    recv(this.b, SGE(this.target.address, 64, 0x7FFF01), wr_id=7)
    recv(this.b, this.target.sge(), wr_id=8)
    send(this.a, this.source.sge(0, 8), wr_id=1)
    check(this.a, this.b, near=[(1, "SUCCESS")], far=[(7, "LOC_PROT_ERR"), (8, FLUSHED)], states=(RTS, ERR),
          rxe={"far": [(7, "LOC_QP_OP_ERR"), (8, FLUSHED)]},
          why=FORBIDDEN_ELEMENT)  # fmt: skip
    assert this.target.bytes() == this.before


def test_a_send_to_a_peer_that_is_gone_succeeds(near, far):
    a, b = pair(near, far, UC)
    b.close()
    for wr_id in (1, 2):
        send(a, near.region().sge(0, 3000), wr_id=wr_id)
    assert gather(near.cq, 2) == [(1, "SUCCESS"), (2, "SUCCESS")]
    assert state(a) == RTS


def test_only_the_message_without_a_receive_is_lost(uc, far):
    this = uc()
    recv(this.b, this.target.sge(), wr_id=7)
    for wr_id, length in ((1, 10), (2, 20), (3, 30)):
        send(this.a, this.source.sge(0, length), wr_id=wr_id)
    assert [each.wr_id for each in successes(this.a.side.cq, 3)] == [1, 2, 3]
    assert [(each.wr_id, each.byte_len) for each in successes(far.cq, 1)] == [(7, 10)]
    assert leftovers(far.cq, 4) == []
    recv(this.b, this.target.sge(), wr_id=8)
    assert leftovers(far.cq, 4) == []
    send(this.a, this.source.sge(0, 40), wr_id=4)
    assert [(each.wr_id, each.byte_len) for each in successes(far.cq, 1)] == [(8, 40)]
