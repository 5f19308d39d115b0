"""The library on the emulated NIC: messages between two RC QPs, their errors and events."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CQEX, CompChannel, CqInitAttrEx
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QPAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.pyverbs.on_the_nic import ACCESS, SIZE, Pair, ctx, lab, pair

__all__ = ["ctx", "lab", "pair"]


@pytest.mark.parametrize("access", [ACCESS, ACCESS | e.IBV_ACCESS_ON_DEMAND])
def test_a_message_arrives(ctx, access):
    pair = Pair(ctx, CQ(ctx, 64), access)
    pair.source.write("abcde" * 1000, 5000)
    pair.right.post_recv(RecvWR(wr_id=7, num_sge=1, sg=[SGE(pair.target.buf, SIZE, pair.target.lkey)]))
    imm = socket.htonl(77)
    sge = SGE(pair.source.buf, 5000, pair.source.lkey)
    pair.left.post_send(SendWR(wr_id=3, num_sge=1, sg=[sge], opcode=e.IBV_WR_SEND_WITH_IMM, imm_data=imm))
    done = {wc.wr_id: wc for wc in pair.poll(2)}
    assert done[3].status == done[7].status == e.IBV_WC_SUCCESS
    assert (done[7].opcode, done[7].byte_len, done[7].imm_data) == (e.IBV_WC_RECV, 5000, imm)
    assert done[7].wc_flags & e.IBV_WC_WITH_IMM and done[7].qp_num == pair.right.qp_num
    assert pair.target.read(5000, 0) == b"abcde" * 1000


def test_an_event_makes_the_channel_readable(ctx):
    channel = CompChannel(ctx)
    pair = Pair(ctx, CQ(ctx, 64, None, channel))
    pair.cq.req_notify()
    assert not select.select([channel.fd], [], [], 0)[0]
    pair.left.post_send(pair.write(8))
    channel.get_cq_event(pair.cq)
    assert pair.poll(1)[0].opcode == e.IBV_WC_RDMA_WRITE


def test_inline_data_is_that_of_the_post(pair):
    pair.source.write(b"before", 6)
    wr = pair.write(6)
    wr.send_flags = e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE
    pair.left.post_send(wr)
    pair.source.write(b"after!", 6)
    pair.poll(1)
    assert pair.target.read(6, 0) == b"before"


def test_reset_after_an_error_starts_afresh(pair):
    pair.left.post_send(pair.write(8, rkey=pair.target.rkey + 1))
    pair.left.post_send(pair.write(8))
    assert pair.poll(1)[0].status == e.IBV_WC_REM_ACCESS_ERR
    assert pair.left.query(e.IBV_QP_STATE)[0].qp_state == e.IBV_QPS_ERR
    for qp in (pair.left, pair.right):
        qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
    pair.connect()
    pair.source.write(b"again", 5)
    pair.left.post_send(pair.write(5))
    assert pair.poll(1)[0].status == e.IBV_WC_SUCCESS
    assert pair.cq.poll()[0] == 0
    assert pair.target.read(5, 0) == b"again"


def test_the_send_queue_fills_and_frees_over_many_passes(pair):
    for _ in range(10):
        for _ in range(8):
            pair.left.post_send(pair.write(8))
        with pytest.raises(PyverbsRDMAError) as info:
            pair.left.post_send(pair.write(8))
        assert info.value.error_code == errno.ENOMEM
        assert {wc.status for wc in pair.poll(8)} == {e.IBV_WC_SUCCESS}


def test_query_gives_what_connects_again(pair):
    attr, _ = pair.left.query(0x1FFFFFF)
    assert (attr.dest_qp_num, attr.timeout, attr.max_rd_atomic) == (pair.right.qp_num, 14, 4)
    for qp in (pair.left, pair.right):
        again, _ = qp.query(0x1FFFFFF)
        qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
        qp.to_rts(again)
    pair.left.post_send(pair.write(8))
    assert pair.poll(1)[0].status == e.IBV_WC_SUCCESS


def test_extended_cq_tells_the_time(ctx):
    pair = Pair(ctx, CQEX(ctx, CqInitAttrEx(cqe=16, wc_flags=e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)))
    stamps = []
    for _ in range(2):
        pair.left.post_send(pair.write(8))
        assert pair.cq.start_poll(None) == 0 and pair.cq.status == e.IBV_WC_SUCCESS
        stamps.append(pair.cq.read_timestamp())
        pair.cq.end_poll()
    assert 0 < stamps[0] < stamps[1]
