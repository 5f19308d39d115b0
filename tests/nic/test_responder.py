"""Responder: checks in order, verdicts, acknowledgements (Linux rxe_resp.c)."""

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, WcFlag, WcOpcode, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.packets import inject
from tests.nic.testbench import WrOpcode

REQ_ERR, ACCESS_ERR = AsyncEvent.QP_REQ_ERR, AsyncEvent.QP_ACCESS_ERR


def test_a_write_puts_bytes_at_its_address_and_nowhere_else(rc):
    before, data = rc.remote.data, rc.local.data
    rc.write(1, 5000, offset=100, at=3000)
    rc.bench.run()
    assert rc.remote.data == before[:3000] + data[100:5100] + before[8000:]


def test_a_read_brings_the_bytes_and_nothing_else(rc):
    before, data = rc.local.data, rc.remote.data
    rc.read(1, 5000, offset=100, at=3000)
    rc.bench.run()
    (cqe,) = rc.a.cq.poll()
    assert (cqe["opcode"], cqe["byte_len"]) == (WcOpcode.RDMA_READ, 5000)
    assert rc.local.data == before[:100] + data[3000:8000] + before[5100:]


def test_a_send_lands_in_the_receive_wqe_across_its_sges(rc):
    before, data = rc.remote.data, rc.local.data
    rc.b.post_recv(5, rc.remote.sge(10, 4090), rc.remote.sge(3000, 9000))
    rc.send(1, 2000)
    rc.bench.run()
    (cqe,) = rc.b.cq.poll()
    assert (cqe["wr_id"], cqe["status"], cqe["opcode"], cqe["byte_len"]) == (5, 0, WcOpcode.RECV, 2000)
    assert rc.remote.data == before[:4090] + data[:10] + before[4100:9000] + data[10:2000] + before[10990:]


@pytest.mark.parametrize(
    "opcode, expected",
    [(WrOpcode.SEND_WITH_IMM, WcOpcode.RECV), (WrOpcode.RDMA_WRITE_WITH_IMM, WcOpcode.RECV_RDMA_WITH_IMM)],
)
def test_immediate_data_reaches_the_receive_completion(rc, opcode, expected):
    rc.b.post_recv(5, rc.remote.sge(4096, 8192))
    rc.a.post_send(1, opcode, rc.local.sge(1500), remote=rc.remote.va, rkey=rc.remote.key, imm=0xDEADBEEF)
    rc.bench.run()
    (cqe,) = rc.b.cq.poll()
    assert (cqe["opcode"], cqe["imm"], cqe["byte_len"]) == (expected, 0xDEADBEEF, 1500)
    assert cqe["flags"] & WcFlag.WITH_IMM


def test_a_write_with_immediate_does_not_look_at_the_receive_sges(rc):
    rc.b.post_recv(5, (1, 4096, 0xBAD))
    rc.a.post_send(1, WrOpcode.RDMA_WRITE_WITH_IMM, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.b.statuses() == [(5, 0)]


def test_receives_are_taken_in_post_order_one_a_message(rc):
    for wr_id in range(3):
        rc.b.post_recv(wr_id, rc.remote.sge(4096, wr_id * 4096))
    for wr_id in range(3):
        rc.send(wr_id, 1000 + wr_id)
    rc.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in rc.b.cq.poll()] == [(0, 1000), (1, 1001), (2, 1002)]


def test_stale_sges_behind_num_sge_are_not_used(rc):
    """The library does not clear a slot's tail."""
    before = rc.remote.data
    rc.b.post_recv(1, rc.remote.sge(16), rc.remote.sge(4096, 4096))
    rc.b.recv.view[8:12] = (1).to_bytes(4, "little")
    rc.send(1, 64)
    rc.bench.run()
    assert rc.b.statuses() == [(1, WcStatus.LOC_LEN_ERR)]
    assert rc.remote.data[16:] == before[16:]


