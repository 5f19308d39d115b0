"""Every completion status on purpose: the first table of docs/errors.md, one test a row.

``left`` asks, ``right`` answers. Each test says everything that a program sees: completions, states and events of both.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, QpType, WcStatus
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR, MW, MWBindInfo
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import session
from tests.lab.failures import atomic, events, go, lab, outcome, pair, pass_time, says, seen, state, write
from tests.lab.transports import QKEY, End, connect_xrc, datagrams

S, E = WcStatus, AsyncEvent
ERR, RTS, SQE = QpState.ERR, QpState.RTS, QpState.SQE
OK, FLUSHED = S.SUCCESS, S.WR_FLUSH_ERR
BOTH_RTS, BOTH_ERR = (RTS, RTS), (ERR, ERR)


pytestmark = pytest.mark.usefixtures("default_lab", "closed_afterwards")


def read(left: End, right: End) -> SendWR:
    """A READ of 8 bytes."""
    return write(left, right, opcode=e.IBV_WR_RDMA_READ)


def bad_key(end: End, length: int = 8) -> SGE:
    """An element under a key that does not exist."""
    return SGE(end.mr.buf, length, end.mr.lkey + 1)


def test_success() -> None:
    left, right = pair()
    right.receive(64, 7)
    left.qp.post_send(left.send(8, 1))
    says(left, right, left=[(1, OK)], right=[(7, OK)])


def test_loc_len_err_of_a_datagram_longer_than_the_mtu() -> None:
    left, right, ah = datagrams()
    right.receive(8192, 7)
    wr = left.send(4097, 1)
    wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.LOC_LEN_ERR)], states=(SQE, RTS))


def test_loc_len_err_of_a_receive_that_is_too_short() -> None:
    left, right = pair()
    right.receive(64, 7), right.receive(64, 8)
    left.qp.post_send(left.send(65, 1))
    says(left, right, left=[(1, S.REM_INV_REQ_ERR)], right=[(7, S.LOC_LEN_ERR), (8, FLUSHED)], states=BOTH_ERR)


@pytest.mark.parametrize("length", [4, 16])
def test_loc_len_err_of_an_atomic_that_is_not_eight_bytes(length: int) -> None:
    left, right = pair()
    left.qp.post_send(atomic(left, right, length))
    says(left, right, left=[(1, S.LOC_LEN_ERR)], states=(ERR, RTS))


def test_loc_len_err_of_a_message_above_2_gib() -> None:
    left, right = End(), End()
    big = MR(left.pd, (1 << 26) + 4096, e.IBV_ACCESS_ON_DEMAND)
    left.make(QpType.RC, max_sge=32), right.make(QpType.RC)
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rts(right.attr(left.qp))
    wr = SendWR(1, e.IBV_WR_RDMA_WRITE, 32, sg=[SGE(big.buf, (1 << 26) + (n == 0), big.lkey) for n in range(32)])
    wr.set_wr_rdma(right.mr.rkey, right.mr.buf)
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.LOC_LEN_ERR)], states=(ERR, RTS))


def test_loc_qp_op_err_of_a_read_without_read_resources() -> None:
    left, right = pair(max_rd_atomic=0)
    left.qp.post_send(read(left, right))
    says(left, right, left=[(1, S.LOC_QP_OP_ERR)], states=(ERR, RTS))


def test_loc_qp_op_err_of_invalidating_a_key_that_is_no_bound_window() -> None:
    left, right = pair()
    left.qp.post_send(SendWR(1, e.IBV_WR_LOCAL_INV, imm_data=left.mr.rkey))
    says(left, right, left=[(1, S.LOC_QP_OP_ERR)], states=(ERR, RTS))


def test_loc_prot_err_of_a_send() -> None:
    left, right = pair()
    left.qp.post_send(SendWR(1, num_sge=1, sg=[bad_key(left)]))
    left.qp.post_send(left.send(8, 2))
    says(left, right, left=[(1, S.LOC_PROT_ERR), (2, FLUSHED)], states=(ERR, RTS))


def test_loc_prot_err_of_a_datagram_stops_the_send_queue_only() -> None:
    left, right, ah = datagrams()
    left.receive(100, 7)
    wr = SendWR(1, num_sge=1, sg=[bad_key(left)])
    wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.LOC_PROT_ERR)], states=(SQE, RTS))


def test_loc_prot_err_of_a_read_into_memory_that_may_not_be_written() -> None:
    left, right = pair()
    left.mr = MR(left.pd, 4096, 0)
    left.qp.post_send(read(left, right))
    says(left, right, left=[(1, S.LOC_PROT_ERR)], states=(ERR, RTS))


def test_loc_prot_err_of_a_receive() -> None:
    left, right = pair()
    right.qp.post_recv(RecvWR(7, 1, [bad_key(right, 64)]))
    left.qp.post_send(left.send(8, 1))
    says(left, right, left=[(1, S.REM_OP_ERR)], right=[(7, S.LOC_PROT_ERR)], states=BOTH_ERR)


def test_loc_prot_err_of_on_demand_memory_that_is_not_mapped() -> None:
    left, right = pair()
    process = session.endpoint().process
    hole = process.mmap(8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mr = MR(left.pd, 8192, e.IBV_ACCESS_ON_DEMAND, hole)
    process.munmap(hole, 8192)
    left.qp.post_send(SendWR(1, num_sge=1, sg=[SGE(hole, 8, mr.lkey)]))
    says(left, right, left=[(1, S.LOC_PROT_ERR)], states=(ERR, RTS))


def test_wr_flush_err_of_everything_behind_an_error_and_posted_after_it() -> None:
    left, right = pair()
    left.receive(64, 7), left.receive(64, 8)
    left.qp.post_send(write(left, right, 1, rkey=1))
    left.qp.post_send(left.send(8, 2, send_flags=0))
    pass_time()
    left.qp.post_send(left.send(8, 3)), left.receive(64, 9)
    done = outcome(left, right)
    assert [c for c in done["left"] if c[0] < 7] == [(1, S.REM_ACCESS_ERR), (2, FLUSHED), (3, FLUSHED)]
    assert [c for c in done["left"] if c[0] >= 7] == [(7, FLUSHED), (8, FLUSHED), (9, FLUSHED)]


def test_mw_bind_err() -> None:
    left, right = pair()
    wr = SendWR(1, e.IBV_WR_BIND_MW)
    wr.set_bind_wr(MW(left.pd, e.IBV_MW_TYPE_2), MWBindInfo(left.mr, left.mr.buf, 64, e.IBV_ACCESS_REMOTE_READ))
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.MW_BIND_ERR)], states=(ERR, RTS))


@pytest.mark.parametrize("rewrite", [
    {"operations": ["READ_RESP_ONLY"], "field": "payload", "value": 4},
    {"operations": ["READ_RESP_ONLY"], "field": "operation", "value": 18},
])  # fmt: skip
def test_bad_resp_err_of_a_response_that_does_not_fit(rewrite: dict[str, Any]) -> None:
    with lab(impairments=[{"kind": "rewrite"} | rewrite]):
        left, right = pair()
        left.qp.post_send(read(left, right))
        says(left, right, left=[(1, S.BAD_RESP_ERR)], states=(ERR, RTS))


def test_loc_access_err_of_a_write_with_immediate_to_memory_taken_away() -> None:
    left, right = pair()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    here = libc.mmap(None, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    mr = MR(right.pd, 4096, e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE, here)
    assert libc.munmap(here, 4096) == 0
    right.receive(64, 7)
    wr = left.send(8, 1, opcode=e.IBV_WR_RDMA_WRITE_WITH_IMM)
    wr.set_wr_rdma(mr.rkey, here)
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.REM_ACCESS_ERR)], right=[(7, S.LOC_ACCESS_ERR)], states=BOTH_ERR,
         events=([], [E.QP_ACCESS_ERR]))  # fmt: skip


def test_rem_inv_req_err_of_a_misaligned_atomic() -> None:
    left, right = pair()
    left.qp.post_send(atomic(left, right, at=4))
    says(left, right, left=[(1, S.REM_INV_REQ_ERR)], states=BOTH_ERR, events=([], [E.QP_REQ_ERR]))


def test_rem_inv_req_err_of_a_read_that_the_peer_has_no_resources_for() -> None:
    left, right = pair(max_dest_rd_atomic=0)
    left.qp.post_send(read(left, right))
    says(left, right, left=[(1, S.REM_INV_REQ_ERR)], states=BOTH_ERR, events=([], [E.QP_REQ_ERR]))


def test_rem_inv_req_err_of_an_operation_that_the_peer_s_qp_does_not_serve() -> None:
    left, right = pair(qp_access_flags=e.IBV_ACCESS_LOCAL_WRITE)
    left.qp.post_send(write(left, right))
    says(left, right, left=[(1, S.REM_INV_REQ_ERR)], states=BOTH_ERR, events=([], [E.QP_REQ_ERR]))


def test_rem_inv_req_err_of_an_xrc_message_for_an_srq_of_nobody() -> None:
    left, right = connect_xrc()
    wr = left.send(8, 1)
    wr.set_qp_type_xrc(0xFFFF)
    left.qp.post_send(wr)
    pass_time()
    assert seen(left) == [(1, S.REM_INV_REQ_ERR)] and seen(right) == []
    assert (state(left.qp), state(right.targets[0])) == BOTH_ERR
    assert (events(left), events(right)) == ([], [E.QP_REQ_ERR])


def test_rem_inv_req_err_at_the_receiver_of_a_key_that_cannot_be_invalidated() -> None:
    left, right = pair()
    right.receive(64, 7)
    left.qp.post_send(left.send(8, 1, opcode=e.IBV_WR_SEND_WITH_INV, imm_data=right.mr.rkey))
    says(left, right, left=[(1, OK)], right=[(7, S.REM_INV_REQ_ERR)], states=(RTS, ERR),
         events=([], [E.QP_ACCESS_ERR]))  # fmt: skip


@pytest.mark.parametrize("case", ["rkey", "range", "rights"])
def test_rem_access_err(case: str) -> None:
    left, right = pair(access=e.IBV_ACCESS_LOCAL_WRITE if case == "rights" else None)
    options = {"rkey": {"rkey": 3}, "range": {"at": (1 << 16) - 7}, "rights": {}}[case]
    left.qp.post_send(write(left, right, **options))
    says(left, right, left=[(1, S.REM_ACCESS_ERR)], states=BOTH_ERR, events=([], [E.QP_ACCESS_ERR]))


def test_rem_access_err_of_on_demand_memory_that_is_not_mapped() -> None:
    left, right = pair()
    process = session.endpoint().process
    hole = process.mmap(8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    access = e.IBV_ACCESS_ON_DEMAND | e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE
    mr = MR(right.pd, 8192, access, hole)
    process.munmap(hole, 8192)
    wr = left.send(8, 1, opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(mr.rkey, hole)
    left.qp.post_send(wr)
    says(left, right, left=[(1, S.REM_ACCESS_ERR)], states=BOTH_ERR, events=([], [E.QP_ACCESS_ERR]))


def test_rem_op_err() -> None:
    left, right = pair()
    right.qp.post_recv(RecvWR(7, 1, [bad_key(right, 64)]))
    left.qp.post_send(left.send(8, 1)), left.qp.post_send(left.send(8, 2))
    says(left, right, left=[(1, S.REM_OP_ERR), (2, FLUSHED)], right=[(7, S.LOC_PROT_ERR)], states=BOTH_ERR)


@pytest.mark.parametrize("impairment", [
    {"kind": "partition"}, {"kind": "loss", "probability": 1.0}, {"kind": "corrupt", "probability": 1.0},
    {"kind": "rewrite", "field": "dest_qpn", "value": 0}, {"kind": "rewrite", "field": "pkey", "value": 0x1234},
], ids=lambda i: i["kind"])  # fmt: skip
def test_retry_exc_err_of_a_wire_that_carries_nothing(impairment: dict[str, Any]) -> None:
    with lab(impairments=[impairment]):
        left, right = pair(timeout=8, retry_cnt=2)
        right.receive(64, 7)
        left.qp.post_send(left.send(8, 1)), left.qp.post_send(left.send(8, 2))
        says(left, right, left=[(1, S.RETRY_EXC_ERR), (2, FLUSHED)], states=(ERR, RTS))


def test_retry_exc_err_of_a_peer_that_does_not_listen() -> None:
    left, right = pair(timeout=8)
    go(right.qp, QpState.RESET)
    left.qp.post_send(write(left, right))
    says(left, right, left=[(1, S.RETRY_EXC_ERR)], states=(ERR, QpState.RESET))


def test_rnr_retry_exc_err() -> None:
    left, right = pair(rnr_retry=2)
    left.qp.post_send(left.send(8, 1)), left.qp.post_send(left.send(8, 2))
    says(left, right, left=[(1, S.RNR_RETRY_EXC_ERR), (2, FLUSHED)], states=(ERR, RTS))
