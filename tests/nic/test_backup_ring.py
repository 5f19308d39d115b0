"""The backup ring: UD and UC packets that hit a missing page wait for it, in order (Lesokhin et al., ASPLOS'17)."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu.abi.command import Command
from nicemu.abi.rings import FaultSubtype, FaultType
from nicemu.abi.verbs import AsyncEvent, QpState, QpType, WcFlag, WcOpcode, WcStatus
from nicemu.config import NicProfile
from nicemu.config.nic_profile import BackupRingProfile
from nicemu.config.paths import shipped
from nicemu.nic import firmware
from nicemu.tables.trace import Ev
from tests.nic.testbench import Bench, Cq, Mr, Qp, Srq, WrOpcode, default_image, halves, pair

QKEY = 0x11
IPV4_GID = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))
MGID = bytes.fromhex("ff0e000000000000000000000000abcd")
GRH = 40


@cache
def image() -> firmware.Image:
    """The firmware under test."""
    return firmware.load(shipped("firmware") / "backup_ring.py", default_image())


def ring_bench(**size: int) -> Bench:
    """A NIC with the image, and a ring of the given size."""
    return Bench(NicProfile(backup_ring=BackupRingProfile(**size)), firmware_image=image())


def cold(bench: Bench, pages: int = 4) -> Mr:
    """A region that the NIC has no translation of."""
    region = bench.mr(pages, mapped=False)
    region.fill(9)
    return region


def ring(bench: Bench) -> dict[str, int]:
    """The ring's counters; what went in is delivered, discarded or in it."""
    row = bench.device.row
    names = ("packets", "delivered", "discards", "drops")
    found = {name: int(row[f"backup_ring_{name}"]) for name in names}
    assert found["packets"] == found["delivered"] + found["discards"] + row.backup_packets
    assert (row.backup_used == 0) == (row.backup_packets == 0)
    return found


def in_ring(bench: Bench) -> int:
    """Packets that wait."""
    return int(bench.device.row.backup_packets)


def serve(bench: Bench, *regions: Mr, limit: int = 200) -> int:
    """Play the driver: map the page that each fault names and resume, until nothing more happens; the faults."""
    served = 0
    for _ in range(limit):
        found = bench.faults()
        while not found and bench.engine_step():
            found = bench.faults()
        if not found:
            return served
        for fault in found:
            region = next(r for r in regions if r.va <= fault["va"] < r.va + r.pages * 4096)
            region.map((fault["va"] - region.va) // 4096, 1)
            bench.resume(fault["token"])
            served += 1
    raise AssertionError("faults without end")


class Ud:
    """UD QPs of one NIC: ``a`` sends from ``local``; ``b`` receives into ``warm`` (mapped) or ``cold`` (not)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = (self.qp(number) for number in (2, 3))
        self.local, self.warm, self.cold = bench.mr(4), bench.mr(4), cold(bench)
        self.local.fill(1)
        self.ah = bench.ah(1, IPV4_GID)

    def qp(self, number: int, srq: Srq | None = None) -> Qp:
        """One more UD QP in RTS."""
        qp = Qp(self.bench, number, Cq(self.bench, number), kind=QpType.UD, srq=srq)
        qp.ready(QKEY)
        return qp

    def send(self, wr_id: int, length: int = 64, offset: int = 0, qpn: int = 3, **options: int) -> None:
        """A datagram of ``local[offset:][:length]``."""
        ah, opcode = options.pop("ah", self.ah), options.pop("opcode", WrOpcode.SEND)
        self.a.post_send(wr_id, opcode, self.local.sge(length, offset), rkey=ah, qpn=qpn, qkey=QKEY, **options)


@pytest.fixture
def ud() -> Ud:
    """UD QPs on a NIC with a backup ring."""
    return Ud(ring_bench())


class Uc:
    """Two connected UC QPs: ``a`` sends from ``local`` to ``b``, whose ``cold`` region is not mapped."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = pair(bench, kind=QpType.UC)
        self.local, self.warm, self.cold = bench.mr(4), bench.mr(4), cold(bench)
        self.local.fill(1)

    def send(self, wr_id: int, length: int, offset: int = 0) -> None:
        """A SEND of ``local[offset:][:length]``."""
        self.a.post_send(wr_id, WrOpcode.SEND, self.local.sge(length, offset))

    def write(self, wr_id: int, length: int, target: Mr, at: int = 0, opcode: int = WrOpcode.RDMA_WRITE,
              imm: int = 0) -> None:  # fmt: skip
        """A WRITE of ``local[:length]`` to ``target[at:]``."""
        self.a.post_send(wr_id, opcode, self.local.sge(length), remote=target.va + at, rkey=target.key, imm=imm)


@pytest.fixture
def uc() -> Uc:
    """UC QPs on a NIC with a backup ring."""
    return Uc(ring_bench())


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


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [dict(entries=3), dict(bytes=3 * (100 + 64)), dict(bytes=4 * (100 + 64) - 1)])
def test_what_finds_the_ring_full_is_dropped_and_counted(size):
    ud = Ud(ring_bench(**size))
    for wr_id in range(6):
        ud.b.post_recv(wr_id, ud.cold.sge(400, 400 * wr_id))
        ud.send(wr_id, 100, offset=wr_id)
    fault = ud.bench.fault()
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=0, drops=3)
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    ud.send(6, 50)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(0, 140), (1, 140), (2, 140), (3, 90)]
    assert ring(ud.bench) == dict(packets=3, delivered=3, discards=0, drops=3)


