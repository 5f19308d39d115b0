"""Requester: WQEs to packets (Linux rxe_req.c)."""

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import Doorbell, doorbell_offset
from nicemu.abi.verbs import SendFlag, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import Rc, connected
from tests.nic.testbench import Bench, WrOpcode

FIRST, MIDDLE, LAST, ONLY = RcOpcode.WRITE_FIRST, RcOpcode.WRITE_MIDDLE, RcOpcode.WRITE_LAST, RcOpcode.WRITE_ONLY
ACK = RcOpcode.ACKNOWLEDGE
UNSIGNALED = 0


def requests(rc: Rc) -> list[int]:
    """Opcodes sent, acknowledgements left out."""
    return [opcode for opcode in rc.bench.sent() if opcode != ACK]


@pytest.mark.parametrize(
    "length, opcodes",
    [(0, [ONLY]), (1, [ONLY]), (1024, [ONLY]), (1025, [FIRST, LAST]), (2048, [FIRST, LAST]),
     (3000, [FIRST, MIDDLE, LAST]), (4096, [FIRST, MIDDLE, MIDDLE, LAST])],
)  # fmt: skip
def test_a_message_is_cut_at_the_path_mtu(rc, length, opcodes):
    rc.bench.log()
    rc.write(1, length)
    rc.bench.run()
    assert requests(rc) == opcodes
    assert rc.a.statuses() == [(1, 0)]


@pytest.mark.parametrize("mtu, bytes_", [(1, 256), (2, 512), (3, 1024), (4, 2048), (5, 4096)])
def test_all_packets_but_the_last_carry_exactly_the_mtu(bench, mtu, bytes_):
    rc = connected(bench, PATH_MTU=mtu)
    bench.log()
    rc.write(1, 2 * bytes_ + 3)
    bench.run()
    payloads = [d & 0xFFFFFFFF for kind, _, a, b, c, d in bench.trace() if kind.name == "SEND" and a != ACK]
    assert payloads == [bytes_, bytes_, 3]


@pytest.mark.parametrize("opcode, expected", [
    (WrOpcode.SEND, RcOpcode.SEND_ONLY), (WrOpcode.SEND_WITH_IMM, RcOpcode.SEND_ONLY_IMM),
    (WrOpcode.RDMA_WRITE, RcOpcode.WRITE_ONLY), (WrOpcode.RDMA_WRITE_WITH_IMM, RcOpcode.WRITE_ONLY_IMM),
    (WrOpcode.RDMA_READ, RcOpcode.READ_REQUEST),
])  # fmt: skip
def test_work_request_opcodes_map_to_bth_opcodes(rc, opcode, expected):
    rc.b.post_recv(1, rc.remote.sge(64))
    rc.bench.log()
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert requests(rc)[0] == expected


def test_each_request_packet_takes_one_psn_and_a_read_as_many_as_its_responses(rc):
    start = rc.a.row().next_psn
    for wr_id, (post, count) in enumerate([(rc.write, 3), (rc.read, 3), (rc.write, 3)]):
        post(wr_id, 2500)
        rc.bench.run()
        start = (start + count) % (1 << 24)
        assert rc.a.row().next_psn == start and rc.b.row().epsn == start


def test_a_zero_length_read_takes_one_psn(rc):
    before = int(rc.a.row().next_psn)
    rc.a.post_send(1, WrOpcode.RDMA_READ, remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.a.row().next_psn == (before + 1) % (1 << 24)
    assert rc.a.statuses() == [(1, 0)]


def test_psns_wrap_in_the_middle_of_a_message(rc):
    """The bench starts at 0xFFFFF0."""
    data = rc.local.data
    rc.write(1, 16384)
    rc.write(2, 16384)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert rc.a.row().una_psn == 0x10 and rc.remote.data == data


def test_inline_data_is_copied_from_the_ring(rc):
    before = rc.remote.data
    rc.a.post_send(1, WrOpcode.RDMA_WRITE, remote=rc.remote.va, rkey=rc.remote.key, inline=b"hello, inline")
    rc.bench.run()
    assert rc.remote.data == b"hello, inline" + before[13:]


def test_a_gather_list_is_concatenated(rc):
    data = rc.local.data
    rc.a.post_send(
        1,
        WrOpcode.RDMA_WRITE,
        rc.local.sge(100, 5),
        rc.local.sge(0),
        rc.local.sge(3000, 4000),
        rc.local.sge(1, 0),
        remote=rc.remote.va,
        rkey=rc.remote.key,
    )
    rc.bench.run()
    assert rc.remote.data[:3101] == data[5:105] + data[4000:7000] + data[:1]


def test_unsignaled_requests_leave_no_completion_but_retire_with_the_next(rc):
    rc.write(1, 10, flags=UNSIGNALED)
    rc.write(2, 10, flags=UNSIGNALED)
    rc.write(3, 10)
    rc.bench.run()
    assert rc.a.statuses() == [(3, 0)]
    assert rc.a.row().sq_una == 3


def test_completions_come_in_post_order_whatever_the_operation(rc):
    rc.read(1, 9000)
    rc.write(2, 10)
    rc.add(3, 1)
    rc.read(4, 10)
    rc.write(5, 3000)
    rc.bench.run()
    assert rc.a.statuses() == [(n, 0) for n in range(1, 6)]


def test_reads_and_atomics_beyond_max_rd_atomic_wait_at_the_head(bench):
    rc = connected(bench, MAX_RD_ATOMIC=2)
    for wr_id in range(5):
        rc.read(wr_id, 1500)
    rc.write(9, 8)
    most = 0
    while bench.engine_step():
        most = max(most, int(rc.a.row().rd_atomic))
    assert most == 2
    assert rc.a.statuses() == [(n, 0) for n in (0, 1, 2, 3, 4, 9)]


def test_reads_with_max_rd_atomic_0_are_refused(bench):
    rc = connected(bench, MAX_RD_ATOMIC=0)
    rc.read(1, 8)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR)]


