"""The Error state flushes what is outstanding and what is posted later; and the other states that take no requests."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .failures import ERR, FAST, FLUSHED, PATIENT, RTS, break_by_hand, check, gather, restart
from .sides import (
    RC,
    UC,
    UD,
    atomic,
    attributes,
    chain,
    datagrams,
    move_to,
    pair,
    read,
    recv,
    refusal,
    request,
    send,
    state,
    write,
)
from .waiting import leftovers, successes

__all__ = ["check"]
NOT_IN_ERR = ("rxe is wrong: a receive posted in ERR stays in its ring; IBA 10.3.1.6 (recalled): requests posted to a "
              "queue in the Error state are completed with Flushed Error")  # fmt: skip
RECEIVES_IN_RESET = "left open: IBA 10.3.1.1 (recalled) has an immediate error; mlx5 does not look at the state"
CLEANED = "left open: RESET may take completions of the QP out of its CQs (mlx5 does), or leave them (rxe does)"
KINDS = pytest.mark.parametrize("kind", [RC, UC, UD], ids=["rc", "uc", "ud"])


def in_rts(near, far, kind):
    """A QP in RTS, and what must be kept alive for it."""
    return (datagrams(near), None) if kind == UD else pair(near, far, kind, **PATIENT)


@KINDS
def test_receives_are_flushed_in_their_order(near, far, kind):
    a, _peer = in_rts(near, far, kind)
    memory = near.region()
    for wr_id in range(8):
        recv(a, memory.sge(wr_id * 64, 64), wr_id=wr_id)
    break_by_hand(a)
    assert gather(near.cq, 8) == [(wr_id, FLUSHED) for wr_id in range(8)]


def test_requests_that_wait_for_a_receive_are_flushed_in_their_order(near, far):
    a, _b = pair(near, far, **PATIENT, rnr_retry=7)
    source, target = near.region(), far.region()
    for wr_id in range(6):
        send(a, source.sge(0, 8), wr_id=wr_id, flags=0 if wr_id % 2 else e.IBV_SEND_SIGNALED)
    read(a, source.sge(0, 8), target.remote(), wr_id=6)
    assert leftovers(near.cq, 4) == []
    break_by_hand(a)
    assert gather(near.cq, 7) == [(wr_id, FLUSHED) for wr_id in range(7)]


@KINDS
def test_a_request_posted_in_err_is_flushed(near, far, kind):
    a, _peer = in_rts(near, far, kind)
    break_by_hand(a)
    wr = request(e.IBV_WR_SEND, near.region().sge(0, 8), wr_id=5)
    if kind == UD:
        wr.set_wr_ud(near.address_of(far), 1, 1)
    a.post_send(wr)
    assert gather(near.cq, 1) == [(5, FLUSHED)]


def test_an_unsignaled_request_posted_in_err_is_flushed(near, far):
    a, _b = pair(near, far)
    break_by_hand(a)
    send(a, near.region().sge(0, 8), wr_id=5, flags=0)
    assert gather(near.cq, 1) == [(5, FLUSHED)]


def test_a_chain_posted_in_err_is_flushed_in_its_order(near, far):
    a, _b = pair(near, far)
    break_by_hand(a)
    source, target = near.region(), far.region()
    first = request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=1)
    second = request(e.IBV_WR_RDMA_WRITE, source.sge(0, 8), target.remote(), wr_id=2, flags=0)
    third = request(e.IBV_WR_RDMA_READ, source.sge(0, 8), target.remote(), wr_id=3)
    a.post_send(chain(first, second, third))
    assert gather(near.cq, 3) == [(1, FLUSHED), (2, FLUSHED), (3, FLUSHED)]


def test_what_is_flushed_has_no_effect(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1), target.fill(2)
    before = source.bytes(), target.bytes()
    recv(b, target.sge(), wr_id=7)
    break_by_hand(a)
    send(a, source.sge(0, 8), wr_id=1)
    write(a, source.sge(0, 8), target.remote(), wr_id=2)
    read(a, source.sge(0, 8), target.remote(), wr_id=3)
    atomic(a, source.sge(0, 8), target.remote(), add=1, wr_id=4)
    assert gather(near.cq, 4) == [(wr_id, FLUSHED) for wr_id in range(1, 5)]
    assert leftovers(far.cq, 4) == []
    assert (source.bytes(), target.bytes()) == before


@KINDS
def test_a_receive_posted_in_err_is_flushed(near, far, accept, kind):
    """Once the move itself has flushed what was there: rxe does that in a task of its own, which may come late."""
    a, _peer = in_rts(near, far, kind)
    memory = near.region()
    recv(a, memory.sge(), wr_id=4)
    break_by_hand(a)
    assert gather(near.cq, 1, quiet=10) == [(4, FLUSHED)]
    recv(a, memory.sge(), wr_id=5)
    recv(a, memory.sge(), wr_id=6)
    accept("receives posted in ERR", gather(near.cq, 2, 0.2), spec=[(5, FLUSHED), (6, FLUSHED)], rxe=[],
           why=NOT_IN_ERR)  # fmt: skip


def test_a_flushed_request_frees_its_place_in_the_queue(near, far):
    a, _b = pair(near, far, caps={"max_send_wr": 4})
    source = near.region()
    break_by_hand(a)
    for wr_id in range(40):
        send(a, source.sge(0, 8), wr_id=wr_id)
        assert gather(near.cq, 1, quiet=1) == [(wr_id, FLUSHED)]


def test_a_second_move_to_err_changes_nothing(near, far):
    a, _b = pair(near, far)
    recv(a, near.region().sge(), wr_id=1)
    break_by_hand(a)
    break_by_hand(a)
    assert gather(near.cq, 1) == [(1, FLUSHED)]
    assert state(a) == ERR


def test_err_of_one_side_leaves_the_other_in_rts(near, far, check):
    a, b = pair(near, far)
    recv(b, far.region().sge(), wr_id=7)
    break_by_hand(a)
    check(a, b, states=(ERR, RTS))


@pytest.mark.parametrize("before", ["init", "rtr"])
def test_receives_posted_before_rts_are_flushed(near, far, before):
    a, b = near.qp(), far.qp()
    a.to_init(attributes(a, b))
    if before == "rtr":
        a.to_rtr(attributes(a, b))
    recv(a, near.region().sge(), wr_id=1)
    break_by_hand(a)
    assert gather(near.cq, 1) == [(1, FLUSHED)]


@pytest.mark.parametrize("where", ["reset", "init", "rtr"])
def test_a_send_before_rts_is_refused_at_once(near, far, accept, where):
    """IBA 10.3.1 (recalled): posting to the send queue in Reset, Init and RTR is an immediate error."""
    a, b = near.qp(), far.qp()
    if where != "reset":
        a.to_init(attributes(a, b))
    if where == "rtr":
        a.to_rtr(attributes(a, b))
    wr = request(e.IBV_WR_SEND, near.region().sge(0, 8), wr_id=1)
    accept("errno", refusal(a.post_send, wr), spec="EINVAL")
    assert leftovers(near.cq, 4) == []


def test_a_refused_send_never_runs(near, far, accept):
    """Refused in RESET, the request is gone: nothing of it comes when the QP reaches RTS."""
    a, b = near.qp(), far.qp()
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    assert refusal(write, a, source.sge(0, 8), target.remote(), wr_id=1) == "EINVAL"
    b.to_rts(attributes(b, a))
    a.to_rts(attributes(a, b))
    write(a, source.sge(0, 0), target.remote(), wr_id=2)
    accept("completions", gather(near.cq, 1), spec=[(2, "SUCCESS")], rxe=[(1, "SUCCESS"), (2, "SUCCESS")],
           why="rxe is wrong: its library has put the request into the ring before the kernel says EINVAL, and leaves "
               "it there; a call that fails posts nothing (ibv_post_send: bad_wr)")  # fmt: skip
    accept("the peer's memory is as before", target.bytes() == before, spec=True, rxe=False,
           why="as above: the refused WRITE was carried out")  # fmt: skip


def test_a_receive_in_reset_is_refused_or_kept_for_later(near, far, accept):
    a = near.qp()
    accept("errno", refusal(recv, a, near.region().sge(), wr_id=1), spec={"EINVAL", "accepted"}, why=RECEIVES_IN_RESET)
    assert leftovers(near.cq, 4) == []


def test_receives_posted_in_init_serve_messages_later(near, far):
    a, b = near.qp(), far.qp()
    source, target = near.region(), far.region()
    b.to_init(attributes(b, a))
    for wr_id in (1, 2):
        recv(b, target.sge(), wr_id=wr_id)
    b.to_rts(attributes(b, a))
    a.to_rts(attributes(a, b))
    for wr_id in (5, 6):
        send(a, source.sge(0, 8), wr_id=wr_id)
    assert [each.wr_id for each in successes(far.cq, 2)] == [1, 2]
    successes(near.cq, 2)


def test_err_cannot_go_back_to_rts(near, far, accept):
    a, _b = pair(near, far)
    break_by_hand(a)
    answers = {name: refusal(move_to, a, value) for name, value in (
        ("INIT", e.IBV_QPS_INIT), ("RTR", e.IBV_QPS_RTR), ("RTS", e.IBV_QPS_RTS), ("SQD", e.IBV_QPS_SQD))}  # fmt: skip
    accept("ERR to other states", answers, spec=dict.fromkeys(answers, "EINVAL"))
    assert state(a) == ERR


def test_reset_throws_away_what_is_outstanding_without_completions(near, far):
    """IBA 10.3.1.1 (recalled): requests that were outstanding are lost."""
    a, _b = pair(near, far, **PATIENT, rnr_retry=7)
    source = near.region()
    recv(a, source.sge(), wr_id=11)
    send(a, source.sge(0, 8), wr_id=1)
    assert leftovers(near.cq, 4) == []
    restart(a)
    assert leftovers(near.cq) == []


def test_reset_after_err_keeps_completions_that_are_there(near, far, accept):
    a, _b = pair(near, far, **FAST)
    recv(a, near.region().sge(), wr_id=11)
    break_by_hand(a)
    restart(a)
    accept("completions left", tuple(gather(near.cq, 1, 0.1)), spec={(), ((11, FLUSHED),)}, why=CLEANED)