@pytest.mark.parametrize("size", [dict(entries=0), dict(bytes=0), dict(bytes=163)])
def test_a_packet_that_never_fits_is_dropped_and_its_page_still_faulted_in(size):
    ud = Ud(ring_bench(**size))
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1, 100)
    serve(ud.bench, ud.cold)
    assert ud.b.statuses() == [] and ring(ud.bench) == dict(packets=0, delivered=0, discards=0, drops=1)
    ud.send(2, 200)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(1, 240)]


def test_the_ring_is_the_nic_s_and_one_qp_can_fill_it():
    ud = Ud(ring_bench(entries=2))
    c = ud.qp(4)
    for qp, offset in ((ud.b, 0), (ud.b, 400), (c, 4096)):
        qp.post_recv(1, ud.cold.sge(400, offset))
    for qpn in (3, 3, 4):
        ud.send(1, qpn=qpn)
    serve(ud.bench, ud.cold)
    assert ud.b.statuses() == [(1, 0), (1, 0)] and c.statuses() == []
    assert ring(ud.bench) == dict(packets=2, delivered=2, discards=0, drops=1)


def test_after_a_drop_for_want_of_room_the_open_fault_serves_the_next_packet():
    """The fault of the first packet, dropped, is open still: the second one merges into it and waits for its resume."""
    ud = Ud(ring_bench(bytes=100))
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1, 100)
    ud.send(2, 30)
    assert serve(ud.bench, ud.cold) == 1
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(1, 70)]
    assert ring(ud.bench) == dict(packets=1, delivered=1, discards=0, drops=1)
    assert ud.bench.device.row.page_faults_merged == 1


def test_the_requests_in_the_ring_leave_the_room_of_those_that_wait_for_a_read(ud):
    """MOST_WAITING_OF_ALL counts requests behind READs only."""
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1)
    ud.bench.fault()
    row = ud.bench.device.row
    assert (row.rx_waiting, row.backup_packets) == (1, 1)


# Away with the QP -----------------------------------------------------------------------------------------------------


def held(ud: Ud) -> dict[str, int]:
    """Three datagrams in the ring, two more receives posted; the open fault."""
    for wr_id in range(5):
        ud.b.post_recv(wr_id, ud.cold.sge(400, 400 * wr_id))
    for wr_id in range(3):
        ud.send(wr_id)
    fault = ud.bench.fault()
    assert in_ring(ud.bench) == 3
    return fault


def free_packets(bench: Bench) -> int:
    """Packets of the pool that are in use."""
    control = bench.world.control[0]
    p, free = int(control.packet_free), 0
    while p:
        p, free = int(bench.world.packet[p].next), free + 1
    return int(control.packet_next) - 1 - free


@pytest.mark.parametrize("end", ["reset", "err", "destroy"])
def test_a_qp_that_ends_takes_its_packets_along(ud, end):
    fault = held(ud)
    if end == "destroy":
        ud.bench.command(Command.DESTROY_QP, ud.b.number)
    else:
        ud.b.modify(1, STATE=QpState.RESET if end == "reset" else QpState.ERR)
    ud.bench.run()
    flushed = [(n, WcStatus.WR_FLUSH_ERR) for n in range(5)]
    assert ud.b.statuses() == (flushed if end == "err" else [])
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0)
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [] and free_packets(ud.bench) == 0
    assert ud.bench.device.row.rx_waiting == 0


def test_the_next_life_of_a_qp_receives_as_the_first(ud):
    fault = held(ud)
    ud.b.modify(1, STATE=QpState.RESET)
    ud.b.record.word(8, 0)
    ud.b.ready(QKEY)
    ud.b.post_recv(7, ud.warm.sge(4096))
    ud.send(3, 50)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(7, 90)]
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [] and ud.b.row().state == QpState.RTS


