"""UC: no acknowledgement, no retry, and only what needs neither."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import LOCAL, make_pattern
from .sides import UC, Remote, atomic, attributes, move_to, pair, read, recv, refusal, send, state, write
from .waiting import completions, leftovers, status, successes


def regions(near, far, pages=4):
    source, target = near.region(pages), far.region(pages)
    source.fill(1)
    target.fill(2)
    return source, target


def test_messages_of_many_packets_follow_each_other(near, far):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    for index in range(5):
        recv(b, target.sge(3000 * index, 3000), wr_id=index)
    for index in range(5):
        send(a, source.sge(8 * index, 2900), wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 5)] == list(range(5))
    assert [each.wr_id for each in successes(far.cq, 5)] == list(range(5))
    for index in range(5):
        assert target.bytes(3000 * index, 2900) == source.bytes(8 * index, 2900)


def test_a_send_completes_though_nobody_receives_it(near, far):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    send(a, source.sge(0, 3000))
    successes(near.cq, 1)
    leftovers(near.cq, 3)  # time for the message to come and go
    recv(b, target.sge(), wr_id=2)
    assert leftovers(far.cq, 5) == []
    send(a, source.sge(8, 2000))
    successes(near.cq, 1)
    received = successes(far.cq, 1)[0]
    assert (received.wr_id, received.byte_len) == (2, 2000)
    assert target.bytes(0, 2000) == source.bytes(8, 2000)


def test_a_message_to_a_qp_that_is_not_ready_is_lost_and_the_next_arrives(near, far):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    move_to(b, e.IBV_QPS_RESET)
    send(a, source.sge(0, 3000))
    successes(near.cq, 1)
    leftovers(near.cq, 3)
    b.to_rts(attributes(b, a, rq_psn=0x5000))
    recv(b, target.sge())
    send(a, source.sge(0, 100))
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 100


def test_a_write_without_the_right_key_is_lost_without_a_word(near, far):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    write(a, source.sge(0, 2000), Remote(target.address, 0x00DEAD00))
    successes(near.cq, 1)
    assert leftovers(far.cq, 5) == []
    assert (state(a), state(b)) == ("RTS", "RTS")
    recv(b)
    write(a, source.sge(0, 2000), target.remote(100), imm=3)
    successes(near.cq, 1)
    successes(far.cq, 1)
    before = make_pattern(2, target.length)
    assert target.bytes() == before[:100] + source.bytes(0, 2000) + before[2100:]


def test_a_write_without_permission_is_lost_without_a_word(near, far):
    a, b = pair(near, far, UC)
    source, target = near.region(), far.region(access=LOCAL)
    target.fill(2)
    write(a, source.sge(), target.remote())
    successes(near.cq, 1)
    recv(b)
    send(a, source.sge(0, 0))
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes() == make_pattern(2, target.length)


@pytest.mark.parametrize("what", ["read", "atomic"])
def test_uc_has_no_operation_that_is_answered(near, far, accept, what):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    if what == "read":
        answer = refusal(read, a, source.sge(0, 8), target.remote())
    else:
        answer = refusal(atomic, a, source.sge(0, 8), target.remote(), add=1)
    if answer == "accepted":
        answer = status(completions(near.cq, 1)[0])
    why = "an operation that the transport lacks is LOC_QP_OP_ERR; rxe finds no packet opcode and flushes (rxe_req.c)"
    accept(f"{what} on UC", answer, spec={"EINVAL", "LOC_QP_OP_ERR"}, rxe="WR_FLUSH_ERR", why=why)
    assert target.bytes() == make_pattern(2, target.length)
    assert state(b) == "RTS"


def test_a_receive_that_is_too_short_keeps_its_message_out(near, far, accept):
    a, b = pair(near, far, UC)
    source, target = regions(near, far)
    recv(b, target.sge(0, 100), wr_id=1)
    send(a, source.sge(0, 3000))
    successes(near.cq, 1)
    seen = tuple(status(each) for each in leftovers(far.cq))
    why = (
        "IBA 9.8.2.2 (recalled): UC drops what does not fit, some devices complete the receive with a length error; "
        "rxe's status is that of a malformed request (rxe_resp.c, RESPST_ERR_LENGTH)"
    )
    accept("receives of a UC message that is too long", seen, spec={(), ("LOC_LEN_ERR",)},
           rxe=("LOC_QP_OP_ERR",), why=why)  # fmt: skip
    assert target.bytes(100) == make_pattern(2, target.length)[100:]
