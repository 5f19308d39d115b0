"""Inline data is copied when it is posted."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.wr import SGE

from .sides import UC, chain, datagram, datagrams, pair, read, recv, refusal, request, send, write
from .waiting import completions, leftovers, status, successes

INLINE = e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE
ASKED = 64
CAPS = {"max_inline_data": ASKED}


def limit(qp):
    """Bytes of inline data that the QP takes, as query_qp says."""
    return qp.query(e.IBV_QP_CAP)[1].cap.max_inline_data


def regions(near, far):
    source, target = near.region(), far.region()
    source.fill(1)
    return source, target


def test_a_qp_takes_at_least_the_inline_data_it_was_made_for(near):
    for asked in (0, 1, 16, 64, 100):
        assert limit(near.qp(max_inline_data=asked)) >= asked


@pytest.mark.parametrize("size", [0, 1, 7, 32, ASKED])
@pytest.mark.parametrize("operation", ["send", "write"])
def test_inline_data_may_change_as_soon_as_it_is_posted(near, far, operation, size):
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    data = source.bytes(0, size)
    recv(b, target.sge())
    if operation == "send":
        send(a, source.sge(0, size), flags=INLINE)
    else:
        write(a, source.sge(0, size), target.remote(), imm=1, flags=INLINE)
    source.fill(2)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == size
    assert target.bytes(0, size) == data
    assert target.bytes(size) == bytes(target.length - size)


def test_inline_data_up_to_the_queried_limit(near, far):
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    size = limit(a)
    recv(b, target.sge())
    send(a, source.sge(0, size), flags=INLINE)
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes(0, size) == source.bytes(0, size)


def test_more_inline_data_than_the_limit_is_refused_and_nothing_is_sent(near, far):
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    recv(b, target.sge())
    assert refusal(send, a, source.sge(0, limit(a) + 1), flags=INLINE) == "EINVAL"
    assert leftovers(near.cq) == leftovers(far.cq) == []
    send(a, source.sge(0, 8), flags=INLINE)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 8


def test_the_lengths_of_all_elements_count_for_the_limit(near, far):
    a, _b = pair(near, far, caps=CAPS)
    source, _target = regions(near, far)
    half = limit(a) // 2 + 1
    assert refusal(send, a, [source.sge(0, half), source.sge(0, half)], flags=INLINE) == "EINVAL"


def test_inline_data_is_gathered_from_several_elements(near, far):
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    recv(b, target.sge())
    send(a, [source.sge(0, 5), source.sge(100, 0), source.sge(200, 17), source.sge(301, 3)], flags=INLINE)
    expected = source.bytes(0, 5) + source.bytes(200, 17) + source.bytes(301, 3)
    source.fill(2)
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes(0, 25) == expected


def test_inline_data_needs_no_key(near, far):
    """ibv_post_send(3): the L_Key of an inline element is not checked, its memory need not be registered."""
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    recv(b, target.sge())
    send(a, SGE(source.address, 40, 0), flags=INLINE)
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes(0, 40) == source.bytes(0, 40)


def test_inline_and_other_requests_in_one_chain(near, far):
    a, b = pair(near, far, caps=CAPS)
    source, target = regions(near, far)
    for index in range(4):
        recv(b, target.sge(100 * index, 100))
    wrs = [request(e.IBV_WR_SEND, source.sge(100 * index, 50), flags=(INLINE, e.IBV_SEND_SIGNALED)[index % 2])
           for index in range(4)]  # fmt: skip
    a.post_send(chain(*wrs))
    successes(near.cq, 4)
    successes(far.cq, 4)
    for index in range(4):
        assert target.bytes(100 * index, 50) == source.bytes(100 * index, 50)


def test_the_ring_may_wrap_with_inline_data(near, far):
    """More inline requests than the queue has slots, of changing lengths: each carries its own bytes."""
    a, b = pair(near, far, caps={**CAPS, "max_send_wr": 4})
    source, target = regions(near, far)
    for index in range(20):
        recv(b, target.sge(200 * index, 64))
        send(a, source.sge(64 * index, 1 + 3 * index), flags=INLINE)
        successes(near.cq, 1)
        successes(far.cq, 1)
    for index in range(20):
        assert target.bytes(200 * index, 1 + 3 * index) == source.bytes(64 * index, 1 + 3 * index)


def test_a_retransmitted_inline_message_has_the_old_bytes(near, far):
    """The receive comes late: what goes out again after the RNR NAK is what was posted."""
    a, b = pair(near, far, caps=CAPS, rnr_retry=7, min_rnr_timer=1)
    source, target = regions(near, far)
    data = source.bytes(0, 48)
    send(a, source.sge(0, 48), flags=INLINE)
    source.fill(2)
    assert leftovers(near.cq, polls=3) == []
    recv(b, target.sge())
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes(0, 48) == data


def test_uc_and_ud_take_inline_data_as_well(near, far):
    source, target = regions(near, far)
    a, b = pair(near, far, UC, caps=CAPS)
    c, d = datagrams(near, **CAPS), datagrams(far)
    recv(b, target.sge(0, 64))
    recv(d, target.sge(100, 104))
    data = source.bytes(0, 64)
    send(a, source.sge(0, 64), flags=INLINE)
    datagram(c, source.sge(0, 64), near.address_of(far), d.qp_num, flags=INLINE)
    source.fill(2)
    successes(near.cq, 2)
    successes(far.cq, 2)
    assert target.bytes(0, 64) == target.bytes(140, 64) == data


def test_a_read_is_not_inline(near, far, accept):
    """There is nothing to copy at post time: the flag is for sends and writes (ibv_post_send(3))."""
    a, _b = pair(near, far, caps=CAPS)
    target, source = near.region(), far.region()
    source.fill(1)
    answer = refusal(read, a, target.sge(0, 16), source.remote(), flags=INLINE)
    if answer == "accepted":
        answer = status(completions(near.cq, 1)[0])
    why = "nothing says what becomes of it: refused, failed, or the flag ignored"
    accept("READ with IBV_SEND_INLINE", answer, spec={"EINVAL", "LOC_QP_OP_ERR", "LOC_PROT_ERR", "SUCCESS"}, why=why)
    assert target.bytes(0, 16) == (source.bytes(0, 16) if answer == "SUCCESS" else bytes(16))