def test_a_resume_for_the_last_life_does_not_release_this_one_s_packets(ud):
    fault = held(ud)
    ud.b.modify(1, STATE=QpState.RESET)
    ud.b.record.word(8, 0)
    ud.b.ready(QKEY)
    ud.b.post_recv(7, ud.cold.sge(4096, 4096))
    ud.bench.resume(fault["token"])
    ud.send(3, 50)
    second = ud.bench.fault()
    assert in_ring(ud.bench) == 1
    ud.cold.map()
    ud.bench.resume(second["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(7, 0)]


def test_a_dead_device_discards(ud):
    held(ud)
    ud.bench.device.raise_event(AsyncEvent.DEVICE_FATAL)
    ud.bench.run()
    assert ud.b.statuses() == [(n, WcStatus.WR_FLUSH_ERR) for n in range(5)]
    assert ring(ud.bench)["discards"] == 3 and free_packets(ud.bench) == 0


def test_a_region_deregistered_meanwhile_is_an_error_of_the_receiver_and_the_rest_is_discarded(ud):
    fault = held(ud)
    ud.bench.command(Command.DESTROY_MKEY, ud.cold.index)
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(0, WcStatus.LOC_PROT_ERR)] + [(n, WcStatus.WR_FLUSH_ERR) for n in range(1, 5)]
    assert ud.b.row().state == QpState.ERR
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0) and free_packets(ud.bench) == 0


def test_a_fault_that_cannot_be_resolved_is_an_error_of_the_receiver_and_the_rest_is_discarded(ud):
    fault = held(ud)
    ud.bench.resume(fault["token"], error=1)
    ud.bench.run()
    assert ud.b.statuses() == [(0, WcStatus.LOC_PROT_ERR)] + [(n, WcStatus.WR_FLUSH_ERR) for n in range(1, 5)]
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0)


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


# UC -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_uc_message_survives_a_fault_in_any_of_its_packets(uc, missing):
    """Sixteen packets of 1024 bytes in four pages, one of them missing."""
    uc.cold.map()
    uc.cold.zap(missing, 1)
    uc.b.post_recv(5, uc.cold.sge())
    uc.send(1, 16384)
    fault = uc.bench.fault()
    assert (fault["va"], fault["committed"]) == (uc.cold.va + 4096 * missing, 4096 * missing)
    uc.bench.run_for(1_000_000)
    assert in_ring(uc.bench) == 16 - 4 * missing
    uc.cold.map(missing, 1)
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert [(c["wr_id"], c["status"], c["byte_len"]) for c in uc.b.cq.poll()] == [(5, 0, 16384)]
    assert uc.cold.data == uc.local.data
    assert ring(uc.bench)["discards"] == 0


def test_every_page_of_a_uc_message_may_be_missing(uc):
    uc.b.post_recv(5, uc.cold.sge())
    uc.send(1, 16384)
    assert serve(uc.bench, uc.cold) == 4
    assert uc.b.statuses() == [(5, 0)] and uc.cold.data == uc.local.data


def test_a_uc_write_waits_as_well_and_with_it_what_comes_behind(uc):
    uc.b.post_recv(5)
    uc.write(1, 8192, uc.cold)
    uc.write(2, 16, uc.warm, opcode=WrOpcode.RDMA_WRITE_WITH_IMM, imm=7)
    fault = uc.bench.fault()
    assert (fault["type"], fault["va"], fault["last"]) == (FaultType.RESPONDER_RDMA, uc.cold.va, 8192)
    assert uc.b.cq.poll() == []
    uc.cold.map()
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert [(c["opcode"], c["imm"]) for c in uc.b.cq.poll()] == [(WcOpcode.RECV_RDMA_WITH_IMM, 7)]
    assert uc.cold.data[:8192] == uc.local.data[:8192] and uc.warm.data[:16] == uc.local.data[:16]


def test_a_uc_write_whose_region_is_gone_is_dropped_alone(uc):
    uc.write(1, 3000, uc.cold)
    uc.write(2, 16, uc.warm)
    fault = uc.bench.fault()
    uc.bench.command(Command.DESTROY_MKEY, uc.cold.index)
    uc.bench.resume(fault["token"])
    uc.bench.run()
    assert uc.warm.data[:16] == uc.local.data[:16] and uc.b.row().state == QpState.RTS
    assert ring(uc.bench) == dict(packets=4, delivered=1, discards=3, drops=0)


def test_a_uc_write_whose_fault_cannot_be_resolved_is_dropped_alone(uc):
    uc.write(1, 3000, uc.cold)
    uc.write(2, 16, uc.warm)
    uc.bench.resume(uc.bench.fault()["token"], error=1)
    uc.bench.run()
    assert uc.warm.data[:16] == uc.local.data[:16] and uc.b.row().state == QpState.RTS
    assert ring(uc.bench)["discards"] == 3