def test_the_ack_of_a_message_comes_after_its_bytes(rc):
    rc.bench.log()
    rc.write(1, 2000)
    rc.bench.run()
    names = [(kind.name, a, b, c, d) for kind, _, a, b, c, d in rc.bench.trace()]
    written = max(i for i, n in enumerate(names) if n[0] == "DMA" and n[4] == 1)
    acked = next(i for i, n in enumerate(names) if n[0] == "SEND" and n[1] == RcOpcode.ACKNOWLEDGE)
    assert written < acked


def test_atomics_return_the_old_value_and_change_eight_bytes(rc):
    before = rc.remote.data
    old = int.from_bytes(before[64:72], "little")
    rc.add(1, 5, at=64)
    rc.bench.run()
    new = (old + 5) % 2**64
    assert int.from_bytes(rc.local.data[:8], "little") == old
    assert rc.remote.data == before[:64] + new.to_bytes(8, "little") + before[72:]
    rc.swap(2, new, 77, at=64)
    rc.bench.run()
    assert int.from_bytes(rc.remote.data[64:72], "little") == 77
    rc.swap(3, 1, 99, at=64)
    rc.bench.run()
    assert int.from_bytes(rc.remote.data[64:72], "little") == 77
    assert int.from_bytes(rc.local.data[:8], "little") == 77
    assert rc.a.statuses() == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("start, amount", [(2**64 - 1, 1), (2**63 - 1, 1), (2**63, 2**63), (1, 2**64 - 1), (0, 0)])
def test_fetch_and_add_wraps_at_64_bits(rc, start, amount):
    rc.swap(1, int.from_bytes(rc.remote.data[:8], "little"), start)
    rc.add(2, amount)
    rc.bench.run()
    assert int.from_bytes(rc.remote.data[:8], "little") == (start + amount) % 2**64
    assert rc.a.statuses() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_misaligned_atomic_is_an_invalid_request(rc, at):
    before = rc.remote.data
    rc.add(1, 1, at=at)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]
    assert rc.b.row().state == QpState.ERR and rc.bench.asyncs() == [(REQ_ERR, rc.b.number)]
    assert rc.remote.data == before


def test_a_message_longer_than_the_receive_buffer(rc):
    rc.b.post_recv(5, rc.remote.sge(100))
    rc.send(1, 101)
    rc.bench.run()
    assert rc.b.statuses() == [(5, WcStatus.LOC_LEN_ERR)]
    assert rc.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]


def test_a_bad_receive_wqe_is_a_local_protection_error_there_and_remote_operational_here(rc):
    rc.b.post_recv(5, (rc.remote.va, 100, rc.remote.key + 1))
    rc.send(1, 100)
    rc.bench.run()
    assert rc.b.statuses() == [(5, WcStatus.LOC_PROT_ERR)]
    assert rc.a.statuses() == [(1, WcStatus.REM_OP_ERR)]
    assert (rc.a.row().state, rc.b.row().state) == (QpState.ERR, QpState.ERR)


def test_reads_with_max_dest_rd_atomic_0_are_invalid_requests(bench):
    rc = connected(bench, MAX_DEST_RD_ATOMIC=0)
    rc.read(1, 8)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]


def test_msn_counts_finished_messages(rc):
    rc.b.post_recv(1, rc.remote.sge())
    rc.write(1, 3000)
    rc.read(2, 3000)
    rc.add(3, 1)
    rc.send(4, 3000)
    rc.bench.run()
    assert rc.b.row().msn == 4


# Hand-made packets ---------------------------------------------------------------------------------------------------

BAD = {
    "middle without first": dict(opcode=RcOpcode.WRITE_MIDDLE, payload=1024),
    "last without first": dict(opcode=RcOpcode.SEND_LAST, payload=10),
    "first shorter than the mtu": dict(opcode=RcOpcode.WRITE_FIRST, payload=1000, length=5000),
    "only longer than the mtu": dict(opcode=RcOpcode.WRITE_ONLY, payload=1025, length=1025),
    "write only shorter than its dma length": dict(opcode=RcOpcode.WRITE_ONLY, payload=8, length=16),
    "write only longer than its dma length": dict(opcode=RcOpcode.WRITE_ONLY, payload=16, length=8),
    "read above 2 GiB": dict(opcode=RcOpcode.READ_REQUEST, length=(1 << 31) + 1),
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD.keys())
def test_malformed_requests_are_naked_and_take_the_qp_to_error(rc, fields):
    before = rc.remote.data
    rc.b.post_recv(9, rc.remote.sge(4096))
    rc.bench.log()
    inject(rc.bench, rc.a, rc.b, va=rc.remote.va, rkey=rc.remote.key, **fields)
    rc.bench.run()
    naks = [c for kind, _, a, b, c, d in rc.bench.trace() if kind.name == "NAK"]
    assert naks == [0x61]
    assert rc.b.row().state == QpState.ERR and rc.bench.asyncs() == [(REQ_ERR, rc.b.number)]
    assert rc.b.statuses() == [(9, WcStatus.WR_FLUSH_ERR)]
    assert rc.remote.data == before


