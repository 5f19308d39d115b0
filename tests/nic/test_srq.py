"""Shared receive queues and XRC (Linux rxe_srq.c, rxe_resp.c get_srq_wqe; verbs.h)."""

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import AsyncEvent, QpState, QpType, WcOpcode, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.testbench import Cq, Qp, Ring, Srq, WrOpcode


class Shared:
    """Two clients, two servers on one SRQ."""

    def __init__(self, bench, kind=QpType.RC):
        self.bench, self.srq = bench, Srq(bench, 1)
        self.clients = [Qp(bench, n, Cq(bench, n), kind=kind) for n in (2, 3)]
        self.servers = [Qp(bench, n, Cq(bench, n), kind=kind, srq=self.srq) for n in (4, 5)]
        for client, server in zip(self.clients, self.servers, strict=True):
            client.connect(server)
            server.connect(client)
        self.local, self.remote = bench.mr(4), bench.mr(8)
        self.local.fill(1)
        self.remote.fill(2)

    def send(self, who, wr_id, length=100, offset=0):
        """Client ``who`` sends."""
        self.clients[who].post_send(wr_id, WrOpcode.SEND, self.local.sge(length, offset))


@pytest.fixture
def shared(bench) -> Shared:
    """An SRQ under two RC QPs."""
    return Shared(bench)


def test_receives_are_taken_in_order_whoever_needs_them(shared):
    for wr_id in range(4):
        shared.srq.post(wr_id, shared.remote.sge(4096, 4096 * wr_id))
    for who in (0, 1, 1, 0):
        shared.send(who, who, 64, offset=who * 64)
        shared.bench.run()
    assert [c["wr_id"] for c in shared.servers[0].cq.poll()] == [0, 3]
    assert [c["wr_id"] for c in shared.servers[1].cq.poll()] == [1, 2]
    assert shared.remote.data[4096:4160] == shared.local.data[64:128]


def test_a_slot_is_free_as_soon_as_its_wqe_is_taken(shared):
    shared.srq.post(0, shared.remote.sge(8192))
    assert shared.srq.free == shared.srq.slots - 1
    shared.send(0, 1, 3000)
    shared.bench.run()
    assert shared.srq.free == shared.srq.slots


def test_an_empty_srq_is_a_receiver_not_ready(shared):
    shared.send(0, 1)
    shared.bench.run_for(30_000)
    assert shared.clients[0].statuses() == [] and shared.bench.device.row.rnr_naks_sent > 0
    shared.srq.post(0, shared.remote.sge(4096))
    shared.bench.run()
    assert shared.clients[0].statuses() == [(1, 0)]


def test_two_messages_in_flight_keep_their_wqes_apart(shared):
    """Packets of two multi-packet messages interleave; each QP has its own copy of its WQE."""
    for wr_id in range(2):
        shared.srq.post(wr_id, shared.remote.sge(16384, 16384 * wr_id))
    shared.send(0, 1, 9000)
    shared.send(1, 2, 9000, offset=1000)
    shared.bench.run()
    done = {c["wr_id"]: who for who in (0, 1) for c in shared.servers[who].cq.poll()}
    for wr_id, who in done.items():
        at = 16384 * wr_id
        assert shared.remote.data[at : at + 9000] == shared.local.data[1000 * who : 9000 + 1000 * who]


def test_the_limit_event_comes_once_below_the_limit_and_disarms(shared):
    for wr_id in range(5):
        shared.srq.post(wr_id, shared.remote.sge(4096))
    shared.bench.command(Command.MODIFY_SRQ, 1, 3)
    seen = []
    for n in range(4):
        shared.send(0, n)
        shared.bench.run()
        seen.append(shared.bench.asyncs())
    assert seen == [[], [], [(AsyncEvent.SRQ_LIMIT_REACHED, 1)], []]
    shared.bench.command(Command.QUERY_SRQ, 1)
    assert int.from_bytes(shared.bench.mailbox[:8].tobytes(), "little") == 0


def test_in_error_the_srq_keeps_its_wqes_and_the_qp_says_last_wqe_reached(shared):
    shared.srq.post(0, shared.remote.sge(4096))
    shared.servers[0].modify(1, STATE=QpState.ERR)
    shared.bench.run()
    assert shared.servers[0].statuses() == []
    assert shared.bench.asyncs() == [(AsyncEvent.QP_LAST_WQE_REACHED, 4)]
    shared.send(1, 7)
    shared.bench.run()
    assert shared.servers[1].statuses() == [(0, 0)]


def test_the_wqe_of_a_message_in_progress_is_flushed(shared):
    shared.srq.post(0, shared.remote.sge(16384))
    shared.send(0, 1, 16000)
    shared.bench.step_until(lambda: shared.servers[0].row().recv_taken)
    shared.servers[0].modify(1, STATE=QpState.ERR)
    shared.bench.run_for(1_000_000)
    assert shared.servers[0].statuses() == [(0, WcStatus.WR_FLUSH_ERR)]


def test_a_bad_wqe_fails_its_qp_only(shared):
    shared.srq.post(0, (1, 100, 0xBAD))
    shared.srq.post(1, shared.remote.sge(4096))
    shared.send(0, 1)
    shared.bench.run()
    assert shared.servers[0].statuses() == [(0, WcStatus.LOC_PROT_ERR)]
    assert shared.clients[0].statuses() == [(1, WcStatus.REM_OP_ERR)]
    shared.send(1, 2)
    shared.bench.run()
    assert shared.clients[1].statuses() == [(2, 0)]


