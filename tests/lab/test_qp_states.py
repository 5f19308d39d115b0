"""What a program sees of the states that a QP gets into by itself, and of draining."""

from __future__ import annotations

import pytest

from nicemu.abi.verbs import AsyncEvent, QpAttrMask, QpState, QpType
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.qp import QPAttr
from nicemu.pyverbs.wr import SGE, SendWR
from tests.lab.transports import QKEY, End, connect, datagrams

SUCCESS = e.IBV_WC_SUCCESS
A = QpAttrMask


pytestmark = pytest.mark.usefixtures("default_lab", "closed_afterwards")


def state(end: End) -> int:
    """The state as the device has it."""
    return int(end.qp.query(int(A.STATE))[0].qp_state)


def go(end: End, new: QpState, mask: A = A.STATE, **members: int) -> None:
    attr = QPAttr(qp_state=new)
    for name, value in members.items():
        setattr(attr, name, value)
    end.qp.modify(attr, int(mask))


def test_a_failed_datagram_stops_the_send_queue_until_the_program_restarts_it() -> None:
    left, right, ah = datagrams()

    def send(wr_id: int, lkey: int) -> int:
        wr = SendWR(wr_id, num_sge=1, sg=[SGE(left.mr.buf, 8, lkey)])
        wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
        left.qp.post_send(wr)
        (wc,) = left.poll()
        assert wc.wr_id == wr_id
        return int(wc.status)

    for wr_id in (1, 2):
        right.receive(100, wr_id)
    assert send(1, left.mr.lkey + 1) == e.IBV_WC_LOC_PROT_ERR
    assert state(left) == QpState.SQE
    assert send(2, left.mr.lkey) == e.IBV_WC_WR_FLUSH_ERR
    go(left, QpState.RTS, A.STATE | A.CUR_STATE, cur_qp_state=QpState.SQE)
    assert send(3, left.mr.lkey) == SUCCESS and state(left) == QpState.RTS
    assert [wc.wr_id for wc in right.poll()] == [1] and right.cq.poll()[0] == 0


def test_receives_go_on_in_sqe() -> None:
    left, right, ah = datagrams()
    back = AH(right.pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=left.gid(), sgid_index=1)))
    wr = SendWR(1, num_sge=1, sg=[SGE(right.mr.buf, 8, right.mr.lkey + 1)])
    wr.set_wr_ud(back, left.qp.qp_num, QKEY)
    right.qp.post_send(wr)
    assert right.poll()[0].status == e.IBV_WC_LOC_PROT_ERR and state(right) == QpState.SQE
    right.receive(100, 5)
    wr = left.send(8)
    wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
    left.qp.post_send(wr)
    assert right.poll()[0].wr_id == 5


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC])
def test_a_drained_send_queue_says_so_and_waits(kind: QpType) -> None:
    left, right = connect(kind)
    for wr_id in range(4):
        right.receive(64, wr_id)
    for wr_id in range(3):
        left.qp.post_send(left.send(8, wr_id))
    go(left, QpState.SQD, A.STATE | A.EN_SQD_ASYNC_NOTIFY, en_sqd_async_notify=1)
    event = left.ctx.get_async_event()
    event.ack()
    assert event.event_type == AsyncEvent.SQ_DRAINED
    attr = left.qp.query(int(A.STATE))[0]
    assert (attr.qp_state, attr.sq_draining) == (QpState.SQD, 0)
    done = left.cq.poll(10)[1]
    left.qp.post_send(left.send(8, 3))
    assert left.cq.poll()[0] == 0
    go(left, QpState.RTS)
    while len(done) < 4:
        done += left.poll()
    assert [(wc.wr_id, wc.status) for wc in done] == [(wr_id, SUCCESS) for wr_id in range(4)]


def test_the_first_message_before_rts_is_an_event() -> None:
    left, right = End(), End()
    left.make(QpType.RC), right.make(QpType.RC)
    left.qp.to_rts(left.attr(right.qp))
    right.qp.to_rtr(right.attr(left.qp))
    right.receive(64, 1)
    left.qp.post_send(left.send(8))
    assert right.poll()[0].status == SUCCESS
    event = right.ctx.get_async_event()
    assert event.event_type == AsyncEvent.COMM_EST
    event.ack()


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD])
def test_err_flushes_both_queues_and_what_is_posted_then(kind: QpType) -> None:
    left = End()
    left.make(kind)
    left.qp.to_rts(left.attr(left.qp))
    for wr_id in (1, 2):
        left.receive(64, wr_id)
    go(left, QpState.ERR)
    left.receive(64, 3)
    left.qp.post_send(left.send(8, 4))
    done = left.poll(4)
    assert sorted(wc.wr_id for wc in done) == [1, 2, 3, 4]
    assert {wc.status for wc in done} == {e.IBV_WC_WR_FLUSH_ERR}


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD])
def test_a_reset_qp_starts_afresh(kind: QpType) -> None:
    left = End()
    left.make(kind)
    for _ in range(2):
        left.qp.to_rts(left.attr(left.qp))
        left.receive(64, 1)
        go(left, QpState.RESET)
        assert left.cq.poll()[0] == 0 and state(left) == QpState.RESET
