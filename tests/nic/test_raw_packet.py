"""Raw packet QPs: whole frames out of gather lists and into receive WQEs (libibverbs IBV_QPT_RAW_PACKET)."""

import itertools

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import QpAttrMask, QpState, SendFlag, WcOpcode, WcStatus, WrOpcode
from tests.nic import backup_ends
from tests.nic.raw import Raw, ethernet, frame4
from tests.nic.testbench import Bench

BIG = 4096 + 14


@pytest.fixture
def raw(bench) -> Raw:
    """Two raw packet QPs; the receiver gets everything."""
    made = Raw(bench)
    made.flow()
    return made


@pytest.mark.parametrize("size", [60, 61, 1000, 4096, BIG, BIG + 8])
def test_a_frame_arrives_as_it_was_sent(raw, size):
    data = ethernet(bytes(i & 0xFF for i in range(size - 14)))
    raw.b.post_recv(5, raw.target.sge(8192))
    raw.send(data)
    (sent,), (cqe,) = raw.a.cq.poll(), raw.b.cq.poll()
    assert (sent["status"], sent["opcode"]) == (0, WcOpcode.SEND)
    assert (cqe["status"], cqe["opcode"], cqe["byte_len"], cqe["qp_num"]) == (0, WcOpcode.RECV, size, 3)
    assert raw.target.data[:size] == data and raw.target.data[size:8192] == bytes(8192 - size)


def test_a_frame_is_gathered_and_scattered(raw):
    data = ethernet(bytes(range(200)))
    raw.put(data)
    raw.b.post_recv(5, raw.target.sge(10), raw.target.sge(50, 5000), raw.target.sge(500, 9000))
    raw.a.post_send(1, WrOpcode.SEND, raw.source.sge(20), raw.source.sge(len(data) - 20, 20))
    raw.bench.run()
    assert raw.b.statuses() == [(5, 0)]
    got = raw.target.data
    assert got[:10] + got[5000:5050] + got[9000 : 9000 + len(data) - 60] == data


def test_inline(raw):
    data = ethernet(b"inline" * 20)
    raw.receive(5)
    raw.a.post_send(1, WrOpcode.SEND, inline=data)
    raw.bench.run()
    assert raw.got() == [(5, data)]


def test_the_port_pads_to_sixty_bytes(raw):
    raw.receive(5)
    raw.send(ethernet(b"x"))
    assert raw.got() == [(5, ethernet(b"x").ljust(60, b"\0"))]


@pytest.mark.parametrize("size", [0, 1, 13, BIG + 9, 8192])
def test_what_is_no_frame_is_a_length_error_and_sqe(raw, size):
    raw.a.post_send(1, WrOpcode.SEND, raw.source.sge(size))
    raw.a.post_send(2, WrOpcode.SEND, raw.source.sge(60))
    raw.bench.run()
    assert raw.a.statuses() == [(1, WcStatus.LOC_LEN_ERR), (2, WcStatus.WR_FLUSH_ERR)]
    assert raw.a.row().state == QpState.SQE


@pytest.mark.parametrize("opcode", [WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.BIND_MW])
def test_there_is_nothing_but_send(raw, opcode):
    raw.a.post_send(1, opcode, raw.source.sge(60))
    raw.bench.run()
    assert raw.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR)]


def test_a_bad_lkey_of_the_sender_is_a_protection_error(raw):
    raw.a.post_send(1, WrOpcode.SEND, (raw.source.va, 60, raw.source.key + 1))
    raw.bench.run()
    assert raw.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)]


def test_a_frame_longer_than_the_receive_wqe_fails_it_and_the_queue(raw):
    raw.receive(5, length=99)
    raw.receive(6)
    raw.send(ethernet(bytes(86)))
    assert raw.b.statuses() == [(5, WcStatus.LOC_LEN_ERR), (6, WcStatus.WR_FLUSH_ERR)]
    assert raw.b.row().state == QpState.ERR and raw.target.data == bytes(16 * 4096)
    raw.send(ethernet(bytes(86)), 2)
    assert raw.a.row().state == QpState.RTS and raw.bench.device.row.packets_dropped == 1


def test_a_bad_lkey_of_the_receiver_fails_its_wqe_behind_those_before(raw):
    raw.receive(5)
    raw.b.post_recv(6, (raw.target.va, 2048, raw.target.key + 1))
    raw.put(frame4())
    for wr_id in (1, 2, 3):
        raw.a.post_send(wr_id, WrOpcode.SEND, raw.source.sge(60))
    raw.bench.run()
    assert raw.b.statuses() == [(5, 0), (6, WcStatus.LOC_PROT_ERR)]


def test_without_a_receive_wqe_the_frame_is_dropped_and_counted(raw):
    raw.send(frame4())
    assert raw.a.statuses() == [(1, 0)] and raw.b.statuses() == []
    assert (raw.bench.device.row.raw_no_buffer, raw.b.row().state) == (1, QpState.RTS)


def test_after_reset_it_is_a_new_queue(raw):
    raw.receive(5)
    raw.b.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    raw.b.record.word(8, 0)
    raw.send(frame4())
    assert raw.b.statuses() == []
    raw.b.to_rts()
    raw.receive(6)
    raw.send(frame4(), 2)
    assert [wr_id for wr_id, _ in raw.got()] == [6]


