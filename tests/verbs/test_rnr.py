"""Receiver not ready: how often and how long a requester asks again, and what it leaves behind."""

from __future__ import annotations

import pytest

from .failures import ERR, FAST, FLUSHED, PATIENT, RTS, break_by_hand, check, gather, restart
from .sides import attributes, connect, pair, recv, send, state, write
from .waiting import completions, leftovers, successes

__all__ = ["check"]
GIVEN_UP = "RNR_RETRY_EXC_ERR"
FOREVER = {"rnr_retry": 7, "min_rnr_timer": 12, **PATIENT}


@pytest.mark.parametrize("retries", [0, 1, 3, 6])
def test_a_send_without_a_receive_gives_up_after_rnr_retry(near, far, check, retries):
    a, b = pair(near, far, **PATIENT, rnr_retry=retries, min_rnr_timer=1)
    send(a, near.region().sge(0, 8), wr_id=1)
    check(a, b, near=[(1, GIVEN_UP)], states=(ERR, RTS))


def test_what_stands_behind_it_is_flushed_in_order(near, far, check):
    a, b = pair(near, far, **PATIENT, rnr_retry=1, min_rnr_timer=1)
    source, target = near.region(), far.region()
    recv(a, source.sge(64, 64), wr_id=7)
    recv(a, source.sge(64, 64), wr_id=8)
    send(a, source.sge(0, 8), wr_id=1)
    write(a, source.sge(0, 8), target.remote(), wr_id=2)
    send(a, source.sge(0, 8), wr_id=3, flags=0)
    check(a, b, near=[(1, GIVEN_UP), (2, FLUSHED), (3, FLUSHED), (7, FLUSHED), (8, FLUSHED)], states=(ERR, RTS))


def test_what_stands_behind_it_has_no_effect(near, far):
    a, _b = pair(near, far, **PATIENT, rnr_retry=2, min_rnr_timer=1)
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    source.fill(1)
    send(a, source.sge(0, 8), wr_id=1)
    write(a, source.sge(0, 4096), target.remote(), wr_id=2)
    completions(near.cq, 2)
    assert target.bytes() == before


def test_rnr_retry_7_asks_until_a_receive_comes(near, far):
    a, b = pair(near, far, **FOREVER)
    source, target = near.region(), far.region()
    source.fill(1)
    send(a, source.sge(0, 100), wr_id=1)
    assert leftovers(near.cq) == []
    assert state(a) == RTS
    recv(b, target.sge(), wr_id=7)
    assert successes(far.cq, 1)[0].byte_len == 100
    assert successes(near.cq, 1)[0].wr_id == 1
    assert target.bytes(0, 100) == source.bytes(0, 100)


def test_a_receive_posted_while_retries_are_left_is_in_time(near, far):
    a, b = pair(near, far, **PATIENT, rnr_retry=6, min_rnr_timer=26)  # 82 ms each
    source, target = near.region(), far.region()
    source.fill(1)
    send(a, source.sge(0, 8), wr_id=1)
    assert leftovers(near.cq, polls=4) == []
    recv(b, target.sge(), wr_id=7)
    assert [each.wr_id for each in (*successes(near.cq, 1), *successes(far.cq, 1))] == [1, 7]


def test_each_request_has_its_own_retries(near, far):
    """The counter starts anew with every request that gets through (IBA C9-112, recalled)."""
    a, b = pair(near, far, **PATIENT, rnr_retry=4, min_rnr_timer=26)
    source, target = near.region(), far.region()
    for wr_id in range(1, 6):
        send(a, source.sge(0, 8), wr_id=wr_id)
        assert leftovers(near.cq, polls=4) == []
        recv(b, target.sge(), wr_id=wr_id)
        assert successes(near.cq, 1)[0].wr_id == wr_id
        successes(far.cq, 1)


def test_a_train_of_sends_stops_at_the_one_without_a_receive_and_goes_on_in_order(near, far):
    a, b = pair(near, far, **FOREVER)
    source, target = near.region(), far.region()
    source.fill(1)
    for wr_id in range(2):
        recv(b, target.sge(wr_id * 64, 64), wr_id=wr_id)
    for wr_id in range(6):
        send(a, source.sge(wr_id * 64, 64), wr_id=wr_id)
    assert [each.wr_id for each in successes(near.cq, 2)] == [0, 1]
    assert leftovers(near.cq) == []
    for wr_id in range(2, 6):
        recv(b, target.sge(wr_id * 64, 64), wr_id=wr_id)
    assert [each.wr_id for each in successes(near.cq, 4)] == [2, 3, 4, 5]
    assert [each.wr_id for each in successes(far.cq, 6)] == [0, 1, 2, 3, 4, 5]
    assert target.bytes(0, 384) == source.bytes(0, 384)


def test_a_train_that_gives_up_in_the_middle_keeps_what_was_done(near, far, check):
    a, b = pair(near, far, **PATIENT, rnr_retry=1, min_rnr_timer=1)
    source, target = near.region(), far.region()
    recv(b, target.sge(), wr_id=7)
    recv(b, target.sge(), wr_id=8)
    for wr_id in range(1, 5):
        send(a, source.sge(0, 8), wr_id=wr_id)
    check(a, b, near=[(1, "SUCCESS"), (2, "SUCCESS"), (3, GIVEN_UP), (4, FLUSHED)],
          far=[(7, "SUCCESS"), (8, "SUCCESS")], states=(ERR, RTS))  # fmt: skip


