"""Every asynchronous event on purpose: the second table of docs/errors.md, one test a row."""

from __future__ import annotations

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, QpType, WcStatus
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.srq import SrqAttr
from nicemu.uverbs import session
from tests.lab.failures import MS, A, atomic, events, go, lab, outcome, pair, pass_time, says, seen, state, write
from tests.lab.transports import End

S, E = WcStatus, AsyncEvent
ERR, RTS = QpState.ERR, QpState.RTS
OK, FLUSHED = S.SUCCESS, S.WR_FLUSH_ERR


pytestmark = pytest.mark.usefixtures("default_lab", "closed_afterwards")


def overrun() -> tuple[End, End]:
    """More completions than the ring of a CQ has slots (one more than its entries), and nobody polls."""
    left, right = End(), End()
    left.cq = CQ(left.ctx, 1)
    left.make(QpType.RC), right.make(QpType.RC)
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rts(right.attr(left.qp))
    for wr_id in range(left.cq.cqe + 2):
        left.qp.post_send(write(left, right, wr_id))
    pass_time()
    return left, right


def test_cq_err_and_qp_fatal_of_an_overrun_cq() -> None:
    left, right = overrun()
    assert sorted(events(left)) == [E.CQ_ERR, E.QP_FATAL] and events(right) == []
    assert (state(left.qp), state(right.qp)) == (ERR, RTS)
    assert {status for _, status in seen(left)} == {OK}


def test_qp_fatal_of_a_send_queue_that_was_scribbled_over() -> None:
    left, right = pair()
    left.qp._send_queue.head += 1000
    left.qp._send_queue.publish()
    session.endpoint().ring_doorbell(0, 0, left.qp.qp_num, 0)
    done = outcome(left, right)
    assert done["states"] == (ERR, RTS) and done["events"] == ([E.QP_FATAL], [])


def test_qp_req_err() -> None:
    left, right = pair()
    left.qp.post_send(atomic(left, right, at=1))
    assert outcome(left, right)["events"] == ([], [E.QP_REQ_ERR])


def test_qp_access_err() -> None:
    left, right = pair()
    left.qp.post_send(write(left, right, rkey=3))
    assert outcome(left, right)["events"] == ([], [E.QP_ACCESS_ERR])


def test_comm_est() -> None:
    left, right = End(), End()
    left.make(QpType.RC), right.make(QpType.RC)
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rtr(right.attr(left.qp))
    left.qp.post_send(write(left, right))
    says(left, right, left=[(1, OK)], states=(RTS, QpState.RTR), events=([], [E.COMM_EST]))


def test_sq_drained() -> None:
    left, right = pair()
    left.qp.post_send(write(left, right))
    go(left.qp, QpState.SQD, A.STATE | A.EN_SQD_ASYNC_NOTIFY, en_sqd_async_notify=1)
    says(left, right, left=[(1, OK)], states=(QpState.SQD, RTS), events=([E.SQ_DRAINED], []))


def shared() -> tuple[End, End]:
    """The right QP takes its receives from an SRQ with ten of them."""
    left, right = End(), End()
    left.make(QpType.RC), right.make(QpType.RC, right.make_srq())
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rts(right.attr(left.qp))
    for wr_id in range(10):
        right.receive(64, wr_id)
    return left, right


def test_srq_limit_reached() -> None:
    left, right = shared()
    right.srq.modify(SrqAttr(srq_limit=9), e.IBV_SRQ_LIMIT)
    left.qp.post_send(left.send(8, 1)), left.qp.post_send(left.send(8, 2))
    says(left, right, left=[(1, OK), (2, OK)], right=[(0, OK), (1, OK)], events=([], [E.SRQ_LIMIT_REACHED]))


def test_srq_err_of_a_ring_that_was_scribbled_over() -> None:
    left, right = shared()
    right.srq._queue.head += 1000
    right.srq._queue.publish()
    left.qp.post_send(left.send(8, 1))
    pass_time(MS)
    assert (events(left), events(right)) == ([], [E.SRQ_ERR]) and seen(left) == seen(right) == []


def test_qp_last_wqe_reached() -> None:
    left, right = shared()
    go(right.qp, ERR)
    says(left, right, states=(RTS, ERR), events=([], [E.QP_LAST_WQE_REACHED]))


def test_port_err_and_port_active() -> None:
    with lab(inject=[{"event": "port_down", "at_ns": 10 * MS}, {"event": "port_up", "at_ns": 20 * MS}]):
        left, right = pair()
        assert left.ctx.get_async_event().event_type == E.PORT_ERR
        assert left.ctx.query_port(1).state == e.IBV_PORT_DOWN
        left.qp.post_send(write(left, right))
        assert left.ctx.get_async_event().event_type == E.PORT_ACTIVE
        assert left.ctx.query_port(1).state == e.IBV_PORT_ACTIVE
        pass_time()
        assert events(right) == [E.PORT_ERR, E.PORT_ACTIVE]
        assert seen(left) == [(1, OK)], "the ACK timer outlives ten milliseconds"


def test_gid_change() -> None:
    with lab(inject=[{"event": "gid_change", "index": 3, "gid": "10.1.2.3", "at_ns": 10 * MS}]):
        end = End()
        assert end.ctx.get_async_event().event_type == E.GID_CHANGE
        assert end.ctx.query_gid(1, 3).gid.endswith("ffff:0a01:0203")


def test_device_fatal() -> None:
    with lab(inject=[{"event": "device_fatal", "at_ns": 10 * MS}]):
        left, right = pair()
        left.receive(64, 7)
        assert left.ctx.get_async_event().event_type == E.DEVICE_FATAL
        left.qp.post_send(write(left, right))
        pass_time()
        assert sorted(seen(left)) == [(1, FLUSHED), (7, FLUSHED)]
