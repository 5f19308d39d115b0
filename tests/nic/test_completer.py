"""Completer: acknowledgements, coalescing, implied NAKs, responses (Linux rxe_comp.c)."""

import pytest

from nicemu.abi.verbs import QpState, WcOpcode, WcStatus
from nicemu.nic.completer import rnr_timer_ns
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.packets import DROP, LATE, Wire, inject
from tests.nic.testbench import WrOpcode

ACK, READ = RcOpcode.ACKNOWLEDGE, RcOpcode.READ_REQUEST

RNR_MS = {
    0: 655.36, 1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04, 5: 0.06, 6: 0.08, 7: 0.12, 8: 0.16, 9: 0.24, 10: 0.32, 11: 0.48,
    12: 0.64, 13: 0.96, 14: 1.28, 15: 1.92, 16: 2.56, 17: 3.84, 18: 5.12, 19: 7.68, 20: 10.24, 21: 15.36, 22: 20.48,
    23: 30.72, 24: 40.96, 25: 61.44, 26: 81.92, 27: 122.88, 28: 163.84, 29: 245.76, 30: 327.68, 31: 491.52,
}  # fmt: skip


@pytest.mark.parametrize("code, ms", RNR_MS.items())
def test_rnr_timer_codes(code, ms):
    assert rnr_timer_ns(code) == round(ms * 1_000_000)


@pytest.mark.parametrize(
    "syndrome, status", [(0x61, WcStatus.REM_INV_REQ_ERR), (0x62, WcStatus.REM_ACCESS_ERR), (0x63, WcStatus.REM_OP_ERR)]
)
def test_naks_give_their_completion_status_and_take_the_qp_to_error(rc, syndrome, status):
    rc.b.modify(1, STATE=QpState.RESET)
    rc.write(1, 8)
    rc.write(2, 8)
    rc.bench.run_for(3000)
    inject(rc.bench, rc.b, rc.a, opcode=ACK, syndrome=syndrome)
    rc.bench.run()
    assert rc.a.statuses() == [(1, status), (2, WcStatus.WR_FLUSH_ERR)]
    assert rc.a.row().state == QpState.ERR


def test_a_nak_completes_the_requests_before_it_with_success(rc):
    rc.b.modify(1, STATE=QpState.RESET)
    for wr_id in range(3):
        rc.write(wr_id, 8)
    rc.bench.run_for(3000)
    inject(rc.bench, rc.b, rc.a, psn=2, opcode=ACK, syndrome=0x62)
    rc.bench.run()
    assert rc.a.statuses() == [(0, 0), (1, 0), (2, WcStatus.REM_ACCESS_ERR)]


def test_one_ack_acknowledges_all_before_it(rc):
    rc.b.modify(1, STATE=QpState.RESET)
    for wr_id in range(5):
        rc.write(wr_id, 2000)
    rc.bench.run_for(5000)
    inject(rc.bench, rc.b, rc.a, psn=9, opcode=ACK, syndrome=0x1F)
    rc.bench.run_for(5000)
    assert rc.a.statuses() == [(n, 0) for n in range(5)]


@pytest.mark.parametrize("psn", [-1, -1000, 4, 5, 1 << 22])
def test_acks_for_psns_that_are_not_outstanding_are_ignored(rc, psn):
    rc.b.modify(1, STATE=QpState.RESET)
    for wr_id in range(4):
        rc.write(wr_id, 8)
    rc.bench.run_for(3000)
    inject(rc.bench, rc.b, rc.a, psn=psn, opcode=ACK, syndrome=0x1F)
    rc.bench.run_for(5000)
    assert rc.a.statuses() == []


def test_a_read_response_acknowledges_the_writes_before_it(rc):
    wire = Wire(rc.bench, lambda row: DROP if row.opcode == ACK else None)
    rc.write(1, 8)
    rc.read(2, 8)
    wire.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert rc.bench.device.row.timeouts == 0


def test_a_response_behind_a_lost_one_asks_for_the_rest_once(bench):
    """The re-read starts at the first missing response; responses behind the gap do not ask again."""
    rc = connected(bench, pages=40)
    lost = []

    def lose_the_tenth(row):
        if row.opcode == RcOpcode.READ_RESP_MIDDLE and not lost and row.psn == (rc.a.psn + 10) % (1 << 24):
            lost.append(int(row.psn))
            return DROP
        return None

    bench.log()
    rc.read(1, 40 * 4096)
    Wire(bench, lose_the_tenth).run()
    assert lost and rc.a.statuses() == [(1, 0)] and rc.local.data == rc.remote.data
    assert bench.sent().count(READ) == 2
    assert bench.device.row.reads_rewound == 1 and bench.device.row.timeouts == 0


