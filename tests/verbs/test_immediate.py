"""Immediate data, and SEND that invalidates."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import ALL, LOCAL
from .sides import RC, UC, Remote, chain, pair, receive, recv, refusal, send, state, write
from .waiting import completions, leftovers, status, successes
from .windows import TYPE_2, window, windows

__all__ = ["windows"]
VALUES = (0, 1, 0x01020304, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF)
FLAGS = {"WITH_IMM": e.IBV_WC_WITH_IMM, "WITH_INV": e.IBV_WC_WITH_INV, "IP_CSUM_OK": e.IBV_WC_IP_CSUM_OK}
WRONG_BIT = (
    "the bit is 8 in ibv_wc_flags of verbs.h and 4 in the kernel's ib_wc_flags; rxe writes the kernel's into the "
    "program's completion, where 4 means IP_CSUM_OK"
)


@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_immediate_data_arrives_bit_for_bit(near, far, kind):
    a, b = pair(near, far, kind)
    source, target = near.region(), far.region()
    for value in VALUES:
        recv(b, target.sge(0, 8))
        recv(b, target.sge(0, 8))
        send(a, source.sge(0, 8), imm=value)
        write(a, source.sge(0, 8), target.remote(), imm=value)
        successes(near.cq, 2)
        received = successes(far.cq, 2)
        assert [each.imm_data for each in received] == [value, value]
        assert all(each.wc_flags & e.IBV_WC_WITH_IMM for each in received)


def test_without_immediate_data_the_completion_does_not_claim_any(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    recv(b, target.sge())
    send(a, source.sge(0, 8))
    assert not successes(far.cq, 1)[0].wc_flags & e.IBV_WC_WITH_IMM


@pytest.mark.parametrize("operation", ["send", "write"])
def test_immediate_data_comes_without_any_bytes(near, far, operation):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    recv(b)
    if operation == "send":
        send(a, source.sge(0, 0), imm=77)
    else:
        write(a, source.sge(0, 0), Remote(0, 0), imm=77)
    successes(near.cq, 1)
    received = successes(far.cq, 1)[0]
    assert (received.imm_data, received.byte_len) == (77, 0)
    assert target.bytes() == bytes(target.length)


def test_a_write_with_immediate_does_not_use_the_memory_of_its_receive(near, far):
    a, b = pair(near, far)
    source, target, posted = near.region(), far.region(), far.region()
    source.fill(1)
    posted.fill(5)
    before = posted.bytes()
    recv(b, posted.sge())
    write(a, source.sge(), target.remote(), imm=1)
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert posted.bytes() == before and target.bytes() == source.bytes()


def test_a_write_with_immediate_fits_a_receive_without_room(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b)
    write(a, source.sge(), target.remote(), imm=1)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == source.length
    assert target.bytes() == source.bytes()


def test_sends_and_writes_with_immediate_use_one_queue_of_receives_in_order(near, far):
    a, b = pair(near, far)
    source, target = near.region(), far.region()
    b.post_recv(chain(*[receive(target.sge(100 * index, 100), wr_id=index) for index in range(6)]))
    for index in range(6):
        if index % 2:
            write(a, source.sge(0, 8), target.remote(1000), imm=index)
        else:
            send(a, source.sge(0, 8), imm=index)
    successes(near.cq, 6)
    received = successes(far.cq, 6)
    assert [(each.wr_id, each.imm_data) for each in received] == [(index, index) for index in range(6)]
    kinds = [e.IBV_WC_RECV, e.IBV_WC_RECV_RDMA_WITH_IMM] * 3
    assert [each.opcode for each in received] == kinds


# -- SEND_WITH_INV


def test_a_send_invalidates_the_window_it_names(windows, accept):
    this = windows(access=ALL | e.IBV_ACCESS_MW_BIND)
    near, far, source, target = this.near, this.far, this.source, this.target
    inbox = far.region()
    _status, rkey = this.bind(window(far, TYPE_2), length=target.length)
    assert this.ask("write", rkey) == "SUCCESS"
    assert target.bytes(0, 8) == source.bytes(0, 8)
    recv(this.b, inbox.sge())
    send(this.a, source.sge(0, 100), invalidate=rkey)
    successes(near.cq, 1)
    received = successes(far.cq, 1)[0]
    said = [name for name, bit in FLAGS.items() if received.wc_flags & bit]
    accept("wc_flags of a SEND with Invalidate", said, spec=["WITH_INV"], rxe=["IP_CSUM_OK"], why=WRONG_BIT)
    assert received.imm_data == rkey
    assert inbox.bytes(0, 100) == source.bytes(0, 100)
    write(this.a, source.sge(8, 8), Remote(target.address, rkey))
    assert status(completions(near.cq, 1)[0]) == "REM_ACCESS_ERR"
    assert target.bytes(0, 8) == source.bytes(0, 8)


def test_a_send_that_invalidates_a_key_of_nothing_fails_at_the_receiver(near, far, accept):
    """The message itself has arrived and is acknowledged; it is the receiver who has an error."""
    a, b = pair(near, far)
    source, inbox = near.region(), far.region(access=LOCAL)
    recv(b, inbox.sge())
    recv(b, inbox.sge())
    send(a, source.sge(0, 100), invalidate=0x00ABCD00)
    accept("requester", status(completions(near.cq, 1)[0]), spec="SUCCESS")
    accept("receives", [status(each) for each in leftovers(far.cq)], spec=["REM_INV_REQ_ERR", "WR_FLUSH_ERR"])
    accept("state of the receiver", state(b), spec="ERR")


def test_uc_has_no_send_that_invalidates(near, far, accept):
    """IBA 9.2 (recalled): SEND with Invalidate is for RC, RD and XRC."""
    a, b = pair(near, far, UC)
    source, inbox = near.region(), far.region()
    recv(b, inbox.sge())
    answer = refusal(send, a, source.sge(0, 8), invalidate=5)
    if answer == "accepted":
        answer = status(completions(near.cq, 1)[0])
    why = "an opcode that the transport lacks is LOC_QP_OP_ERR; rxe finds no packet opcode and flushes (rxe_req.c)"
    accept("SEND_WITH_INV on UC", answer, spec={"EINVAL", "LOC_QP_OP_ERR"}, rxe="WR_FLUSH_ERR", why=why)
    assert leftovers(far.cq) == []
