"""The backup ring: UD packets that hit a missing page wait for it, in order (Lesokhin et al., ASPLOS'17)."""

from __future__ import annotations

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import FaultSubtype, FaultType
from nicemu.abi.verbs import WcFlag, WcOpcode
from nicemu.tables.trace import Ev
from tests.nic.backup_ends import GRH, Ud, in_ring, ring, ring_bench, serve
from tests.nic.testbench import Srq, WrOpcode, halves

MGID = bytes.fromhex("ff0e000000000000000000000000abcd")


@pytest.fixture
def ud() -> Ud:
    """UD QPs on a NIC with a backup ring."""
    return Ud(ring_bench())


# One datagram ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 1000, 4096])
def test_a_datagram_waits_for_its_page_and_lands_whole(ud, length):
    ud.b.post_recv(5, ud.cold.sge(4096 + GRH))
    ud.send(1, length)
    fault = ud.bench.fault()
    assert (fault["type"], fault["subtype"], fault["key"]) == (
        FaultType.RESPONDER_RECV, FaultSubtype.WQE, ud.cold.key)  # fmt: skip
    assert ud.b.cq.poll() == [] and in_ring(ud.bench) == 1 and ud.bench.device.row.backup_used == length + 64
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    (cqe,) = ud.b.cq.poll()
    assert (cqe["wr_id"], cqe["status"], cqe["byte_len"], cqe["src_qp"]) == (5, 0, length + GRH, 2)
    assert cqe["flags"] & WcFlag.GRH
    assert ud.cold.data[GRH : GRH + length] == ud.local.data[:length]
    assert ud.cold.data[20:22] == b"\x45\x00"
    assert ring(ud.bench) == dict(packets=1, delivered=1, discards=0, drops=0)


def test_immediate_data_and_solicited_survive_the_wait(ud):
    ud.b.post_recv(5, ud.cold.sge(4096))
    ud.send(1, 8, opcode=WrOpcode.SEND_WITH_IMM, imm=99)
    serve(ud.bench, ud.cold)
    (cqe,) = ud.b.cq.poll()
    assert (cqe["imm"], cqe["flags"], cqe["opcode"]) == (99, WcFlag.GRH | WcFlag.WITH_IMM, WcOpcode.RECV)


def test_nothing_is_delivered_before_the_resume(ud):
    """The page is there, the NIC does not look until it is told."""
    ud.b.post_recv(5, ud.cold.sge(4096))
    ud.send(1)
    fault = ud.bench.fault()
    ud.cold.map()
    ud.bench.run_for(10_000_000_000)
    assert ud.b.statuses() == []
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(5, 0)]


def test_a_datagram_that_lies_in_two_missing_pages_faults_twice_and_is_one_packet(ud):
    ud.b.post_recv(5, ud.cold.sge(2000, 4096 - 1000))
    ud.send(1, 1900)
    assert serve(ud.bench, ud.cold) == 2
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(5, 1940)]
    at = 4096 - 1000 + GRH
    assert ud.cold.data[at : at + 1900] == ud.local.data[:1900]
    assert ring(ud.bench) == dict(packets=1, delivered=1, discards=0, drops=0)


def test_a_page_taken_away_again_before_the_resume_faults_again(ud):
    ud.b.post_recv(5, ud.cold.sge(4096))
    ud.send(1)
    fault = ud.bench.fault()
    for _ in range(3):
        ud.cold.map()
        ud.cold.zap(0, 1)
        ud.bench.resume(fault["token"])
        fault = ud.bench.fault()
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(5, 0)]
    assert ring(ud.bench) == dict(packets=1, delivered=1, discards=0, drops=0)


def test_the_default_image_drops_and_its_ring_stays_empty(bench):
    ud = Ud(bench)
    ud.b.post_recv(5, ud.cold.sge(4096))
    ud.send(1)
    serve(bench, ud.cold)
    assert ud.a.statuses() == [(1, 0)] and ud.b.statuses() == []
    assert ring(bench) == dict(packets=0, delivered=0, discards=0, drops=0) and bench.device.row.fault_drops == 1


def test_the_event_log_says_what_went_in(ud):
    ud.b.post_recv(5, ud.cold.sge(4096))
    ud.bench.log()
    ud.send(1, 100)
    ud.bench.fault()
    assert [rest for kind, _, *rest in ud.bench.trace() if kind == Ev.BACKUP_RING] == [[3, ud.a.psn, 100, 1]]


# Order ----------------------------------------------------------------------------------------------------------------


def test_datagrams_behind_wait_though_their_own_pages_are_there(ud):
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.b.post_recv(2, ud.warm.sge(4096))
    ud.b.post_recv(3, ud.warm.sge(4096, 4096))
    for wr_id in (1, 2, 3):
        ud.send(wr_id, 100 * wr_id)
    fault = ud.bench.fault()
    assert in_ring(ud.bench) == 3 and ud.b.cq.poll() == []
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.send(4, 400)
    ud.b.post_recv(4, ud.warm.sge(4096, 8192))
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(n, 100 * n + GRH) for n in (1, 2, 3, 4)]
    assert ring(ud.bench) == dict(packets=4, delivered=4, discards=0, drops=0)


