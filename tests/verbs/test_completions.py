"""Completion queues: order, who a completion is of, sizes, overflow, resizing."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .sides import (
    atomic_request,
    chain,
    connect,
    needs,
    pair,
    read,
    recv,
    refusal,
    regions,
    request,
    send,
    state,
    write,
)
from .waiting import async_event, leftovers, successes


def test_completions_of_different_operations_keep_the_order_of_posting(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far)
    recv(b, target.sge(0, 8))
    recv(b)
    a.post_send(chain(
        request(e.IBV_WR_RDMA_READ, source.sge(4096, 4096), target.remote(), wr_id=0),
        request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=1),
        request(e.IBV_WR_RDMA_WRITE, source.sge(0, 8), target.remote(64), wr_id=2),
        atomic_request(source.sge(0, 8), target.remote(128), add=1, wr_id=3),
        request(e.IBV_WR_RDMA_WRITE_WITH_IMM, source.sge(0, 8), target.remote(256), wr_id=4),
        request(e.IBV_WR_RDMA_READ, source.sge(0, 8), target.remote(), wr_id=5),
    ))  # fmt: skip
    done = successes(near.cq, 6)
    assert [each.wr_id for each in done] == [0, 1, 2, 3, 4, 5]
    assert [each.opcode for each in done] == [
        *(e.IBV_WC_RDMA_READ, e.IBV_WC_SEND, e.IBV_WC_RDMA_WRITE),
        *(e.IBV_WC_FETCH_ADD, e.IBV_WC_RDMA_WRITE, e.IBV_WC_RDMA_READ),
    ]


@pytest.mark.parametrize("wr_id", [0, 1, 1 << 32, 2**64 - 1])
def test_the_programs_number_comes_back_whole(near, far, wr_id):
    a, b = pair(near, far)
    source, target = regions(near, far)
    recv(b, target.sge(), wr_id=wr_id)
    send(a, source.sge(0, 8), wr_id=wr_id)
    assert successes(near.cq, 1)[0].wr_id == successes(far.cq, 1)[0].wr_id == wr_id


def test_many_qps_on_one_cq_are_told_apart(near, far):
    source, target = regions(near, far)
    pairs = [pair(near, far) for _ in range(8)]
    for round_ in range(4):
        for index, (a, b) in enumerate(pairs):
            recv(b, target.sge(16 * index, 8), wr_id=100 * index + round_)
            send(a, source.sge(16 * index, 8), wr_id=100 * index + round_)
    sent, received = successes(near.cq, 32), successes(far.cq, 32)
    for index, (a, b) in enumerate(pairs):
        expected = [100 * index + round_ for round_ in range(4)]
        assert [each.wr_id for each in sent if each.qp_num == a.qp_num] == expected
        assert [each.wr_id for each in received if each.qp_num == b.qp_num] == expected


def test_send_and_receive_completions_go_to_their_own_cqs(near, far):
    sends, receives = near.new_cq(), near.new_cq()
    a, b = near.qp(scq=sends, rcq=receives), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    recv(a, source.sge(0, 8), wr_id=1)
    recv(b, target.sge(0, 8), wr_id=2)
    send(a, source.sge(100, 8), wr_id=3)
    send(b, target.sge(100, 8), wr_id=4)
    assert successes(sends, 1)[0].wr_id == 3
    assert successes(receives, 1)[0].wr_id == 1
    assert sorted(each.wr_id for each in successes(far.cq, 2)) == [2, 4]
    assert leftovers(sends, 3) == leftovers(receives, 3) == []


def test_both_halves_of_a_qp_may_share_a_cq_with_its_peer(near):
    a, b = near.qp(), near.qp()
    connect(a, b)
    source, target = near.region(), near.region()
    recv(b, target.sge(0, 8), wr_id=1)
    send(a, source.sge(0, 8), wr_id=2)
    assert sorted(each.wr_id for each in successes(near.cq, 2)) == [1, 2]


def test_a_poll_takes_no_more_than_it_is_asked_for(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    for index in range(10):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
    read(a, source.sge(0, 0), target.remote(), wr_id=10)
    found = []
    for _ in range(10_000):
        count, some = near.cq.poll(3)
        assert count == len(some) <= 3
        found += [each.wr_id for each in some]
        if len(found) == 11:
            break
    assert found == list(range(11))
    assert near.cq.poll(3) == (0, [])


@pytest.mark.parametrize("asked", [1, 2, 3, 7, 16, 100])
def test_a_cq_holds_as_many_completions_as_it_says(near, far, asked):
    cq = near.new_cq(asked)
    assert cq.cqe >= asked
    a, b = near.qp(scq=cq, max_send_wr=256), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    for index in range(cq.cqe):
        write(a, source.sge(0, 8), target.remote(8 * index), wr_id=index)
    recv(b)
    write(a, source.sge(0, 0), target.remote(), imm=1, flags=0)
    successes(far.cq, 1)  # all have been carried out
    assert [each.wr_id for each in successes(cq, cq.cqe)] == list(range(cq.cqe))


def test_a_cq_may_be_used_around_and_around(near, far):
    cq = near.new_cq(4)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    for index in range(50):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
        assert successes(cq, 1)[0].wr_id == index


def test_an_overflow_is_told_by_an_event(near, far, accept):
    cq = near.new_cq(2)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    for index in range(cq.cqe + 3):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
    events = []
    while (event := async_event(near.context, seconds=0.3)) is not None and len(events) < 8:
        events.append(event)
    assert e.IBV_EVENT_CQ_ERR in events
    why = (
        "IBA 11.6.3.2 (recalled): after an overflow of its CQ a QP cannot go on, its completions are lost. "
        "rxe posts the event for each lost completion and lets the QP run"
    )
    accept("state of the QP", state(a), spec="ERR", rxe="RTS", why=why)
    accept("CQ_ERR events of one CQ", events.count(e.IBV_EVENT_CQ_ERR), spec=1, rxe=set(range(1, 9)), why=why)


def test_a_cq_larger_than_the_device_allows_is_refused(near):
    limit = near.context.query_device().max_cqe
    assert refusal(near.new_cq, limit + 1) == "EINVAL"
    assert refusal(near.new_cq, 0) == "EINVAL"


def test_growing_keeps_what_waits(near, far):
    cq = near.new_cq(4)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    for index in range(4):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
    recv(b)
    write(a, source.sge(0, 0), target.remote(), imm=1, flags=0)
    successes(far.cq, 1)
    with needs("resizing of CQs"):
        cq.resize(64)
    assert cq.cqe >= 64
    for index in range(4, 40):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
    assert [each.wr_id for each in successes(cq, 40)] == list(range(40))


def test_shrinking_below_what_waits_is_refused_and_loses_nothing(near, far):
    cq = near.new_cq(40)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = regions(near, far)
    for index in range(30):
        write(a, source.sge(0, 8), target.remote(), wr_id=index)
    recv(b)
    write(a, source.sge(0, 0), target.remote(), imm=1, flags=0)
    successes(far.cq, 1)
    with needs("resizing of CQs"):
        assert refusal(cq.resize, 2) in ("EINVAL", "EOPNOTSUPP")
    assert [each.wr_id for each in successes(cq, 30)] == list(range(30))


def test_the_completion_of_a_receive_says_how_much_came(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far)
    for size in (1, 100, 5000):
        recv(b, target.sge())
        send(a, source.sge(0, size))
        assert successes(far.cq, 1)[0].byte_len == size


def test_completions_survive_the_qp(near, far, accept):
    """Completions that wait are the CQ's; whether they go with their QP is left open."""
    a, b = pair(near, far)
    source, target = regions(near, far)
    write(a, source.sge(0, 8), target.remote(), wr_id=5, flags=e.IBV_SEND_SIGNALED)
    recv(b)
    write(a, source.sge(0, 0), target.remote(), imm=1, flags=0)
    successes(far.cq, 1)
    a.close()
    left = tuple(each.wr_id for each in leftovers(near.cq))
    why = "ibv_destroy_qp(3) says nothing; mlx5's library drops them, rxe's leaves them"
    accept("completions after their QP is destroyed", left, spec={(), (5,)}, why=why)


def test_two_hundred_messages_of_four_qps_interleaved(near, far):
    source, target = regions(near, far)
    pairs = [pair(near, far) for _ in range(4)]
    for round_ in range(50):
        for index, (a, b) in enumerate(pairs):
            recv(b, target.sge(1000 * index + 8 * round_, 8), wr_id=round_)
            send(a, source.sge(8 * round_, 8), wr_id=round_)
    sent, received = successes(near.cq, 200), successes(far.cq, 200)
    for a, b in pairs:
        assert [each.wr_id for each in sent if each.qp_num == a.qp_num] == list(range(50))
        assert [each.wr_id for each in received if each.qp_num == b.qp_num] == list(range(50))
    for index in range(4):
        assert target.bytes(1000 * index, 400) == source.bytes(0, 400)