@pytest.mark.parametrize(
    "second",
    [
        RcOpcode.WRITE_FIRST,
        RcOpcode.WRITE_ONLY,
        RcOpcode.SEND_MIDDLE,
        RcOpcode.SEND_ONLY,
        RcOpcode.READ_REQUEST,
        RcOpcode.FETCH_ADD,
    ],
)
def test_nothing_but_its_own_continuation_may_follow_a_first(rc, second):
    rc.b.post_recv(9, rc.remote.sge(4096))
    rc.bench.log()
    where = dict(va=rc.remote.va, rkey=rc.remote.key)
    inject(rc.bench, rc.a, rc.b, opcode=RcOpcode.WRITE_FIRST, payload=1024, length=3000, **where)
    inject(rc.bench, rc.a, rc.b, psn=1, opcode=second, payload=1024, length=3000, **where)
    rc.bench.run()
    assert [c for kind, _, a, b, c, d in rc.bench.trace() if kind.name == "NAK"] == [0x61]


def test_a_gap_is_naked_once_and_the_rest_is_dropped_in_silence(rc):
    rc.bench.log()
    for psn in (3, 4, 5):
        inject(rc.bench, rc.a, rc.b, psn=psn, opcode=RcOpcode.WRITE_ONLY, va=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    naks = [(b, c) for kind, _, a, b, c, d in rc.bench.trace() if kind.name == "NAK"]
    assert naks == [(rc.a.psn, 0x60)]
    assert rc.b.row().epsn == rc.a.psn and rc.bench.device.row.out_of_sequence == 3


def test_after_the_expected_psn_came_a_new_gap_is_naked_again(rc):
    where = dict(opcode=RcOpcode.WRITE_ONLY, va=rc.remote.va, rkey=rc.remote.key)
    rc.bench.log()
    for psn in (2, 0, 3):
        inject(rc.bench, rc.a, rc.b, psn=psn, **where)
    rc.bench.run()
    assert [(b - rc.a.psn, c) for kind, _, a, b, c, d in rc.bench.trace() if kind.name == "NAK"] == [
        (0, 0x60),
        (1, 0x60),
    ]


@pytest.mark.parametrize("state", [QpState.RESET, QpState.INIT, QpState.ERR])
def test_requests_to_a_qp_that_does_not_listen_are_dropped(rc, state):
    rc.b.modify(1, STATE=QpState.RESET)
    if state != QpState.RESET:
        rc.b.modify(1, STATE=state)
    if state == QpState.ERR:
        rc.b.modify(1, STATE=QpState.ERR)
    rc.bench.log()
    inject(rc.bench, rc.a, rc.b, opcode=RcOpcode.WRITE_ONLY, va=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.bench.sent() == [] and rc.bench.device.row.packets_dropped == 1


@pytest.mark.parametrize(
    "fields", [dict(dest_qpn=99), dict(dest_qpn=0), dict(dest_qpn=2**24 - 1), dict(source_qpn=4), dict(source_nic=0)]
)
def test_requests_from_somebody_else_are_dropped(rc, fields):
    rc.bench.log()
    inject(rc.bench, rc.a, rc.b, opcode=RcOpcode.WRITE_ONLY, va=rc.remote.va, rkey=rc.remote.key, **fields)
    rc.bench.run()
    assert rc.bench.sent() == [] and rc.bench.device.row.packets_dropped == 1