def test_each_of_several_missing_pages_is_a_fault_and_the_order_holds(ud):
    for wr_id in range(4):
        ud.b.post_recv(wr_id, ud.cold.sge(4096, 4096 * (3 - wr_id)))
        ud.send(wr_id, 100 + wr_id)
    assert serve(ud.bench, ud.cold) == 4
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(n, 140 + n) for n in range(4)]
    assert ring(ud.bench)["packets"] == 4


def test_a_datagram_behind_that_has_no_receive_is_dropped_in_its_turn_unless_one_was_posted_meanwhile(ud):
    ud.b.post_recv(1, ud.cold.sge(4096))
    for wr_id in (1, 2, 3):
        ud.send(wr_id, 100 * wr_id)
    fault = ud.bench.fault()
    ud.b.post_recv(2, ud.warm.sge(4096))
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(1, 140), (2, 240)]
    assert ring(ud.bench) == dict(packets=3, delivered=2, discards=1, drops=0)


def test_another_qp_goes_on_meanwhile(ud):
    c = ud.qp(4)
    ud.b.post_recv(1, ud.cold.sge(4096))
    c.post_recv(2, ud.warm.sge(4096))
    ud.send(1)
    fault = ud.bench.fault()
    ud.send(2, qpn=4)
    ud.bench.run_for(1_000_000)
    assert c.statuses() == [(2, 0)] and ud.b.statuses() == []
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(1, 0)]


def test_several_qps_wait_at_once_and_each_goes_on_by_itself(ud):
    qps = [ud.b, ud.qp(4), ud.qp(5)]
    for page, qp in enumerate(qps):
        qp.post_recv(10 + page, ud.cold.sge(2048, 4096 * page))
        qp.post_recv(20 + page, ud.cold.sge(2048, 4096 * page + 2048))
    for offset in (0, 100):
        for qp in qps:
            ud.send(1, 50, offset=offset, qpn=qp.number)
    faults = []
    ud.bench.step_until(lambda: faults.extend(ud.bench.faults()) or len(faults) == 3)
    assert in_ring(ud.bench) == 6
    for fault in reversed(faults):
        page = fault["qpn"] - 3
        ud.cold.map(page, 1)
        ud.bench.resume(fault["token"])
        ud.bench.run()
        assert qps[page].statuses() == [(10 + page, 0), (20 + page, 0)]
        at = 4096 * page + GRH
        assert ud.cold.data[at : at + 50] == ud.local.data[:50]
        assert ud.cold.data[at + 2048 : at + 2098] == ud.local.data[100:150]
    assert ring(ud.bench) == dict(packets=6, delivered=6, discards=0, drops=0)


# SRQ, multicast -------------------------------------------------------------------------------------------------------


def test_datagrams_over_an_srq_keep_the_wqe_they_took(ud):
    srq = Srq(ud.bench, 1)
    b, c = ud.qp(4, srq), ud.qp(5, srq)
    for wr_id, region in enumerate((ud.cold, ud.warm, ud.warm, ud.warm)):
        srq.post(wr_id, region.sge(400, 400 * wr_id))
    ud.send(1, 10, qpn=4)
    ud.send(2, 20, qpn=4)
    fault = ud.bench.fault()
    assert (fault["subtype"], fault["va"]) == (FaultSubtype.RDMA, ud.cold.va)
    ud.send(3, 30, qpn=5)
    ud.bench.run_for(1_000_000)
    assert [(q["wr_id"], q["byte_len"]) for q in c.cq.poll()] == [(1, 70)]
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert [(q["wr_id"], q["byte_len"]) for q in b.cq.poll()] == [(0, 50), (2, 60)]
    assert ring(ud.bench) == dict(packets=2, delivered=2, discards=0, drops=0)


def test_of_a_multicast_datagram_each_member_s_copy_waits_by_itself(ud):
    c = ud.qp(4)
    ah = ud.bench.ah(9, MGID, multicast=True, sgid=0)
    for member in (ud.b, c):
        ud.bench.command(Command.ATTACH_MCAST, member.number, *halves(MGID))
    ud.b.post_recv(1, ud.cold.sge(4096))
    c.post_recv(2, ud.warm.sge(4096))
    ud.send(9, 64, qpn=0xFFFFFF, ah=ah)
    fault = ud.bench.fault()
    assert c.statuses() == [(2, 0)] and ud.b.statuses() == [] and in_ring(ud.bench) == 1
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(1, 0)]
    assert ud.cold.data[GRH : GRH + 64] == ud.warm.data[GRH : GRH + 64] == ud.local.data[:64]
