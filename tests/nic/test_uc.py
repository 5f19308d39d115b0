"""Unreliable connections: no acknowledgement, a lost packet loses its message, nothing more (Linux rxe, IBA)."""

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, QpType, SendFlag, WcOpcode, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import Rc, connected
from tests.nic.packets import DOUBLE, DROP, LATE, Wire
from tests.nic.testbench import WrOpcode


@pytest.fixture
def uc(bench) -> Rc:
    """Two connected UC QPs, everything mapped."""
    return connected(bench, kind=QpType.UC)


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 3079])
def test_writes_and_sends_arrive(uc, length):
    uc.b.post_recv(7, uc.remote.sge(4096, 8192))
    before, data = uc.remote.data, uc.local.data
    uc.write(1, length, at=100)
    uc.send(2, length)
    uc.bench.run()
    assert uc.a.statuses() == [(1, 0), (2, 0)]
    (cqe,) = uc.b.cq.poll()
    assert (cqe["wr_id"], cqe["status"], cqe["byte_len"]) == (7, 0, length)
    expected = bytearray(before)
    expected[100 : 100 + length] = data[:length]
    expected[8192 : 8192 + length] = data[:length]
    assert uc.remote.data == bytes(expected)


def test_nothing_is_acknowledged(uc):
    uc.bench.log()
    uc.write(1, 3000)
    uc.bench.run()
    assert uc.bench.sent() == [RcOpcode.WRITE_FIRST, RcOpcode.WRITE_MIDDLE, RcOpcode.WRITE_LAST]


def test_immediate_data_completes_a_receive(uc):
    uc.b.post_recv(7)
    uc.a.post_send(1, WrOpcode.RDMA_WRITE_WITH_IMM, uc.local.sge(8), remote=uc.remote.va, rkey=uc.remote.key, imm=77)
    uc.bench.run()
    (cqe,) = uc.b.cq.poll()
    assert (cqe["opcode"], cqe["imm"], cqe["byte_len"]) == (WcOpcode.RECV_RDMA_WITH_IMM, 77, 8)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_packet_loses_its_message_and_the_next_one_arrives(uc, lost):
    for wr_id in range(2):
        uc.b.post_recv(wr_id, uc.remote.sge(4096, 4096 * wr_id))
    psn = [uc.a.psn + lost & 0xFFFFFF]
    wire = Wire(uc.bench, lambda row: DROP if row.psn in psn else None)
    uc.send(1, 3000)
    uc.send(2, 2000, offset=5000)
    wire.run()
    assert uc.a.statuses() == [(1, 0), (2, 0)]
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(0, 2000)]
    assert uc.remote.data[:2000] == uc.local.data[5000:7000]
    assert uc.b.row().state == QpState.RTS


def test_a_message_without_receive_is_dropped_without_a_word(uc):
    uc.send(1, 2000)
    uc.bench.run()
    uc.b.post_recv(5, uc.remote.sge(4096))
    uc.send(2, 100)
    uc.bench.run()
    assert uc.a.statuses() == [(1, 0), (2, 0)]
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(5, 100)]


def test_a_message_longer_than_its_receive_is_dropped_and_the_receive_stays(uc):
    before = uc.remote.data
    uc.b.post_recv(5, uc.remote.sge(1000))
    uc.send(1, 2000)
    uc.send(2, 999)
    uc.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(5, 999)]
    assert uc.remote.data[1000:] == before[1000:]


@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM])
def test_a_dropped_send_leaves_its_receive_to_the_next_message_that_needs_one(uc, opcode):
    """Also when a WRITE comes first: without immediate it needs none, with immediate it takes this one."""
    for wr_id in range(2):
        uc.b.post_recv(wr_id, uc.remote.sge(4096))
    wire = Wire(uc.bench, lambda row: DROP if row.psn == uc.a.psn + 1 & 0xFFFFFF else None)
    uc.send(1, 2000)
    uc.a.post_send(2, opcode, uc.local.sge(8), remote=uc.remote.va, rkey=uc.remote.key)
    uc.send(3, 100)
    wire.run()
    lengths = [100] if opcode == WrOpcode.RDMA_WRITE else [8, 100]
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == list(enumerate(lengths))


def test_a_write_with_immediate_needs_no_other_receive_than_one_that_a_dropped_send_left(uc):
    uc.b.post_recv(5, uc.remote.sge(4096))
    wire = Wire(uc.bench, lambda row: DROP if row.psn == uc.a.psn + 1 & 0xFFFFFF else None)
    uc.send(1, 2000)
    uc.a.post_send(2, WrOpcode.RDMA_WRITE_WITH_IMM, uc.local.sge(8), remote=uc.remote.va, rkey=uc.remote.key)
    wire.run()
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(5, 8)]