def test_a_missing_page_of_the_sender_suspends_it(bench):
    raw = Raw(bench)
    raw.flow()
    cold = bench.mr(1, mapped=False)
    data = ethernet(b"cold" * 30)
    raw.put(data, cold)
    raw.receive(5)
    raw.a.post_send(1, WrOpcode.SEND, cold.sge(len(data)))
    fault = bench.fault()
    cold.map()
    bench.resume(fault["token"])
    bench.run()
    assert raw.got() == [(5, data)]


@pytest.fixture
def ring() -> Bench:
    """A NIC whose firmware keeps what finds no page."""
    return Bench(firmware_image=backup_ends.image())


def test_without_a_backup_ring_a_frame_that_finds_no_page_is_dropped(bench):
    raw = Raw(bench)
    raw.flow()
    cold = bench.mr(1, mapped=False)
    raw.b.post_recv(5, cold.sge(2048))
    raw.send(frame4())
    cold.map()
    bench.resume(bench.faults()[0]["token"])
    assert (bench.device.row.fault_drops, raw.b.statuses()) == (1, [])
    raw.send(frame4(), 2)
    assert raw.b.statuses() == [(5, 0)]


def test_frames_wait_for_a_missing_page_of_the_receiver_in_order(ring):
    bench = ring
    raw = Raw(bench)
    raw.flow()
    cold = bench.mr(1, mapped=False)
    raw.b.post_recv(5, cold.sge(2048))
    raw.receive(6)
    raw.put(ethernet(b"one" * 30))
    raw.a.post_send(1, WrOpcode.SEND, raw.source.sge(104))
    raw.a.post_send(2, WrOpcode.SEND, raw.source.sge(64))
    fault = bench.fault()
    bench.run()
    assert raw.b.statuses() == []
    cold.map()
    bench.resume(fault["token"])
    bench.run()
    assert [(c["wr_id"], c["status"], c["byte_len"]) for c in raw.b.cq.poll()] == [(5, 0, 104), (6, 0, 64)]
    assert cold.data[:104] == ethernet(b"one" * 30)


def test_a_page_that_cannot_be_brought_in_fails_the_wqe(ring):
    bench = ring
    raw = Raw(bench)
    raw.flow()
    cold = bench.mr(1, mapped=False)
    raw.b.post_recv(5, cold.sge(2048))
    raw.put(frame4())
    raw.a.post_send(1, WrOpcode.SEND, raw.source.sge(60))
    bench.resume(bench.fault()["token"], error=1)
    bench.run()
    assert raw.b.statuses() == [(5, WcStatus.LOC_PROT_ERR)]


def test_a_queue_that_is_reset_forgets_the_frames_that_waited(ring):
    bench = ring
    raw = Raw(bench)
    raw.flow()
    cold = bench.mr(1, mapped=False)
    raw.b.post_recv(5, cold.sge(2048))
    raw.put(frame4())
    for wr_id in range(3):
        raw.a.post_send(wr_id, WrOpcode.SEND, raw.source.sge(60))
    bench.fault()
    raw.b.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    bench.run()
    assert bench.device.row.rx_waiting == bench.device.row.backup_packets == 0 and raw.b.row().rx_waiting == 0


def test_unsignaled_sends_complete_in_silence(raw):
    raw.receive(5)
    raw.send(frame4(), flags=0)
    assert raw.a.statuses() == [] and len(raw.got()) == 1


def test_the_own_address_leads_back_to_the_nic(raw):
    raw.receive(5)
    raw.send(ethernet(b"self", dst=raw.bench.device.mac))
    assert len(raw.got()) == 1


def test_a_frame_that_nobody_is_there_for_is_lost(bench):
    raw = Raw(bench)
    raw.send(ethernet(b"nobody", dst=0x0200_0000_0001))
    assert bench.device.row.packets_dropped == 1 and raw.a.statuses() == [(1, 0)]


def test_pacing_holds_frames_back(raw):
    raw.b.post_recv(5, raw.target.sge(2048))
    raw.receive(6)
    raw.receive(7)
    raw.a.modify(QpAttrMask.RATE_LIMIT, RATE_KBPS=8_000)  # a kilobyte each millisecond
    raw.put(ethernet(bytes(986)))
    for wr_id in (1, 2, 3):
        raw.a.post_send(wr_id, WrOpcode.SEND, raw.source.sge(1000))
    raw.bench.run()
    times = [cqe["time"] for cqe in raw.b.cq.poll()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([1_000_000, 1_000_000], abs=1000)  # but for an IOTLB miss


def test_a_qp_with_flags_for_sends_only_still_sends_plainly(raw):
    raw.receive(5)
    raw.send(frame4(), flags=SendFlag.SIGNALED | SendFlag.SOLICITED | SendFlag.FENCE)
    assert len(raw.got()) == 1


def test_a_rule_for_a_qp_that_does_not_exist_is_refused(raw):
    raw.bench.command(Command.CREATE_FLOW, 9, 99, 0, 0, 0, expect=Status.BAD_RESOURCE)


def test_a_reset_ends_packet_pacing(raw):
    raw.a.modify(QpAttrMask.STATE | QpAttrMask.RATE_LIMIT, STATE=QpState.RTS, RATE_KBPS=1000)
    raw.send(ethernet(bytes(100)))
    row = raw.a.row()
    assert (row.rate_kbps, row.paced_until > 0) == (1000, True)
    raw.a.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    assert (row.rate_kbps, row.paced_until) == (0, 0)
