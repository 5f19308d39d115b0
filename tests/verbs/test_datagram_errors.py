"""UD: what does not fit is dropped or refused, and the QPs go on."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.wr import SGE

from .failures import (
    CALL_OR_COMPLETION,
    ERR,
    FLUSHED,
    FORBIDDEN_ELEMENT,
    RTS,
    break_by_hand,
    check,
    events,
    gather,
    restart,
)
from .sides import PORT, QKEY, attributes, datagram, datagrams, move_to, pair, recv, refusal, request, state
from .waiting import leftovers, successes

__all__ = ["check"]
GRH = 40
DROPPED = "left open: IBA 9.8.3 (recalled) lets an unreliable receiver drop what is too long, or say so in the receive"


class Datagrams:
    """A of near sends to B of far."""

    def __init__(self, near, far):
        self.a, self.b = datagrams(near), datagrams(far)
        self.source, self.target = near.region(2), far.region(2)
        self.source.fill(1), self.target.fill(2)
        self.before = self.target.bytes()
        self.ah = near.address_of(far)

    def send(self, length, wr_id=1, qkey=QKEY, sges=None, **options):
        sges = self.source.sge(0, length) if sges is None else sges
        datagram(self.a, sges, self.ah, self.b.qp_num, qkey, wr_id=wr_id, **options)

    def nothing_arrives(self):
        assert leftovers(self.b.side.cq, 4) == []
        assert self.target.bytes() == self.before

    def one_arrives(self, wr_id):
        """The receive `wr_id` is still there, for the next datagram."""
        self.send(16, wr_id=90)
        assert successes(self.a.side.cq, 1)[0].wr_id == 90
        (done,) = successes(self.b.side.cq, 1)
        assert (done.wr_id, done.byte_len) == (wr_id, GRH + 16)


@pytest.fixture
def ud(near, far):
    return Datagrams(near, far)


def test_a_datagram_without_a_receive_is_lost(ud, near):
    ud.send(8)
    successes(near.cq, 1)
    ud.nothing_arrives()
    recv(ud.b, ud.target.sge(), wr_id=7)
    ud.one_arrives(7)


@pytest.mark.parametrize("qkey", [QKEY + 1, 0, 0x7FFFFFFF])
def test_a_datagram_with_another_qkey_is_lost(ud, near, qkey):
    recv(ud.b, ud.target.sge(), wr_id=7)
    ud.send(8, qkey=qkey)
    successes(near.cq, 1)
    ud.nothing_arrives()
    ud.one_arrives(7)


def test_a_qkey_with_its_top_bit_set_stands_for_that_of_the_sending_qp(ud, near, far, accept):
    recv(ud.b, ud.target.sge(), wr_id=7)
    ud.send(8, qkey=0x80000001)
    successes(near.cq, 1)
    accept("receives", gather(far.cq, 1, 0.2), spec=[(7, "SUCCESS")], rxe=[],
           why="rxe is wrong: it sends the Q_Key as it is; IBA 10.2.5 (recalled): a user cannot send a controlled "
               "Q_Key, the QP's own goes instead")  # fmt: skip


def test_a_datagram_to_a_qp_that_does_not_exist_is_lost(ud, near):
    recv(ud.b, ud.target.sge(), wr_id=7)
    datagram(ud.a, ud.source.sge(0, 8), ud.ah, 0xABCDE, wr_id=1)
    successes(near.cq, 1)
    ud.nothing_arrives()
    ud.one_arrives(7)


@pytest.mark.parametrize("where", ["reset", "init", "error"])
def test_a_datagram_to_a_qp_that_does_not_listen_is_lost(ud, near, far, where):
    if where == "error":
        break_by_hand(ud.b)
    else:
        restart(ud.b)
        if where == "init":
            ud.b.to_init(attributes(ud.b))
    ud.send(8)
    successes(near.cq, 1)
    ud.nothing_arrives()


def test_a_datagram_to_a_qp_of_another_kind_is_lost(ud, near, far):
    _c, d = pair(near, far)
    recv(d, ud.target.sge(), wr_id=7)
    datagram(ud.a, ud.source.sge(0, 8), ud.ah, d.qp_num, wr_id=1)
    successes(near.cq, 1)
    ud.nothing_arrives()
    assert state(d) == RTS


def test_a_datagram_longer_than_the_receive(ud, near, far, accept):
    """The QP goes on either way."""
    recv(ud.b, ud.target.sge(0, GRH + 7), wr_id=7)
    recv(ud.b, ud.target.sge(64, 128), wr_id=8)
    ud.send(8)
    successes(near.cq, 1)
    silent, failed = (), ((7, "LOC_LEN_ERR"),)
    accept("the receive that is too short", tuple(gather(far.cq, 1, 0.2)), spec={silent, failed}, why=DROPPED)
    accept("state", state(ud.b), spec=RTS)
    after = ud.target.bytes()
    assert after[GRH + 7 :] == ud.before[GRH + 7 :]


def test_a_receive_without_room_for_the_grh(ud, near, far, accept):
    recv(ud.b, ud.target.sge(0, GRH - 1), wr_id=7)
    ud.send(0)
    successes(near.cq, 1)
    seen = tuple(gather(far.cq, 1, 0.2))
    accept("the receive", seen, spec={(), ((7, "LOC_LEN_ERR"),)}, why=DROPPED)
    assert ud.target.bytes()[GRH - 1 :] == ud.before[GRH - 1 :]


def test_a_datagram_longer_than_the_mtu_is_refused(ud, near, far, accept):
    mtu = 128 << near.context.query_port(PORT).active_mtu
    recv(ud.b, ud.target.sge(0, 2 * 4096), wr_id=7)
    wr = request(e.IBV_WR_SEND, ud.source.sge(0, mtu + 1), wr_id=1)
    wr.set_wr_ud(ud.ah, ud.b.qp_num, QKEY)
    answer = refusal(ud.a.post_send, wr)
    accept("posting it", answer, spec={"accepted", "EINVAL", "EMSGSIZE"}, why=CALL_OR_COMPLETION)
    if answer == "accepted":
        accept("its completion", gather(near.cq, 1), spec=[(1, "LOC_LEN_ERR")], rxe=[(1, "SUCCESS")],
               why="rxe drops what is longer than the MTU; a Local Length Error (IBA 11.6.2, recalled)")  # fmt: skip
    ud.nothing_arrives()


def test_a_receive_with_a_bad_element(ud, near, far, check):
    recv(ud.b, SGE(ud.target.address, 256, 0x7FFF01), wr_id=7)
    recv(ud.b, ud.target.sge(), wr_id=8)
    ud.send(8)
    check(ud.a, ud.b, near=[(1, "SUCCESS")], far=[(7, "LOC_PROT_ERR"), (8, FLUSHED)], states=(RTS, ERR),
          rxe={"far": [(7, "LOC_QP_OP_ERR"), (8, FLUSHED)]},
          why=FORBIDDEN_ELEMENT)  # fmt: skip
    assert ud.target.bytes() == ud.before


def test_a_bad_lkey_stops_the_send_queue_only(ud, near, far, check):
    """SQE: what stands behind is flushed; receives go on."""
    recv(ud.a, ud.source.sge(4096, 256), wr_id=7)
    ud.send(8, sges=SGE(ud.source.address, 8, 0x7FFF01), wr_id=1)
    ud.send(8, wr_id=2)
    wrong = "rxe is wrong: a request whose own element is bad is Local Protection Error and takes a UD QP to SQE"
    check(ud.a, ud.b, near=[(1, "LOC_PROT_ERR"), (2, FLUSHED)], states=("SQE", RTS),
          rxe={"near": [(1, FLUSHED), (2, FLUSHED), (7, FLUSHED)], "states": (ERR, RTS)}, why=wrong)  # fmt: skip
    if state(ud.a) == "SQE":
        datagram(ud.b, ud.target.sge(0, 8), far.address_of(near), ud.a.qp_num, wr_id=3)
        assert successes(near.cq, 1)[0].wr_id == 7


def test_sqe_ends_by_a_move_to_rts(ud, near, far):
    ud.send(8, sges=SGE(ud.source.address, 8, 0x7FFF01), wr_id=1)
    gather(near.cq, 1)
    if state(ud.a) != "SQE":
        pytest.skip("the device has no SQE state")
    move_to(ud.a, e.IBV_QPS_RTS)
    recv(ud.b, ud.target.sge(), wr_id=7)
    ud.one_arrives(7)


def test_requests_posted_in_sqe_are_flushed(ud, near):
    ud.send(8, sges=SGE(ud.source.address, 8, 0x7FFF01), wr_id=1)
    gather(near.cq, 1)
    if state(ud.a) != "SQE":
        pytest.skip("the device has no SQE state")
    ud.send(8, wr_id=2)
    assert gather(near.cq, 1) == [(2, FLUSHED)]


def test_no_events_come_of_dropped_datagrams(ud, near, far):
    ud.send(8, qkey=5)
    ud.send(8)
    successes(near.cq, 2)
    assert (events(near), events(far)) == ([], [])
    assert (state(ud.a), state(ud.b)) == (RTS, RTS)