def test_a_bad_rkey_is_dropped_and_writes_nothing(uc):
    before = uc.remote.data
    uc.a.post_send(1, WrOpcode.RDMA_WRITE, uc.local.sge(3000), remote=uc.remote.va, rkey=uc.remote.key ^ 1)
    uc.write(2, 8, at=4000)
    uc.bench.run()
    assert uc.a.statuses() == [(1, 0), (2, 0)]
    assert uc.remote.data == before[:4000] + uc.local.data[:8] + before[4008:]
    assert uc.b.row().state == QpState.RTS


def test_a_bad_receive_wqe_is_an_error_of_the_receiver(uc):
    uc.b.post_recv(5, (1, 4096, 0xBAD))
    uc.send(1, 100)
    uc.bench.run()
    assert uc.a.statuses() == [(1, 0)]
    assert uc.b.statuses() == [(5, WcStatus.LOC_PROT_ERR)]
    assert uc.b.row().state == QpState.ERR


@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_READ, WrOpcode.ATOMIC_FETCH_AND_ADD, WrOpcode.SEND_WITH_INV,
                                    WrOpcode.FLUSH, WrOpcode.ATOMIC_WRITE])  # fmt: skip
def test_what_needs_an_answer_is_refused_and_the_send_queue_stops_in_sqe(uc, opcode):
    uc.a.post_send(1, opcode, uc.local.sge(8), remote=uc.remote.va, rkey=uc.remote.key)
    uc.write(2, 8)
    uc.bench.run()
    assert uc.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR), (2, WcStatus.WR_FLUSH_ERR)]
    assert uc.a.row().state == QpState.SQE


def test_in_sqe_receives_go_on_and_rts_makes_sends_go_on(uc):
    uc.a.post_send(1, WrOpcode.RDMA_WRITE, (uc.local.va, 8, 0xBAD), remote=uc.remote.va, rkey=uc.remote.key)
    uc.bench.run()
    assert uc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)] and uc.a.row().state == QpState.SQE
    uc.a.post_recv(9, uc.local.sge(4096))
    uc.b.post_send(2, WrOpcode.SEND, uc.remote.sge(64))
    uc.write(3, 8)
    uc.bench.run()
    assert sorted(uc.a.statuses()) == [(3, WcStatus.WR_FLUSH_ERR), (9, 0)]
    uc.a.modify(1, STATE=QpState.RTS)
    uc.write(4, 8)
    uc.bench.run()
    assert uc.a.statuses() == [(4, 0)]


def test_a_missing_page_of_the_sender_holds_the_queue(bench):
    uc = connected(bench, local=False, kind=QpType.UC)
    uc.write(1, 2000)
    fault = bench.fault()
    assert uc.a.statuses() == []
    uc.local.map()
    bench.resume(fault["token"])
    bench.run()
    assert uc.a.statuses() == [(1, 0)] and uc.remote.data[:2000] == uc.local.data[:2000]


def test_a_missing_page_of_the_receiver_loses_the_message_and_is_reported(bench):
    uc = connected(bench, remote=False, kind=QpType.UC)
    uc.write(1, 2000)
    fault = bench.fault()
    uc.remote.map()
    bench.resume(fault["token"])
    uc.write(2, 2000, offset=2000)
    bench.run()
    assert uc.a.statuses() == [(1, 0), (2, 0)]
    assert uc.remote.data[:2000] == uc.local.data[2000:4000]


def test_the_peer_hears_that_the_connection_is_established(bench):
    uc = connected(bench, kind=QpType.UC)
    uc.b.modify(1, STATE=QpState.RESET)
    uc.b.connect(uc.a)
    uc.b.row().state = QpState.RTR
    uc.write(1, 8)
    uc.write(2, 8)
    bench.run()
    assert bench.asyncs() == [(AsyncEvent.COMM_EST, uc.b.number)]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_wire_does_only_whole_messages_complete_and_in_order(uc, seed):
    """Loss, doubling, delay: a receive holds one message's bytes, messages never overtake each other."""
    actions = [DROP, DOUBLE, LATE]
    count = [0]

    def decide(row):
        count[0] += 1
        return actions[(count[0] * 7 + seed) % 3] if (count[0] * 2654435761 + seed * 40503) % 5 == 0 else None

    wire = Wire(uc.bench, decide)
    for wr_id in range(12):
        uc.b.post_recv(wr_id, uc.remote.sge(4096, 4096 * (wr_id % 4)))
    for wr_id in range(12):
        uc.send(wr_id, 1500 + 100 * wr_id, offset=wr_id, flags=SendFlag.SIGNALED)
        wire.run()
    assert [s for _, s in uc.a.statuses()] == [0] * 12
    lengths = [c["byte_len"] for c in uc.b.cq.poll()]
    assert set(lengths) <= {1500 + 100 * n for n in range(12)}
    assert uc.b.row().state == QpState.RTS
