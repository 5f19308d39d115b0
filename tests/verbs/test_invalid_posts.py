"""Requests that no device takes: refused by the call, and nothing of them is left."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.wr import SGE

from .failures import CALL_OR_COMPLETION, FLUSHES_ITSELF, NUMBER_OPEN, PATIENT, RTS, gather, restart
from .memory import PAGE
from .sides import RC, UC, UD, attributes, chain, connect, datagrams, pair, recv, refusal, request, send, state, write
from .waiting import leftovers, successes

INLINE_OPEN = "left open: ibv_post_send(3) has the inline flag valid for SEND and WRITE only"


def room(qp, what):
    """What the QP says it can hold."""
    return getattr(qp.query(e.IBV_QP_CAP)[0].cap, what)


def test_more_send_elements_than_the_queue_has(near, far, accept):
    a, b = pair(near, far, caps={"max_send_sge": 2})
    source, target = near.region(), far.region()
    recv(b, target.sge(), wr_id=7)
    wr = request(e.IBV_WR_SEND, [source.sge(0, 8)] * (room(a, "max_send_sge") + 1), wr_id=1)
    accept("errno", refusal(a.post_send, wr), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)
    assert leftovers(near.cq, 4) + leftovers(far.cq, 4) == []
    send(a, source.sge(0, 8), wr_id=2)
    assert (successes(near.cq, 1)[0].wr_id, successes(far.cq, 1)[0].wr_id) == (2, 7)


def test_as_many_send_elements_as_the_queue_has(near, far):
    a, b = pair(near, far, caps={"max_send_sge": 4})
    count = room(a, "max_send_sge")
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b, target.sge(), wr_id=7)
    send(a, [source.sge(n * 16, 16) for n in range(count)], wr_id=1)
    assert successes(far.cq, 1)[0].byte_len == 16 * count
    assert target.bytes(0, 16 * count) == source.bytes(0, 16 * count)


def test_more_receive_elements_than_the_queue_has(near, far, accept):
    a, b = pair(near, far, caps={"max_recv_sge": 2})
    target = far.region()
    too_many = [target.sge(0, 8)] * (room(b, "max_recv_sge") + 1)
    accept("errno", refusal(recv, b, too_many, wr_id=1), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)
    recv(b, target.sge(), wr_id=2)
    send(a, near.region().sge(0, 8), wr_id=3)
    assert successes(far.cq, 1)[0].wr_id == 2


def test_a_full_send_queue(near, far, accept):
    """What was posted goes on; the refused one leaves nothing."""
    a, b = pair(near, far, caps={"max_send_wr": 8}, **PATIENT, rnr_retry=7)
    source, target = near.region(), far.region()
    count = room(a, "max_send_wr")
    for wr_id in range(count):
        send(a, source.sge(0, 8), wr_id=wr_id)
    wr = request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=999)
    more = 0
    while (answer := refusal(a.post_send, wr)) == "accepted":
        more += 1
        assert more < 10000
    accept("errno", answer, spec="ENOMEM")
    for _ in range(count + more):
        recv(b, target.sge())
    done = [each.wr_id for each in successes(near.cq, count + more)]
    assert done == [*range(count), *[999] * more]
    assert leftovers(near.cq, 4) == []
    send(a, source.sge(0, 8), wr_id=1000)
    recv(b, target.sge())
    assert successes(near.cq, 1)[0].wr_id == 1000


def test_a_full_receive_queue(near, far, accept):
    a, b = pair(near, far, caps={"max_recv_wr": 8})
    target = far.region()
    count = room(b, "max_recv_wr")
    for wr_id in range(count):
        recv(b, target.sge(), wr_id=wr_id)
    more = 0
    while (answer := refusal(recv, b, target.sge(), wr_id=999)) == "accepted":
        more += 1
        assert more < 10000
    accept("errno", answer, spec="ENOMEM")
    for _ in range(count + more):
        send(a, near.region().sge(0, 8))
        successes(near.cq, 1)
    assert [each.wr_id for each in successes(far.cq, count + more)] == [*range(count), *[999] * more]


def test_a_chain_longer_than_the_queue_is_posted_up_to_the_full_place(near, far, accept):
    """ibv_post_send: what stands before bad_wr is posted."""
    a, b = pair(near, far, caps={"max_send_wr": 8}, **PATIENT, rnr_retry=7)
    source, target = near.region(), far.region()
    wrs = [request(e.IBV_WR_SEND, source.sge(0, 8), wr_id=n) for n in range(300)]
    accept("errno", refusal(a.post_send, chain(*wrs)), spec="ENOMEM")
    for _ in range(64):
        recv(b, target.sge())
    done = gather(near.cq, room(a, "max_send_wr"))
    assert done == [(n, "SUCCESS") for n in range(len(done))]
    assert room(a, "max_send_wr") <= len(done) < 64
    assert state(a) == RTS


HAS_NOT = [
    (UC, "RDMA_READ"), (UC, "ATOMIC_CMP_AND_SWP"), (UC, "ATOMIC_FETCH_AND_ADD"), (UD, "RDMA_WRITE"),
    (UD, "RDMA_WRITE_WITH_IMM"), (UD, "RDMA_READ"), (UD, "ATOMIC_FETCH_AND_ADD"),
]  # fmt: skip


@pytest.mark.parametrize(
    "kind, name", HAS_NOT, ids=lambda each: each if isinstance(each, str) else {UC: "uc", UD: "ud"}[each]
)
def test_an_operation_that_the_transport_has_not(near, far, accept, kind, name):
    """Nothing leaves."""
    a, b = (datagrams(near), datagrams(far)) if kind == UD else pair(near, far, kind)
    source, target = near.region(), far.region()
    source.fill(1), target.fill(2)
    before = source.bytes(), target.bytes()
    opcode = getattr(e, "IBV_WR_" + name)
    wr = request(opcode, source.sge(0, 8), target.remote(), wr_id=1)
    if kind == UD:
        wr.set_wr_ud(near.address_of(far), b.qp_num, 1)
    elif "ATOMIC" in name:
        wr.set_wr_atomic(target.rkey, target.address, 1, 1)
    answer = refusal(a.post_send, wr)
    accept("errno", answer, spec={"EINVAL", "EOPNOTSUPP", "accepted"}, why=CALL_OR_COMPLETION)
    if answer == "accepted":
        accept("its completion", gather(near.cq, 1), spec=[(1, "LOC_QP_OP_ERR")], rxe=[(1, "WR_FLUSH_ERR")],
               why=FLUSHES_ITSELF)  # fmt: skip
    assert leftovers(near.cq, 4) + leftovers(far.cq, 4) == []
    assert (source.bytes(), target.bytes()) == before


@pytest.mark.unsafe_on_rxe("its kernel takes any opcode as an index into a table of opcodes")
@pytest.mark.parametrize("opcode", [99, 255])
def test_an_operation_that_does_not_exist(near, far, accept, opcode):
    a, _b = pair(near, far)
    source, target = near.region(), far.region()
    wr = request(opcode, source.sge(0, 8), target.remote(), wr_id=1)
    accept("errno", refusal(a.post_send, wr), spec={"EINVAL", "EOPNOTSUPP"}, why=NUMBER_OPEN)
    assert leftovers(near.cq, 4) == []
    write(a, source.sge(0, 8), target.remote(), wr_id=2)
    assert successes(near.cq, 1)[0].wr_id == 2


def test_inline_data_beyond_what_the_queue_has(near, far, accept):
    a, b = pair(near, far, caps={"max_inline_data": 32})
    source, target = near.region(), far.region()
    limit = room(a, "max_inline_data")
    recv(b, target.sge(), wr_id=7)
    flags = e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE
    wr = request(e.IBV_WR_SEND, source.sge(0, limit + 1), wr_id=1, flags=flags)
    accept("errno", refusal(a.post_send, wr), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)
    assert leftovers(near.cq, 4) + leftovers(far.cq, 4) == []
    send(a, source.sge(0, limit), wr_id=2, flags=flags)
    assert successes(far.cq, 1)[0].byte_len == limit


@pytest.mark.parametrize("name", ["RDMA_READ", "ATOMIC_FETCH_AND_ADD"])
def test_inline_is_for_what_leaves_memory(near, far, accept, name):
    """A READ or atomic brings data: it has no inline form."""
    a, _b = pair(near, far, caps={"max_inline_data": 32}, **PATIENT)
    source, target = near.region(), far.region()
    target.fill(2)
    before = target.bytes()
    opcode, flags = getattr(e, "IBV_WR_" + name), e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE
    wr = request(opcode, source.sge(0, 8), target.remote(), wr_id=1, flags=flags)
    if "ATOMIC" in name:
        wr.set_wr_atomic(target.rkey, target.address, 0, 0)
    answer = refusal(a.post_send, wr)
    accept("errno", answer, spec={"EINVAL", "accepted"}, why=INLINE_OPEN)
    if answer == "accepted":
        done = gather(near.cq, 1)[0]
        accept(
            "its completion", done, spec={(1, "SUCCESS"), (1, "LOC_QP_OP_ERR"), (1, "LOC_PROT_ERR")}, why=INLINE_OPEN
        )
    assert target.bytes() == before


def test_a_message_longer_than_the_port_carries(near, far, accept):
    """max_msg_sz is 2 GiB at most; elements of one small region cannot make it, so the lengths lie outside of it."""
    a, _b = pair(near, far, **PATIENT)
    source, target = near.region(), far.region()
    elements = [SGE(source.address, (1 << 31) - 1, source.lkey), SGE(source.address, PAGE, source.lkey)]
    wr = request(e.IBV_WR_RDMA_WRITE, elements, target.remote(), wr_id=1)
    answer = refusal(a.post_send, wr)
    accept("errno", answer, spec={"EINVAL", "accepted", "EMSGSIZE"}, why=CALL_OR_COMPLETION)
    if answer == "accepted":
        status = gather(near.cq, 1)[0][1]
        accept("its completion", status, spec={"LOC_LEN_ERR", "LOC_PROT_ERR"}, rxe="WR_FLUSH_ERR",
               why="which of length and memory is looked at first is open; rxe calls either a flush, as with every "
                   "SEND or WRITE whose own element is bad")  # fmt: skip


def test_a_queue_pair_in_reset_has_room_again(near, far):
    """RESET empties both queues."""
    a, b = pair(near, far, caps={"max_send_wr": 8, "max_recv_wr": 8}, **PATIENT, rnr_retry=7)
    source, target = near.region(), far.region()
    while refusal(send, a, source.sge(0, 8)) == "accepted":
        pass
    while refusal(recv, a, source.sge()) == "accepted":
        pass
    restart(a), restart(b)
    connect(a, b, **PATIENT)
    for wr_id in range(8):
        recv(a, source.sge(64, 64), wr_id=wr_id)
        write(a, source.sge(0, 8), target.remote(), wr_id=100 + wr_id)
    assert gather(near.cq, 8) == [(100 + n, "SUCCESS") for n in range(8)]
    for wr_id in range(8):
        send(b, target.sge(0, 8), wr_id=wr_id)
    assert gather(near.cq, 8) == [(n, "SUCCESS") for n in range(8)]


def test_a_receive_queue_of_no_room_takes_nothing(near, accept):
    qp = near.qp(RC, max_recv_wr=0)
    qp.to_init(attributes(qp))
    accept("errno", refusal(recv, qp, near.region().sge()), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)
