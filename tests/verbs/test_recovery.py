"""QPs that failed start anew; QPs with requests outstanding are destroyed; QPs are stopped while they work."""

from __future__ import annotations

import pytest

from .failures import ERR, FAST, FLUSHED, PATIENT, RTS, break_by_hand, check, gather, restart
from .memory import Remote
from .sides import UC, atomic, attributes, connect, pair, read, recv, send, state, write
from .waiting import completions, has_cq_event, leftovers, status, successes

__all__ = ["check"]


def talk(near, far, a, b, source, target, first=50):
    """Everything works: a SEND each way, WRITE, READ, atomic."""
    source.fill(3), target.fill(4)
    recv(b, target.sge(0, 64), wr_id=first)
    send(a, source.sge(0, 64), wr_id=first + 1)
    assert [each.wr_id for each in successes(far.cq, 1)] == [first]
    assert [each.wr_id for each in successes(near.cq, 1)] == [first + 1]
    recv(a, source.sge(64, 64), wr_id=first + 2)
    send(b, target.sge(64, 64), wr_id=first + 3)
    assert [each.wr_id for each in successes(near.cq, 1)] == [first + 2]
    assert [each.wr_id for each in successes(far.cq, 1)] == [first + 3]
    write(a, source.sge(128, 128), target.remote(128), wr_id=first + 4)
    read(a, source.sge(256, 128), target.remote(256), wr_id=first + 5)
    atomic(a, source.sge(512, 8), target.remote(512), add=1, wr_id=first + 6)
    assert [each.wr_id for each in successes(near.cq, 3)] == [first + 4, first + 5, first + 6]
    assert source.bytes(0, 384) == target.bytes(0, 384)


FAILURES = ("remote access", "local protection", "no receive", "no peer", "by hand", "receive too short")


def fail(how, near, far, a, b, source, target):
    """Bring a to ERR, and what it had to say away."""
    if how == "remote access":
        write(a, source.sge(0, 8), Remote(target.address, 1), wr_id=1)
    elif how == "local protection":
        read(a, far.region().sge(0, 8), target.remote(), wr_id=1)  # a key of other memory, at least of another address
    elif how == "no receive":
        send(a, source.sge(0, 8), wr_id=1)
    elif how == "no peer":
        restart(b)
        send(a, source.sge(0, 8), wr_id=1)
    elif how == "by hand":
        recv(a, source.sge(), wr_id=1)
        break_by_hand(a)
    else:
        recv(b, target.sge(0, 4), wr_id=2)
        send(a, source.sge(0, 8), wr_id=1)
    send(a, source.sge(0, 8), wr_id=9) if how != "by hand" else None
    gather(near.cq, 2 if how != "by hand" else 1), gather(far.cq, 1, 0.1)
    assert state(a) == ERR


@pytest.mark.parametrize("how", FAILURES)
def test_a_failed_pair_works_again_after_reset(near, far, how):
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    fail(how, near, far, a, b, source, target)
    restart(a), restart(b)
    connect(a, b, **PATIENT, sq_psn=0x777777)
    talk(near, far, a, b, source, target)
    assert leftovers(near.cq, 4) + leftovers(far.cq, 4) == []


def test_a_pair_can_fail_and_start_anew_many_times(near, far):
    a, b = pair(near, far, **PATIENT)
    source, target = near.region(), far.region()
    for turn in range(10):
        recv(b, target.sge(), wr_id=turn)
        write(a, source.sge(0, 8), Remote(target.address, 1), wr_id=turn)
        assert gather(near.cq, 1, quiet=1) == [(turn, "REM_ACCESS_ERR")]
        assert gather(far.cq, 1, quiet=1) == [(turn, FLUSHED)]
        restart(a), restart(b)
        connect(a, b, **PATIENT)
    talk(near, far, a, b, source, target)


def test_receives_of_the_time_before_reset_are_gone(near, far, check):
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    recv(b, target.sge(), wr_id=7)
    restart(a), restart(b)
    connect(a, b, **FAST)
    send(a, source.sge(0, 8), wr_id=1)
    check(a, b, near=[(1, "RNR_RETRY_EXC_ERR")], states=(ERR, RTS))


