"""Lists of requests: what is posted of them, which complete, and in which order they take effect."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.pyverbs_error import PyverbsRDMAError

from .sides import UC, atomic_request, chain, pair, read, receive, recv, refusal, regions, request, send, write
from .waiting import completions, leftovers, status, successes

UNSIGNALED = 0
FENCED = e.IBV_SEND_SIGNALED | e.IBV_SEND_FENCE


def writes(source, target, count, flags=e.IBV_SEND_SIGNALED):
    """Requests that each write 8 bytes to their own place."""
    return [
        request(e.IBV_WR_RDMA_WRITE, source.sge(8 * index, 8), target.remote(8 * index), wr_id=index, flags=flags)
        for index in range(count)
    ]


def test_a_chain_is_carried_out_in_order(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    a.post_send(chain(*writes(source, target, 20)))
    assert [each.wr_id for each in successes(near.cq, 20)] == list(range(20))
    assert target.bytes(0, 160) == source.bytes(0, 160)


def test_a_chain_of_receives_is_used_in_order(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far)
    b.post_recv(chain(*[receive(target.sge(8 * index, 8), wr_id=index) for index in range(20)]))
    for index in range(20):
        send(a, source.sge(8 * index, 8))
    assert [each.wr_id for each in successes(far.cq, 20)] == list(range(20))
    assert target.bytes(0, 160) == source.bytes(0, 160)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_refused_request_and_those_behind_it_are_not_posted(near, far, place):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    wrs = writes(source, target, 8)
    too_many = [source.sge(0, 1)] * (a.query(0)[1].cap.max_send_sge + 1)
    wrs[place] = request(e.IBV_WR_RDMA_WRITE, too_many, target.remote(), wr_id=place)
    with pytest.raises(PyverbsRDMAError):
        a.post_send(chain(*wrs))
    assert [each.wr_id for each in successes(near.cq, place)] == list(range(place))
    assert leftovers(near.cq) == []
    assert target.bytes(0, 64) == source.bytes(0, 8 * place) + bytes(64 - 8 * place)
    write(a, source.sge(0, 64), target.remote(), wr_id=99)
    assert successes(near.cq, 1)[0].wr_id == 99


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_refused_receive_and_those_behind_it_are_not_posted(near, far, place):
    a, b = pair(near, far, rnr_retry=0)
    source, target = regions(near, far)
    wrs = [receive(target.sge(8 * index, 8), wr_id=index) for index in range(5)]
    too_many = [target.sge(0, 1)] * (b.query(0)[1].cap.max_recv_sge + 1)
    wrs[place] = receive(too_many, wr_id=place)
    with pytest.raises(PyverbsRDMAError):
        b.post_recv(chain(*wrs))
    for index in range(place):
        send(a, source.sge(8 * index, 8))
    successes(near.cq, place)
    assert [each.wr_id for each in successes(far.cq, place)] == list(range(place))
    send(a, source.sge(0, 8))
    assert status(completions(near.cq, 1)[0]) == "RNR_RETRY_EXC_ERR"


def test_a_full_send_queue_refuses_until_completions_are_polled(near, far):
    a, b = pair(near, far, caps={"max_send_wr": 8}, rnr_retry=7, min_rnr_timer=1)
    source, target = regions(near, far)
    room = a.query(0)[1].cap.max_send_wr
    for index in range(room):
        send(a, source.sge(0, 8), wr_id=index)
    extra = [refusal(send, a, source.sge(0, 8)) for _ in range(3 * room)]
    assert extra[-1] == "ENOMEM", "the queue has no end"
    posted = room + extra.count("accepted")
    for _ in range(posted):
        recv(b, target.sge(0, 8))
    successes(near.cq, posted)
    write(a, source.sge(), target.remote())
    successes(near.cq, 1)


def test_a_full_receive_queue_refuses(near, far):
    _a, b = pair(near, far, caps={"max_recv_wr": 8})
    target = far.region()
    room = b.query(0)[1].cap.max_recv_wr
    answers = [refusal(recv, b, target.sge(0, 8)) for _ in range(4 * room)]
    assert answers[:room] == ["accepted"] * room
    assert answers[-1] == "ENOMEM"


def test_the_part_of_a_chain_that_fits_is_posted(near, far):
    a, b = pair(near, far, caps={"max_send_wr": 4}, rnr_retry=7, min_rnr_timer=1)
    source, target = regions(near, far)
    count = 4 * a.query(0)[1].cap.max_send_wr
    wrs = [request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=index) for index in range(count)]
    assert refusal(a.post_send, chain(*wrs)) == "ENOMEM"
    for _ in range(count):
        recv(b, target.sge(0, 8))
    posted = []
    while (polled := leftovers(near.cq, polls=5)) != []:
        posted += [each.wr_id for each in polled]
    assert posted == list(range(len(posted))) and 4 <= len(posted) < count


def test_only_signaled_requests_complete(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    wrs = writes(source, target, 10, flags=UNSIGNALED)
    wrs[4].send_flags = wrs[9].send_flags = e.IBV_SEND_SIGNALED
    a.post_send(chain(*wrs))
    assert [each.wr_id for each in successes(near.cq, 2)] == [4, 9]
    assert leftovers(near.cq, polls=5) == []
    assert target.bytes(0, 80) == source.bytes(0, 80)


@pytest.mark.parametrize("kind", ["write", "read", "send", "atomic"])
def test_unsignaled_requests_of_every_kind_are_silent(near, far, kind):
    a, b = pair(near, far)
    source, target = regions(near, far)
    recv(b, target.sge(0, 8))
    if kind == "write":
        write(a, source.sge(0, 8), target.remote(), flags=UNSIGNALED)
    elif kind == "read":
        read(a, source.sge(0, 8), target.remote(), flags=UNSIGNALED)
    elif kind == "send":
        send(a, source.sge(0, 8), flags=UNSIGNALED)
    else:
        a.post_send(atomic_request(source.sge(0, 8), target.remote(), add=1, flags=UNSIGNALED))
    write(a, source.sge(8, 8), target.remote(8), wr_id=7)
    assert [each.wr_id for each in successes(near.cq, 1)] == [7]
    assert leftovers(near.cq, polls=5) == []


def test_a_qp_that_signals_all_needs_no_flag(near, far):
    a, _b = pair(near, far, caps={"sq_sig_all": 1})
    source, target = regions(near, far)
    a.post_send(chain(*writes(source, target, 5, flags=UNSIGNALED)))
    assert [each.wr_id for each in successes(near.cq, 5)] == list(range(5))


def test_one_polled_completion_frees_the_unsignaled_requests_before_it(near, far):
    a, _b = pair(near, far, caps={"max_send_wr": 8})
    source, target = regions(near, far)
    for _round in range(5):
        wrs = writes(source, target, 8, flags=UNSIGNALED)
        wrs[7].send_flags = e.IBV_SEND_SIGNALED
        a.post_send(chain(*wrs))
        assert successes(near.cq, 1)[0].wr_id == 7


def test_unsignaled_uc_messages_arrive(near, far):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    for index in range(6):
        recv(b, target.sge(100 * index, 100))
        send(a, source.sge(100 * index, 100), flags=UNSIGNALED)
    successes(far.cq, 6)
    assert leftovers(near.cq, polls=5) == []
    assert target.bytes(0, 600) == source.bytes(0, 600)


# -- fence, and the order of effects


def test_a_fenced_write_sends_what_the_read_before_it_brought(near, far):
    a, _b = pair(near, far)
    scratch, there = near.region(4), far.region(8)
    there.fill(3)
    size = 3 * 4096
    for round_ in range(3):
        read(a, scratch.sge(0, size), there.remote(8 * round_), wr_id=0)
        write(a, scratch.sge(0, size), there.remote(4 * 4096), wr_id=1, flags=FENCED)
        assert [each.wr_id for each in successes(near.cq, 2)] == [0, 1]
        assert there.bytes(4 * 4096, size) == there.bytes(8 * round_, size)


def test_a_fenced_send_sends_what_the_atomic_before_it_brought(near, far):
    a, b = pair(near, far)
    scratch, there = near.region(), far.region()
    there.fill((41).to_bytes(8, "little"))
    recv(b, there.sge(64, 8))
    a.post_send(chain(
        atomic_request(scratch.sge(0, 8), there.remote(), add=1),
        request(e.IBV_WR_SEND, scratch.sge(0, 8), flags=FENCED),
    ))  # fmt: skip
    successes(near.cq, 2)
    successes(far.cq, 1)
    assert there.bytes(64, 8) == (41).to_bytes(8, "little")


def test_a_fence_with_nothing_to_wait_for_is_no_hindrance(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    a.post_send(chain(*writes(source, target, 6, flags=FENCED)))
    assert [each.wr_id for each in successes(near.cq, 6)] == list(range(6))


def test_a_read_sees_the_write_before_it(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far, pages=4)
    write(a, source.sge(0, 8000), target.remote(), flags=UNSIGNALED)
    read(a, source.sge(8192, 8000), target.remote())
    successes(near.cq, 1)
    assert source.bytes(8192, 8000) == source.bytes(0, 8000)


def test_the_receiver_of_a_send_sees_the_write_before_it(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far, pages=4)
    recv(b, target.sge(0, 0))
    write(a, source.sge(0, 9000), target.remote(), flags=UNSIGNALED)
    send(a, source.sge(0, 0), flags=UNSIGNALED)
    successes(far.cq, 1)
    assert target.bytes(0, 9000) == source.bytes(0, 9000)


def test_the_last_of_many_writes_to_one_place_stays(near, far):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    wrs = [request(e.IBV_WR_RDMA_WRITE, source.sge(8 * index, 8), target.remote(), flags=UNSIGNALED)
           for index in range(40)]  # fmt: skip
    wrs[-1].send_flags = e.IBV_SEND_SIGNALED
    a.post_send(chain(*wrs))
    successes(near.cq, 1)
    assert target.bytes(0, 8) == source.bytes(8 * 39, 8)
