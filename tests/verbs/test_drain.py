"""The send queue drained state (SQD): what was begun ends, what comes later waits."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.qp import QPAttr

from .sides import UC, attributes, datagram, datagrams, move_to, pair, read, recv, refusal, regions, send, state, write
from .waiting import async_event, completions, leftovers, status, successes

TO_SQD = e.IBV_QP_EN_SQD_ASYNC_NOTIFY


def drain(qp, notify=False):
    """Take the QP from RTS to SQD, with an event once it is drained if asked for."""
    attr = QPAttr()
    attr.en_sqd_async_notify = int(notify)
    move_to(qp, e.IBV_QPS_SQD, attr, TO_SQD if notify else 0)


LOST_WAKEUP = (
    "IBA 10.3.1 (recalled): back in RTS the queue works on. rxe modifies the state and wakes no task "
    "(rxe_qp_from_attr), so requests from SQD wait for the next post_send"
)
NOT_BEGUN = (
    "IBA 10.3.1 (recalled): requests that were begun end before the queue is drained. rxe takes one that waits "
    "for its RNR timer for not begun (rxe_req.c, the check for SQD): it is drained with it and sends it in RTS"
)


def resume(qp, cq, count, poke):
    """Back to RTS: wr_ids of the next `count` completions, and whether it took `poke()`, another post, to have them."""
    move_to(qp, e.IBV_QPS_RTS)
    done, poked = leftovers(cq, polls=5), False
    if len(done) < count:
        poke()
        poked = True
        done += successes(cq, count + 1 - len(done))[:count]
    return [each.wr_id for each in done], "after another post" if poked else "by itself"


def test_an_idle_queue_is_drained_at_once(near, far):
    a, _b = pair(near, far)
    drain(a, notify=True)
    assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    assert state(a) == "SQD"
    assert a.query(0)[0].sq_draining == 0


def test_without_asking_there_is_no_event(near, far, accept):
    a, _b = pair(near, far)
    drain(a)
    why = "IBA 10.3.1 (recalled): the event is for those who ask by en_sqd_async_notify; rxe never looks at it"
    accept("SQ_DRAINED unasked", async_event(near.context, seconds=0.1) is not None, spec=False, rxe=True, why=why)
    assert state(a) == "SQD"


def test_what_is_posted_in_sqd_waits_for_rts(near, far, accept):
    a, _b = pair(near, far)
    source, target = regions(near, far, pages=4)
    drain(a)
    for index in range(3):
        write(a, source.sge(100 * index, 100), target.remote(100 * index), wr_id=index)
    assert leftovers(near.cq) == []
    assert target.bytes(0, 300) == bytes(300)
    done, how = resume(a, near.cq, 3, lambda: write(a, source.sge(0, 0), target.remote()))
    assert done == [0, 1, 2]
    accept("requests from SQD are sent", how, spec="by itself", rxe="after another post", why=LOST_WAKEUP)
    assert target.bytes(0, 300) == source.bytes(0, 300)


def test_what_was_begun_before_ends_and_the_event_comes_after_it(near, far, accept):
    """The requests of before wait for a receive; when it comes they end, and only then the queue is drained."""
    a, b = pair(near, far, rnr_retry=7, min_rnr_timer=1, timeout=0)
    source, target = regions(near, far, pages=4)
    send(a, source.sge(0, 5000), wr_id=1)
    assert leftovers(near.cq, polls=3) == []
    drain(a, notify=True)
    early = async_event(near.context, seconds=0.1) is not None
    accept("drained while a request waits for its RNR timer", early, spec=False, rxe=True, why=NOT_BEGUN)
    recv(b, target.sge(0, 5000))
    finished = len(leftovers(near.cq)) == 1
    accept("the request ends in SQD", finished, spec=True, rxe=False, why=NOT_BEGUN)
    if not finished:
        assert resume(a, near.cq, 1, lambda: write(a, source.sge(0, 0), target.remote()))[0] == [1]
    if not early:
        assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    assert target.bytes(0, 5000) == source.bytes(0, 5000)


def test_the_queue_says_that_it_is_draining(near, far, accept):
    a, b = pair(near, far, rnr_retry=7, min_rnr_timer=1, timeout=0)
    source, target = regions(near, far, pages=4)
    send(a, source.sge(0, 8))
    leftovers(near.cq, polls=3)
    drain(a)
    leftovers(near.cq, polls=3)
    draining = a.query(0)[0].sq_draining
    accept("sq_draining while a request waits for its RNR timer", draining, spec=1, rxe=0, why=NOT_BEGUN)
    recv(b, target.sge(0, 8))
    leftovers(near.cq, polls=3)
    assert a.query(0)[0].sq_draining == 0


def test_drain_many_times_in_the_middle_of_traffic(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far, pages=4)
    for round_ in range(6):
        for index in range(4):
            write(a, source.sge(1000 * index, 3000), target.remote(1000 * index), wr_id=10 * round_ + index)
        drain(a, notify=True)
        assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
        move_to(a, e.IBV_QPS_RTS)
        write(a, source.sge(0, 0), target.remote(), wr_id=10 * round_ + 4)  # see LOST_WAKEUP: some may not have begun
        done = [each.wr_id for each in successes(near.cq, 5)]
        assert done == [10 * round_ + index for index in range(5)]
    assert target.bytes(0, 6000) == source.bytes(0, 6000)


def test_the_queue_still_answers_in_sqd(near, far):
    """Only sending stops: the responder half works on."""
    a, b = pair(near, far)
    mine, theirs = near.region(), far.region()
    theirs.fill(7)
    drain(a)
    recv(a, mine.sge(0, 100))
    send(b, theirs.sge(0, 100))
    write(b, theirs.sge(100, 100), mine.remote(100))
    read(b, theirs.sge(1000, 100), mine.remote(100))
    successes(far.cq, 3)
    assert successes(near.cq, 1)[0].byte_len == 100
    assert mine.bytes(0, 200) == theirs.bytes(0, 200)
    assert theirs.bytes(1000, 100) == mine.bytes(100, 100)


def test_receives_posted_in_sqd_are_used(near, far):
    a, b = pair(near, far, rnr_retry=7, min_rnr_timer=1, timeout=0)
    mine, theirs = near.region(), far.region()
    drain(a)
    send(b, theirs.sge(0, 8))
    recv(a, mine.sge())
    successes(near.cq, 1)
    successes(far.cq, 1)


@pytest.fixture
def changed_in_sqd(near, far):
    """A connection whose near end waits for ever for a response or a receive, until it is changed in SQD."""
    a, b = pair(near, far, timeout=0, retry_cnt=7, rnr_retry=7, min_rnr_timer=1)
    drain(a, notify=True)
    assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    attr = attributes(a, b, timeout=9, retry_cnt=5, rnr_retry=2)
    move_to(a, e.IBV_QPS_SQD, attr, e.IBV_QP_TIMEOUT | e.IBV_QP_RETRY_CNT | e.IBV_QP_RNR_RETRY)
    found = a.query(0)[0]
    assert (found.timeout, found.retry_cnt, found.rnr_retry) == (9, 5, 2)
    move_to(a, e.IBV_QPS_RTS)
    return a, b


def test_attributes_may_change_in_sqd(near, changed_in_sqd):
    """Nobody receives: the retries from SQD end it."""
    a, _b = changed_in_sqd
    send(a, near.region().sge(0, 8))
    assert status(completions(near.cq, 1)[0]) == "RNR_RETRY_EXC_ERR"


def test_a_timeout_from_sqd_runs_in_rts(near, far, changed_in_sqd):
    a, b = changed_in_sqd
    source, target = regions(near, far)
    write(a, source.sge(0, 8), target.remote())
    successes(near.cq, 1)
    move_to(b, e.IBV_QPS_RESET)
    send(a, source.sge(0, 8))
    assert status(completions(near.cq, 1)[0]) == "RETRY_EXC_ERR"


@pytest.mark.parametrize("goal", ["RESET", "ERR", "RTS"])
def test_out_of_sqd(near, far, goal):
    a, _b = pair(near, far)
    drain(a, notify=True)
    assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    move_to(a, getattr(e, f"IBV_QPS_{goal}"))
    assert state(a) == goal


@pytest.mark.parametrize("goal", ["INIT", "RTR"])
def test_not_out_of_sqd(near, far, goal):
    a, _b = pair(near, far)
    drain(a)
    assert refusal(move_to, a, getattr(e, f"IBV_QPS_{goal}")) == "EINVAL"
    assert state(a) == "SQD"


def test_a_uc_queue_drains(near, far, accept):
    a, b = pair(near, far, UC)
    source, target = regions(near, far, pages=4)
    drain(a, notify=True)
    assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    recv(b, target.sge())
    send(a, source.sge(0, 3000))
    assert leftovers(near.cq) == leftovers(far.cq) == []
    _, how = resume(a, near.cq, 1, lambda: write(a, source.sge(0, 0), target.remote()))
    accept("requests from SQD are sent", how, spec="by itself", rxe="after another post", why=LOST_WAKEUP)
    assert successes(far.cq, 1)[0].byte_len == 3000


def test_a_datagram_queue_drains(near, far, accept):
    a, b = datagrams(near), datagrams(far)
    source, target = regions(near, far, pages=4)
    ah = near.address_of(far)
    drain(a, notify=True)
    assert async_event(near.context) == e.IBV_EVENT_SQ_DRAINED
    recv(b, target.sge())
    datagram(a, source.sge(0, 100), ah, b.qp_num)
    assert leftovers(near.cq) == []
    _, how = resume(a, near.cq, 1, lambda: datagram(a, source.sge(0, 0), ah, b.qp_num))
    accept("requests from SQD are sent", how, spec="by itself", rxe="after another post", why=LOST_WAKEUP)
    assert successes(far.cq, 1)[0].byte_len == 140