def test_a_fenced_request_starts_after_all_reads_before_it(rc):
    rc.bench.log()
    rc.read(1, 8000)
    rc.write(2, 8, flags=SendFlag.SIGNALED | SendFlag.FENCE)
    rc.bench.run()
    sent = rc.bench.sent()
    assert sent.index(RcOpcode.WRITE_ONLY) > sent.index(RcOpcode.READ_RESP_LAST)


def test_without_a_fence_a_write_overtakes_the_responses(rc):
    rc.bench.log()
    rc.read(1, 8000)
    rc.write(2, 8)
    rc.bench.run()
    sent = rc.bench.sent()
    assert sent.index(RcOpcode.WRITE_ONLY) < sent.index(RcOpcode.READ_RESP_LAST)


def test_a_fenced_write_sends_what_the_read_brought(bench):
    """The READ's bytes must have landed, not only its last response have arrived."""
    rc = connected(bench)
    expected = rc.remote.data[:64]
    rc.read(1, 64)
    rc.write(2, 64, at=8192, flags=SendFlag.SIGNALED | SendFlag.FENCE)
    bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert rc.remote.data[8192:8256] == expected


def test_a_fence_holds_when_the_requester_is_woken_between_the_response_and_its_bytes(rc):
    expected = rc.remote.data[:64]
    rc.read(1, 64)
    rc.write(2, 64, at=8192, flags=SendFlag.SIGNALED | SendFlag.FENCE)
    rc.bench.step_until(lambda: rc.a.row().una_psn != rc.a.psn)
    for _ in range(30):
        rc.bench.device.write_doorbell(doorbell_offset(Doorbell.SEND, rc.a.number), 0)
        rc.bench.engine_step()
    rc.bench.run()
    assert rc.remote.data[8192:8256] == expected


def test_at_most_a_window_of_packets_is_unacknowledged(bench):
    rc = connected(bench, pages=80, PATH_MTU=1)
    rc.write(1, 80 * 4096)
    most = 0
    while bench.engine_step():
        row = rc.a.row()
        most = max(most, (int(row.sent_psn) - int(row.una_psn)) % (1 << 24))
    assert 32 < most <= 128
    assert rc.remote.data == rc.local.data


def test_a_send_of_nothing_consumes_a_receive(rc):
    rc.b.post_recv(7, rc.remote.sge(64))
    rc.a.post_send(1, WrOpcode.SEND)
    rc.bench.run()
    (cqe,) = rc.b.cq.poll()
    assert (cqe["wr_id"], cqe["byte_len"]) == (7, 0)


@pytest.mark.parametrize("opcode", [10, 11, 12, 13, 16, 99, 2**32 - 1])
def test_operations_the_device_does_not_have_are_refused(rc, opcode):
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR)]


def test_a_message_above_2_gib_is_refused():
    bench = Bench()
    rc = connected(bench)
    big = bench.region((1 << 19) + 2)
    rc.a.post_send(
        1,
        WrOpcode.RDMA_WRITE,
        (big.va, 1 << 31, big.key),
        (big.va, 1, big.key),
        remote=rc.remote.va,
        rkey=rc.remote.key,
    )
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_LEN_ERR)]


@pytest.mark.parametrize("length", [0, 4, 7, 9, 16])
def test_an_atomic_moves_exactly_eight_bytes(rc, length):
    rc.a.post_send(1, WrOpcode.ATOMIC_FETCH_AND_ADD, rc.local.sge(length), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_LEN_ERR)]


def test_a_doorbell_without_work_does_nothing(rc):
    for _ in range(3):
        rc.bench.device.write_doorbell(doorbell_offset(Doorbell.SEND, rc.a.number), 0)
    rc.bench.run()
    assert rc.a.statuses() == [] and rc.bench.device.row.packets_sent == 0


def test_a_full_ring_is_worked_off(rc):
    for wr_id in range(64):
        rc.write(wr_id, 16, at=16 * wr_id, offset=16 * wr_id)
    rc.bench.run()
    assert rc.a.statuses() == [(n, 0) for n in range(64)]
    assert rc.remote.data[:1024] == rc.local.data[:1024]


def test_requests_wait_until_the_qp_is_rts(bench):
    from tests.nic.testbench import Cq, Qp

    rc = connected(bench)
    fresh = Qp(bench, 9, Cq(bench, 9))
    fresh.post_send(1, WrOpcode.RDMA_WRITE, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    bench.run()
    assert fresh.statuses() == [] and bench.device.row.packets_sent == 0
    assert rings.owner(0, 1) == 1