def test_an_ack_that_skips_a_read_asks_for_the_read_again(rc):
    """The ACK of the WRITE behind it says that the responses of the READ were lost."""
    lost = []

    def lose_the_response(row):
        if row.opcode == RcOpcode.READ_RESP_ONLY and not lost:
            lost.append(1)
            return DROP
        return None

    rc.read(1, 64)
    rc.write(2, 8)
    Wire(rc.bench, lose_the_response).run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert rc.local.data[:64] == rc.remote.data[:64] or rc.remote.data[:8] == rc.local.data[:8]
    assert rc.bench.device.row.timeouts == 0


def test_a_late_ack_after_a_rewind_does_not_send_retired_work_again(rc):
    """Retransmission has started when the ACK comes: what it covers leaves the ring and is not touched any more."""
    late = []

    def hold_acks(row):
        if row.opcode == ACK and len(late) < 4:
            late.append(1)
            return LATE
        return None

    rc.a.modify(1 << 9, TIMEOUT=1)
    for wr_id in range(4):
        rc.write(wr_id, 3000)
    Wire(rc.bench, hold_acks).run()
    row = rc.a.row()
    assert late and rc.a.statuses() == [(n, 0) for n in range(4)]
    assert row.sq_next == row.sq_una == row.sq_fetched == 4
    assert rc.bench.device.row.timeouts > 0


@pytest.mark.parametrize(
    "opcode, payload", [(RcOpcode.READ_RESP_ONLY, 7), (RcOpcode.READ_RESP_ONLY, 9), (RcOpcode.ATOMIC_ACK, 8)]
)
def test_a_response_that_does_not_fit_the_request_is_a_bad_response(rc, opcode, payload):
    rc.b.modify(1, STATE=QpState.RESET)
    before = rc.local.data
    rc.read(1, 8)
    rc.bench.run_for(3000)
    inject(rc.bench, rc.b, rc.a, opcode=opcode, payload=payload, syndrome=0x1F)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.BAD_RESP_ERR)]
    assert rc.local.data == before


@pytest.mark.parametrize("opcode", [RcOpcode.READ_RESP_ONLY, RcOpcode.ATOMIC_ACK])
def test_a_response_to_a_write_is_dropped(rc, opcode):
    rc.b.modify(1, STATE=QpState.RESET)
    rc.write(1, 8)
    rc.bench.run_for(3000)
    inject(rc.bench, rc.b, rc.a, opcode=opcode, payload=8, syndrome=0x1F)
    rc.bench.run_for(5000)
    assert rc.a.statuses() == [] and rc.a.row().state == QpState.RTS


def test_read_data_is_scattered_across_sges_and_packets(rc):
    before, data = rc.local.data, rc.remote.data
    rc.a.post_send(
        1,
        WrOpcode.RDMA_READ,
        rc.local.sge(1, 0),
        rc.local.sge(2500, 4000),
        rc.local.sge(99, 9000),
        remote=rc.remote.va,
        rkey=rc.remote.key,
    )
    rc.bench.run()
    expected = data[:1] + before[1:4000] + data[1:2501] + before[6500:9000] + data[2501:2600] + before[9099:]
    assert rc.local.data == expected


@pytest.mark.parametrize(
    "opcode, wc",
    [
        (WrOpcode.RDMA_WRITE, WcOpcode.RDMA_WRITE),
        (WrOpcode.RDMA_WRITE_WITH_IMM, WcOpcode.RDMA_WRITE),
        (WrOpcode.SEND, WcOpcode.SEND),
        (WrOpcode.SEND_WITH_IMM, WcOpcode.SEND),
        (WrOpcode.RDMA_READ, WcOpcode.RDMA_READ),
        (WrOpcode.ATOMIC_CMP_AND_SWP, WcOpcode.COMP_SWAP),
        (WrOpcode.ATOMIC_FETCH_AND_ADD, WcOpcode.FETCH_ADD),
    ],
)
def test_completions_carry_the_work_completion_opcode(rc, opcode, wc):
    rc.b.post_recv(1, rc.remote.sge())
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    (cqe,) = rc.a.cq.poll()
    assert (cqe["opcode"], cqe["qp_num"], cqe["status"]) == (wc, rc.a.number, 0)


def test_the_bytes_of_a_read_are_there_when_it_completes(rc):
    """The CQE comes after the second DMA instant."""
    expected = rc.remote.data[:3000]
    rc.read(1, 3000)
    while not rc.a.row().sq_una:
        assert rc.bench.engine_step()
    assert rc.local.data[:3000] == expected
