"""No response: how often a requester sends again before it gives up, and what then happens to the rest."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .failures import ERR, FAST, FLUSHED, RTS, break_by_hand, check, gather, per_queue, restart
from .sides import RC, atomic, attributes, connect, pair, read, recv, request, send, state, write
from .waiting import leftovers, successes

__all__ = ["check"]
GIVEN_UP = "RETRY_EXC_ERR"
NOBODY = 0xABCDE
"""A QP number that no test has."""


def lonely(near, far, **changes):
    """A QP in RTS whose peer does not exist."""
    qp = near.qp(RC)
    qp.to_rts(attributes(qp, far.qp(RC), dest_qp_num=NOBODY, **{**FAST, **changes}))
    return qp


@pytest.mark.parametrize("opcode", ["send", "write", "write_imm", "read", "atomic"])
def test_a_request_to_a_qp_that_does_not_exist_gives_up(near, far, opcode):
    a = lonely(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    before = source.bytes()
    post = {
        "send": lambda: send(a, source.sge(0, 8), wr_id=1),
        "write": lambda: write(a, source.sge(0, 8), target.remote(), wr_id=1),
        "write_imm": lambda: write(a, source.sge(0, 8), target.remote(), imm=1, wr_id=1),
        "read": lambda: read(a, source.sge(0, 8), target.remote(), wr_id=1),
        "atomic": lambda: atomic(a, source.sge(0, 8), target.remote(), add=1, wr_id=1),
    }
    post[opcode]()
    assert gather(near.cq, 1) == [(1, GIVEN_UP)]
    assert state(a) == ERR
    assert source.bytes() == before


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
def test_any_number_of_retries_ends(near, far, retries):
    """And before two retries more, of 67 ms each, of a QP that began earlier."""
    more, a = (lonely(near, far, timeout=14, retry_cnt=number) for number in (retries + 2, retries))
    source = near.region()
    send(more, source.sge(0, 8), wr_id=2)
    send(a, source.sge(0, 8), wr_id=1)
    assert gather(near.cq, 2, seconds=3) == [(1, GIVEN_UP), (2, GIVEN_UP)]


def test_more_retries_take_longer(near, far):
    """One against six, of 16.8 ms each."""
    many, few = lonely(near, far, timeout=12, retry_cnt=6), lonely(near, far, timeout=12, retry_cnt=1)
    source = near.region()
    send(many, source.sge(0, 8), wr_id=6)
    send(few, source.sge(0, 8), wr_id=1)
    assert gather(near.cq, 2, seconds=3) == [(1, GIVEN_UP), (6, GIVEN_UP)]


def test_a_longer_timeout_takes_longer(near, far):
    """268 ms against 1 ms, which rxe makes a few ticks of its clock."""
    slow, quick = lonely(near, far, timeout=16, retry_cnt=0), lonely(near, far, timeout=8, retry_cnt=0)
    source = near.region()
    send(slow, source.sge(0, 8), wr_id=16)
    send(quick, source.sge(0, 8), wr_id=8)
    assert gather(near.cq, 2, seconds=5) == [(8, GIVEN_UP), (16, GIVEN_UP)]


def test_timeout_0_waits_for_ever(near, far):
    a = lonely(near, far, timeout=0, retry_cnt=0)
    send(a, near.region().sge(0, 8), wr_id=1)
    assert leftovers(near.cq, polls=60) == []
    assert state(a) == RTS
    break_by_hand(a)
    assert gather(near.cq, 1) == [(1, FLUSHED)]


@pytest.mark.parametrize("where", ["reset", "init", "error", "destroyed"])
def test_a_peer_that_does_not_listen_is_not_there(near, far, where):
    a, b = pair(near, far, **FAST)
    source = near.region()
    if where == "destroyed":
        b.close()
    elif where == "error":
        break_by_hand(b)
    else:
        restart(b)
        if where == "init":
            b.to_init(attributes(b))
    send(a, source.sge(0, 8), wr_id=1)
    send(a, source.sge(0, 8), wr_id=2)
    assert gather(near.cq, 2) == [(1, GIVEN_UP), (2, FLUSHED)]
    assert state(a) == ERR


def test_the_oldest_request_gives_up_and_the_others_are_flushed_in_order(near, far):
    a = lonely(near, far)
    source, target = near.region(), far.region()
    recv(a, source.sge(), wr_id=11)
    recv(a, source.sge(), wr_id=12)
    read(a, source.sge(0, 8), target.remote(), wr_id=1)
    send(a, source.sge(0, 8), wr_id=2, flags=0)
    atomic(a, source.sge(0, 8), target.remote(), add=1, wr_id=3)
    write(a, source.sge(0, 3000), target.remote(), wr_id=4)
    wanted = [(1, GIVEN_UP), (2, FLUSHED), (3, FLUSHED), (4, FLUSHED), (11, FLUSHED), (12, FLUSHED)]
    assert per_queue(gather(near.cq, 6)) == wanted


def test_an_unsignaled_request_that_gives_up_has_a_completion(near, far):
    """IBA 10.7.3.1: a completion error always generates a completion."""
    a = lonely(near, far)
    send(a, near.region().sge(0, 8), wr_id=1, flags=0)
    assert gather(near.cq, 1) == [(1, GIVEN_UP)]


def test_a_failure_completes_the_unsignaled_requests_before_it_without_a_word(near, far):
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    write(a, source.sge(0, 8), target.remote(), wr_id=1, flags=0)
    write(a, source.sge(0, 8), target.remote(), wr_id=2)
    successes(near.cq, 1)
    restart(b)
    send(a, source.sge(0, 8), wr_id=3, flags=0)
    assert gather(near.cq, 1) == [(3, GIVEN_UP)]


def test_the_peer_s_own_requests_are_not_concerned(near, far, check):
    """B may send though A, whose own request nobody answers, does not get through."""
    a, b, other = near.qp(), far.qp(), far.qp()
    a.to_rts(attributes(a, b, timeout=18, retry_cnt=7))
    other.to_rts(attributes(other, a, **FAST))
    source, target = near.region(), far.region()
    send(a, source.sge(0, 8), wr_id=1)  # to B, which is in RESET
    b.to_rts(attributes(b, a, **FAST))
    recv(a, source.sge(64, 64), wr_id=7)
    send(b, target.sge(0, 8), wr_id=2)
    assert gather(near.cq, 1) == [(7, "SUCCESS")]
    assert gather(far.cq, 1) == [(2, "SUCCESS")]
    assert state(a) == RTS


def test_a_peer_that_comes_back_in_time_is_reached(near, far):
    """The request was sent into the void; a retransmission finds the QP."""
    a, b = near.qp(), far.qp()
    source, target = near.region(), far.region()
    source.fill(1)
    a.to_rts(attributes(a, b, timeout=14, retry_cnt=7))
    send(a, source.sge(0, 100), wr_id=1)
    assert leftovers(near.cq, polls=2) == []
    b.to_init(attributes(b, a))
    recv(b, target.sge(), wr_id=7)
    b.to_rtr(attributes(b, a))
    assert successes(far.cq, 1, seconds=8)[0].byte_len == 100
    assert successes(near.cq, 1)[0].wr_id == 1
    assert target.bytes(0, 100) == source.bytes(0, 100)


def test_the_retries_are_counted_anew_for_each_request(near, far):
    """A request that is answered gives the next one all its retries (IBA C9-138, recalled).

    B is away for each request of A until another QP has lost three tries: in all A loses about twelve, of seven.
    """
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, timeout=14, retry_cnt=6))
    source, target = near.region(), far.region()
    for number in range(4):
        other = lonely(near, far, timeout=14, retry_cnt=2)
        send(a, source.sge(0, 8), wr_id=number)
        send(other, source.sge(0, 8), wr_id=9)
        assert gather(near.cq, 1, seconds=3, quiet=1) == [(9, GIVEN_UP)]
        back = attributes(b, a, rq_psn=attributes(a).sq_psn + number)
        b.to_init(back)
        recv(b, target.sge(), wr_id=7)
        b.to_rtr(back)
        assert gather(near.cq, 1, seconds=3) == [(number, "SUCCESS")]
        assert gather(far.cq, 1) == [(7, "SUCCESS")]
        restart(b)


def test_a_wrong_psn_is_never_answered(near, far, accept):
    """The peer expects later PSNs: what comes is a duplicate, whose ACK names no request of A."""
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, **FAST, sq_psn=100, rq_psn=300))
    b.to_rts(attributes(b, a, **FAST, sq_psn=300, rq_psn=200))
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, 8), wr_id=1)
    accept("the request", gather(near.cq, 1), spec=[(1, GIVEN_UP)])
    assert target.bytes() == before
    assert leftovers(far.cq, 4) == []


def test_a_gap_in_the_psns_is_never_closed(near, far, check):
    """The peer expects earlier PSNs: each retry meets the NAK of a sequence error."""
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, **FAST, sq_psn=200, rq_psn=300))
    b.to_rts(attributes(b, a, **FAST, sq_psn=300, rq_psn=100))
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, 8), wr_id=1)
    check(a, b, near=[(1, GIVEN_UP)], states=(ERR, RTS))
    assert target.bytes() == before


def test_a_qp_that_gave_up_works_again_after_reset(near, far):
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    restart(b)
    a.post_send(request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=1))
    assert gather(near.cq, 1) == [(1, GIVEN_UP)]
    restart(a)
    connect(a, b)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, 8), wr_id=2)
    assert (successes(near.cq, 1)[0].wr_id, successes(far.cq, 1)[0].wr_id) == (2, 7)