def test_an_impossible_producer_counter_is_srq_err_once(shared):
    shared.srq.record.word(0, 10**6)
    for n in range(2):
        shared.send(0, n)
    shared.bench.run_for(100_000)
    assert shared.bench.asyncs() == [(AsyncEvent.SRQ_ERR, 1)]


def test_resize_keeps_what_waits(shared):
    for wr_id in range(10):
        shared.srq.post(wr_id, shared.remote.sge(4096))
    shared.send(0, 1)
    shared.bench.run()
    small, big = Ring(8 * shared.srq.stride), Ring(128 * shared.srq.stride)
    shared.bench.command(Command.RESIZE_SRQ, 1, small.address, 8, expect=Status.BAD_PARAM)
    shared.bench.command(Command.RESIZE_SRQ, 1, big.address, 128)
    shared.srq.ring, shared.srq.slots = big, 128
    for wr_id in range(10, 90):
        shared.srq.post(wr_id, shared.remote.sge(4096))
    for n in range(60):
        shared.send(0, n)
        shared.bench.run()
    assert [c["wr_id"] for c in shared.servers[0].cq.poll()] == list(range(61))


def test_a_missing_page_is_reported_by_key_and_address(bench):
    """The WQE is the NIC's copy, so the fault names what to map."""
    shared = Shared(bench)
    cold = bench.region(2)
    shared.srq.post(0, cold.sge(8192))
    shared.send(0, 1, 3000)
    fault = bench.fault()
    assert (fault["subtype"], fault["key"], fault["va"]) == (1, cold.key, cold.va)


class Xrc:
    """An initiator, a target, an XRC SRQ with its own CQ."""

    def __init__(self, bench, domain=7):
        self.bench, self.cq = bench, Cq(bench, 9)
        self.srq = Srq(bench, 2, xrcd=7, cq=self.cq)
        self.ini = Qp(bench, 2, Cq(bench, 2), kind=QpType.XRC_SEND)
        self.tgt = Qp(bench, 3, Cq(bench, 3), kind=QpType.XRC_RECV, xrcd=domain)
        self.ini.connect(self.tgt)
        self.tgt.connect(self.ini)
        self.local, self.remote = bench.mr(4), bench.mr(8)
        self.local.fill(1)
        self.remote.fill(2)

    def post(self, wr_id, opcode, length, srqn=2, **options):
        """The initiator posts a request for SRQ ``srqn``."""
        self.ini.post_send(wr_id, opcode, self.local.sge(length), remote=self.remote.va, rkey=self.remote.key,
                           qpn=srqn, **options)  # fmt: skip


@pytest.fixture
def xrc(bench) -> Xrc:
    """An XRC pair."""
    return Xrc(bench)


def test_xrc_send_completes_in_the_cq_of_the_srq(xrc):
    xrc.srq.post(5, xrc.remote.sge(8192))
    xrc.post(1, WrOpcode.SEND, 3000)
    xrc.bench.run()
    assert xrc.ini.statuses() == [(1, 0)] and xrc.tgt.statuses() == []
    (cqe,) = xrc.cq.poll()
    assert (cqe["wr_id"], cqe["byte_len"], cqe["qp_num"]) == (5, 3000, xrc.tgt.number)
    assert xrc.remote.data[:3000] == xrc.local.data[:3000]


def test_xrc_has_all_rdma_operations(xrc):
    xrc.post(1, WrOpcode.RDMA_WRITE, 5000)
    xrc.post(2, WrOpcode.RDMA_READ, 5000)
    xrc.post(3, WrOpcode.ATOMIC_FETCH_AND_ADD, 8, compare=1)
    xrc.post(4, WrOpcode.ATOMIC_WRITE, 8)
    xrc.bench.run()
    assert xrc.ini.statuses() == [(n, 0) for n in (1, 2, 3, 4)]
    assert xrc.remote.data[8:5000] == xrc.local.data[8:5000]


@pytest.mark.parametrize("case", ["no such srq", "basic srq", "other domain"])
def test_an_xrc_request_must_name_an_xrc_srq_of_the_target_s_domain(bench, case):
    xrc = Xrc(bench, domain=8 if case == "other domain" else 7)
    Srq(bench, 3)
    xrc.post(1, WrOpcode.SEND, 8, srqn={"no such srq": 9, "basic srq": 3, "other domain": 2}[case])
    bench.run()
    assert xrc.ini.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]
    assert (AsyncEvent.QP_REQ_ERR, xrc.tgt.number) in bench.asyncs()


def test_xrc_requests_and_responses_carry_their_transport(xrc):
    xrc.post(1, WrOpcode.RDMA_READ, 8)
    transports = []
    xrc.bench.step_until(lambda: transports.append(int(xrc.bench.world.packet[1].transport)) or xrc.ini.cq.poll())
    assert set(transports[2:]) == {5}


def test_an_initiator_takes_no_requests(xrc):
    from tests.nic.packets import inject

    inject(xrc.bench, xrc.tgt, xrc.ini, opcode=RcOpcode.WRITE_ONLY, transport=5, srqn=2)
    xrc.bench.run()
    assert xrc.bench.device.row.packets_dropped == 1


def test_immediate_data_through_xrc(xrc):
    xrc.srq.post(5, xrc.remote.sge(8192))
    xrc.post(1, WrOpcode.RDMA_WRITE_WITH_IMM, 3000, imm=42)
    xrc.bench.run()
    (cqe,) = xrc.cq.poll()
    assert (cqe["opcode"], cqe["imm"], cqe["byte_len"]) == (WcOpcode.RECV_RDMA_WITH_IMM, 42, 3000)