def test_a_full_ring_costs_uc_the_message_and_not_the_next():
    uc = Uc(ring_bench(entries=3))
    for wr_id in range(2):
        uc.b.post_recv(wr_id, uc.cold.sge(8192, 8192 * wr_id))
    uc.send(1, 5000)
    serve(uc.bench, uc.cold)
    assert uc.b.statuses() == [] and ring(uc.bench)["drops"] == 2
    uc.send(2, 2000)
    serve(uc.bench, uc.cold)
    assert [(c["wr_id"], c["byte_len"]) for c in uc.b.cq.poll()] == [(0, 2000)]
    assert uc.cold.data[:2000] == uc.local.data[:2000]


def test_an_rc_qp_of_the_same_nic_never_uses_the_ring():
    bench = ring_bench()
    a, _ = pair(bench)
    local, remote = bench.mr(4), cold(bench)
    local.fill(1)
    a.post_send(1, WrOpcode.RDMA_WRITE, local.sge(), remote=remote.va, rkey=remote.key)
    serve(bench, remote)
    assert a.statuses() == [(1, 0)] and remote.data == local.data
    assert bench.device.row.rnr_naks_sent > 0 and ring(bench)["packets"] == 0


# Properties -----------------------------------------------------------------------------------------------------------

LENGTHS = st.integers(1, 3000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), LENGTHS),
        st.tuples(st.just("zap"), st.integers(0, 7)),
        st.tuples(st.just("serve"), st.integers(1, 3)),
        st.tuples(st.just("run"), st.integers(1, 200_000)),
    ),
    min_size=4,
    max_size=30,
)
SLOT = 4096


class Paging:
    """A receiver whose eight pages come by faults and go as the steps say."""

    def __init__(self, ends: Ud | Uc) -> None:
        self.ends, self.bench = ends, ends.bench
        self.region = cold(self.bench, 8)
        self.open: list[dict[str, int]] = []
        self.lengths: list[int] = []

    def send(self, length: int) -> None:
        number = len(self.lengths)
        self.lengths.append(length)
        self.ends.b.post_recv(number, self.region.sge(SLOT, (number % 8) * SLOT))
        self.ends.send(number, length, number)

    def zap(self, page: int) -> None:
        self.region.zap(page, 1)

    def run(self, ns: int) -> None:
        self.bench.run_for(ns)

    def serve(self, count: int) -> None:
        self.open += self.bench.faults()
        for fault in self.open[:count]:
            self.region.map((fault["va"] - self.region.va) // 4096, 1)
            self.bench.resume(fault["token"])
        del self.open[:count]

    def finish(self) -> None:
        """No page is taken away any more."""
        self.serve(len(self.open) + 8)
        serve(self.bench, self.region)


@pytest.mark.parametrize("kind", ["UD", "UC"])
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_nothing_is_lost_or_reordered_whatever_is_taken_away(kind, steps):
    bench = ring_bench()
    grh = GRH if kind == "UD" else 0
    paging = Paging(Ud(bench) if kind == "UD" else Uc(bench))
    for name, argument in steps:
        getattr(paging, name)(argument)
    paging.finish()
    found = [(c["wr_id"], c["status"], c["byte_len"]) for c in paging.ends.b.cq.poll()]
    assert found == [(n, 0, length + grh) for n, length in enumerate(paging.lengths)]
    for number in range(max(len(paging.lengths) - 8, 0), len(paging.lengths)):  # the last in each slot
        at, length = number % 8 * SLOT + grh, paging.lengths[number]
        assert paging.region.data[at : at + length] == paging.ends.local.data[number : number + length]
    assert ring(bench)["drops"] == ring(bench)["discards"] == 0 and free_packets(bench) == 0
    assert bench.world.control[0].violations == 0


@given(steps=STEPS, entries=st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_a_ring_too_small_loses_datagrams_and_reorders_none(steps, entries):
    bench = ring_bench(entries=entries)
    paging = Paging(Ud(bench))
    for name, argument in steps:
        getattr(paging, name)(argument)
        assert in_ring(bench) <= entries
    paging.finish()
    delivered = [c["byte_len"] - GRH for c in paging.ends.b.cq.poll()]
    left = iter(paging.lengths)
    assert all(length in left for length in delivered), "a subsequence of what was sent"
    counters = ring(bench)
    assert counters["discards"] == 0 and len(delivered) == len(paging.lengths) - counters["drops"]
    assert bench.world.control[0].violations == 0