def test_a_multi_packet_send_without_a_receive_leaves_no_byte(near, far):
    a, b = pair(near, far, **FOREVER)
    source, target = near.region(4), far.region(4)
    source.fill(1)
    send(a, source.sge(0, 3 * 1024 + 7), wr_id=1)
    assert leftovers(near.cq) == []
    target.fill(2)
    before = target.bytes()
    recv(b, target.sge(0, 8192), wr_id=7)
    assert successes(far.cq, 1)[0].byte_len == 3 * 1024 + 7
    successes(near.cq, 1)
    assert target.bytes() == source.bytes(0, 3 * 1024 + 7) + before[3 * 1024 + 7 :]


def test_a_write_with_immediate_needs_its_receive_only_at_its_last_packet(near, far, accept):
    a, b = pair(near, far, **PATIENT, rnr_retry=1, min_rnr_timer=1)
    source, target = near.region(4), far.region(4)
    source.fill(1)
    target.fill(2)
    before = target.bytes()
    write(a, source.sge(0, 4000), target.remote(), imm=5, wr_id=1)
    accept("near", gather(near.cq, 1), spec=[(1, GIVEN_UP)])
    after = target.bytes()
    assert after[4000:] == before[4000:]
    packets = next(n for n in range(4) if after[n * 1024 :] == before[n * 1024 :])
    assert after[: packets * 1024] == source.bytes(0, packets * 1024)
    accept("packets of a message without its end", packets, spec={0, 1, 2, 3},
           why="left open: a WRITE's data may be visible before its message is complete")  # fmt: skip
    assert (state(a), state(b)) == (ERR, RTS)


def test_a_write_with_immediate_waits_for_its_receive(near, far):
    a, b = pair(near, far, **FOREVER)
    source, target = near.region(4), far.region(4)
    source.fill(1)
    write(a, source.sge(0, 4000), target.remote(), imm=5, wr_id=1)
    assert leftovers(near.cq) == []
    recv(b, target.sge(8192, 8), wr_id=7)
    (done,) = successes(far.cq, 1)
    assert (done.wr_id, done.byte_len, done.imm_data) == (7, 4000, 5)
    successes(near.cq, 1)
    assert target.bytes(0, 4000) == source.bytes(0, 4000)


def test_waiting_for_a_receive_is_not_waiting_for_a_response(near, far, accept):
    """An RNR NAK is an answer, so a requester that gets one each time never runs out of `retry_cnt`."""
    a, b = pair(near, far, timeout=10, retry_cnt=1, rnr_retry=7, min_rnr_timer=12)
    send(a, near.region().sge(0, 8), wr_id=1)
    accept("a request answered by RNR NAKs only", gather(near.cq, 1, 0.3), spec=[], rxe=[(1, "RETRY_EXC_ERR")],
           why="rxe is wrong: its retransmission timer (4 ms here) runs on through the RNR wait and counts down "
               "retry_cnt, which IBA 9.7.5.2.8 (recalled) keeps for responses that do not come")  # fmt: skip
    recv(b, far.region().sge(), wr_id=7)


def test_a_longer_min_rnr_timer_waits_longer(near, far):
    """82 ms twice against 0.01 ms twice."""
    slow = pair(near, far, **PATIENT, rnr_retry=1, min_rnr_timer=26)
    quick = pair(near, far, **PATIENT, rnr_retry=1, min_rnr_timer=1)
    source = near.region()
    send(slow[0], source.sge(0, 8), wr_id=1)
    send(quick[0], source.sge(0, 8), wr_id=2)
    assert gather(near.cq, 2) == [(2, GIVEN_UP), (1, GIVEN_UP)]


def test_a_qp_that_gave_up_works_again_after_reset(near, far):
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    send(a, source.sge(0, 8), wr_id=1)
    assert gather(near.cq, 1) == [(1, GIVEN_UP)]
    restart(a), restart(b)
    connect(a, b)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, 8), wr_id=2)
    assert (successes(near.cq, 1)[0].wr_id, successes(far.cq, 1)[0].wr_id) == (2, 7)


def test_the_side_without_receives_may_send_meanwhile(near, far):
    a, b = pair(near, far, **FOREVER)
    source, target = near.region(), far.region()
    send(a, source.sge(0, 8), wr_id=1)
    recv(a, source.sge(64, 64), wr_id=8)
    send(b, target.sge(0, 8), wr_id=2)
    assert successes(far.cq, 1)[0].wr_id == 2
    assert successes(near.cq, 1)[0].wr_id == 8
    recv(b, target.sge(64, 64), wr_id=7)
    assert (successes(near.cq, 1)[0].wr_id, successes(far.cq, 1)[0].wr_id) == (1, 7)


def test_a_requester_taken_to_error_stops_asking(near, far, check):
    a, b = pair(near, far, **FOREVER)
    send(a, near.region().sge(0, 8), wr_id=1)
    assert leftovers(near.cq) == []
    break_by_hand(a)
    assert gather(near.cq, 1) == [(1, FLUSHED)]
    recv(b, far.region().sge(), wr_id=7)
    check(a, b, states=(ERR, RTS))


def test_the_timer_of_the_side_that_answers_counts(near, far):
    """`min_rnr_timer` is the responder's; the requester's own is for what it is asked."""
    source, kept = near.region(), []
    for wr_id, (asks, answers) in enumerate([(1, 26), (26, 1)]):
        a, b = near.qp(), far.qp()
        a.to_rts(attributes(a, b, **PATIENT, rnr_retry=1, min_rnr_timer=asks))
        b.to_rts(attributes(b, a, **PATIENT, rnr_retry=1, min_rnr_timer=answers))
        kept += [a, b]
        send(a, source.sge(0, 8), wr_id=wr_id)
    assert gather(near.cq, 2) == [(1, GIVEN_UP), (0, GIVEN_UP)]