def test_one_side_that_starts_anew_does_not_hear_the_other(near, far):
    """B still goes on from its old PSNs: A's requests are not those it expects."""
    a, b = pair(near, far, **FAST)
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    restart(a)
    a.to_rts(attributes(a, b, **FAST, sq_psn=0x400000))
    write(a, source.sge(0, 8), target.remote(), wr_id=1)
    assert gather(near.cq, 1) == [(1, "RETRY_EXC_ERR")]
    assert target.bytes() == before


@pytest.mark.parametrize("outstanding", ["nothing", "receives", "requests", "both", "errors"])
def test_a_qp_with_requests_outstanding_can_be_destroyed(near, far, outstanding):
    a, b = pair(near, far, **PATIENT, rnr_retry=7)
    source = near.region()
    if outstanding in ("receives", "both"):
        for wr_id in range(4):
            recv(a, source.sge(), wr_id=wr_id)
    if outstanding in ("requests", "both"):
        for wr_id in range(4):
            send(a, source.sge(0, 8), wr_id=wr_id)
    if outstanding == "errors":
        recv(a, source.sge(), wr_id=1)
        break_by_hand(a)
    a.close()
    assert all(status(each) == FLUSHED for each in near.cq.poll(32)[1])
    c, d = pair(near, far, **PATIENT)
    gather(near.cq, 0)
    talk(near, far, c, d, source, far.region())
    assert state(b) == RTS


def test_uc_to_err_and_back(near, far):
    a, b = pair(near, far, UC)
    source, target = near.region(), far.region()
    recv(a, source.sge(), wr_id=1)
    break_by_hand(a)
    assert gather(near.cq, 1) == [(1, FLUSHED)]
    restart(a), restart(b)
    connect(a, b)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, 8), wr_id=2)
    assert successes(far.cq, 1)[0].wr_id == 7


def test_flushes_wake_an_armed_cq(near, far):
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    a, b = near.qp(scq=cq, rcq=cq), far.qp()
    connect(a, b)
    recv(a, near.region().sge(), wr_id=1)
    cq.req_notify()
    break_by_hand(a)
    assert has_cq_event(channel, cq)
    assert gather(cq, 1) == [(1, FLUSHED)]


@pytest.mark.parametrize("what", ["request", "receive"])
def test_an_error_wakes_a_cq_armed_for_solicited_events(near, far, accept, what):
    """IBA 11.4.2.2 (recalled): an unsuccessful completion is a solicited one."""
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    a, b = near.qp(scq=cq, rcq=cq), far.qp()
    connect(a, b, **FAST)
    cq.req_notify(True)
    if what == "request":
        send(a, near.region().sge(0, 8), wr_id=1)
    else:
        recv(a, near.region().sge(0, 4), wr_id=1)
        send(b, far.region().sge(0, 8), wr_id=2)
    accept(f"an event for a failed {what}", has_cq_event(channel, cq, 0.5), spec=True, rxe=False,
           why="rxe is wrong: only the solicited bit of a message counts there, whatever the status")  # fmt: skip
    assert len(gather(cq, 1)) == 1


def test_errors_of_two_qps_on_one_cq_name_their_qp(near, far):
    pairs = [pair(near, far, **PATIENT) for _ in range(3)]
    source, target = near.region(), far.region()
    for wr_id, (a, _b) in enumerate(pairs):
        write(a, source.sge(0, 8), Remote(target.address, 1), wr_id=wr_id)
    done = completions(near.cq, 3)
    assert {each.wr_id: each.qp_num for each in done} == {n: a.qp_num for n, (a, _b) in enumerate(pairs)}
    assert {status(each) for each in done} == {"REM_ACCESS_ERR"}


def test_flushed_completions_name_their_qp(near, far):
    a, _b = pair(near, far)
    recv(a, near.region().sge(), wr_id=1)
    break_by_hand(a)
    (done,) = completions(near.cq, 1)
    assert (done.wr_id, done.qp_num, status(done)) == (1, a.qp_num, FLUSHED)
