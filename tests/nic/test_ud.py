"""Unreliable datagrams: address handles, Q_Keys, the GRH, multicast (Linux rxe, verbs.h)."""

import struct

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import QpState, QpType, WcFlag, WcStatus
from tests.nic.testbench import Cq, Qp, WrOpcode, halves

QKEY = 0x11
IPV4_GID = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))


class Ud:
    """Two UD QPs of one NIC, an address handle, memory on both sides."""

    def __init__(self, bench):
        self.bench = bench
        self.a, self.b = (Qp(bench, n, Cq(bench, n), kind=QpType.UD) for n in (2, 3))
        self.a.ready(QKEY)
        self.b.ready(QKEY)
        self.local, self.remote = bench.mr(4), bench.mr(4)
        self.local.fill(1)
        self.remote.fill(2)
        self.ah = bench.ah(1, IPV4_GID)

    def send(self, wr_id, length, qpn=3, qkey=QKEY, ah=None, **options):
        """A datagram of ``local[:length]``."""
        self.a.post_send(wr_id, options.pop("opcode", WrOpcode.SEND), self.local.sge(length),
                         rkey=self.ah if ah is None else ah, qpn=qpn, qkey=qkey, **options)  # fmt: skip


@pytest.fixture
def ud(bench) -> Ud:
    """Two UD QPs in RTS."""
    return Ud(bench)


@pytest.mark.parametrize("length", [0, 1, 1000, 4096])
def test_a_datagram_lands_behind_forty_bytes_of_grh(ud, length):
    before = ud.remote.data
    ud.b.post_recv(5, ud.remote.sge(4096 + 40 + 8, 100))
    ud.send(1, length)
    ud.bench.run()
    assert ud.a.statuses() == [(1, 0)]
    (cqe,) = ud.b.cq.poll()
    assert (cqe["status"], cqe["byte_len"], cqe["src_qp"]) == (0, length + 40, 2)
    assert cqe["flags"] & WcFlag.GRH
    assert ud.remote.data[:100] == before[:100]
    assert ud.remote.data[140 : 140 + length] == ud.local.data[:length]
    assert ud.remote.data[140 + length :] == before[140 + length :]


def test_with_ipv4_the_last_twenty_bytes_of_the_grh_are_the_ip_header(ud):
    ud.b.post_recv(5, ud.remote.sge(4096))
    ud.send(1, 101)
    ud.bench.run()
    grh = ud.remote.data[:40]
    assert grh[:20] == bytes(20)
    version, _, length, _, ttl, protocol, _, source, target = struct.unpack(">BBHIBBHII", grh[20:])
    assert (version, length, ttl, protocol) == (0x45, 20 + 8 + 12 + 8 + 104 + 4, 64, 17)
    assert (source, target) == (0x0A000001, 0x0A000001)
    words = struct.unpack(">10H", grh[20:])
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_with_ipv6_the_grh_carries_both_gids(ud):
    gid = ud.bench.device.gids[0]
    ud.b.post_recv(5, ud.remote.sge(4096))
    ud.send(1, 8, ah=ud.bench.ah(2, gid, sgid=1))
    ud.bench.run()
    grh = ud.remote.data[:40]
    assert grh[0] >> 4 == 6 and struct.unpack(">H", grh[4:6])[0] == 8 + 12 + 8 + 8 + 4
    assert grh[8:24] == ud.bench.device.gids[1] and grh[24:40] == gid


def test_immediate_data(ud):
    ud.b.post_recv(5, ud.remote.sge(4096))
    ud.send(1, 8, opcode=WrOpcode.SEND_WITH_IMM, imm=99)
    ud.bench.run()
    (cqe,) = ud.b.cq.poll()
    assert (cqe["imm"], cqe["flags"]) == (99, WcFlag.GRH | WcFlag.WITH_IMM)


@pytest.mark.parametrize("case", ["bad qkey", "no receive", "receive too short", "no such qp"])
def test_what_cannot_be_received_is_dropped_in_silence(ud, case):
    before = ud.remote.data
    if case != "no receive":
        ud.b.post_recv(5, ud.remote.sge(47 if case == "receive too short" else 4096))
    ud.send(1, 8, qkey=QKEY + (case == "bad qkey"), qpn=99 if case == "no such qp" else 3)
    ud.bench.run()
    assert ud.a.statuses() == [(1, 0)] and ud.b.statuses() == []
    assert ud.remote.data == before and ud.b.row().state == QpState.RTS
    assert ud.bench.device.row.bad_qkeys == (case == "bad qkey")


def test_a_qkey_with_its_top_bit_set_means_the_qp_s_own(ud):
    ud.b.post_recv(5, ud.remote.sge(4096))
    ud.send(1, 8, qkey=0x80000000)
    ud.bench.run()
    assert ud.b.statuses() == [(5, 0)]


def test_more_than_one_mtu_is_a_length_error_and_sqe(ud):
    ud.send(1, 4097)
    ud.send(2, 8)
    ud.bench.run()
    assert ud.a.statuses() == [(1, WcStatus.LOC_LEN_ERR), (2, WcStatus.WR_FLUSH_ERR)]
    assert ud.a.row().state == QpState.SQE


@pytest.mark.parametrize("case", ["never made", "destroyed", "of another PD"])
def test_an_address_handle_must_exist_and_be_of_the_qp_s_pd(ud, case):
    handle = 7
    if case == "destroyed":
        ud.bench.ah(handle, IPV4_GID)
        ud.bench.command(Command.DESTROY_AH, handle)
    elif case == "of another PD":
        ud.bench.ah(handle, IPV4_GID, pd=2)
    ud.send(1, 8, ah=handle)
    ud.bench.run()
    assert ud.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR)]


@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.SEND_WITH_INV, WrOpcode.FLUSH])
def test_only_sends_are_datagrams(ud, opcode):
    ud.send(1, 8, opcode=opcode)
    ud.bench.run()
    assert ud.a.statuses() == [(1, WcStatus.LOC_QP_OP_ERR)]


def test_a_missing_page_of_the_receiver_drops_the_datagram_and_is_reported(bench):
    ud = Ud(bench)
    cold = bench.region(2)
    ud.b.post_recv(5, cold.sge(4096))
    ud.send(1, 8)
    fault = bench.fault()
    assert fault["key"] == cold.key
    from nicemu.tables.records import FrameKind

    cold.frames = [bench.frames.allocate(FrameKind.MODEL) for _ in range(2)]
    cold.map()
    bench.resume(fault["token"])
    ud.send(2, 16)
    bench.run()
    assert ud.a.statuses() == [(1, 0), (2, 0)]
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(5, 56)]


MGID = bytes.fromhex("ff0e000000000000000000000000abcd")


def test_multicast_reaches_every_member_once_the_sender_s_own_too(ud):
    c = Qp(ud.bench, 4, Cq(ud.bench, 4), kind=QpType.UD)
    c.ready(QKEY)
    ah = ud.bench.ah(9, MGID, multicast=True, sgid=0)
    for member in (ud.a, ud.b):
        ud.bench.command(Command.ATTACH_MCAST, member.number, *halves(MGID))
        ud.bench.command(Command.ATTACH_MCAST, member.number, *halves(MGID))
    for number, qp in enumerate((ud.a, ud.b, c)):
        qp.post_recv(number, ud.remote.sge(4096, 4096 * number))
    ud.send(9, 64, qpn=0xFFFFFF, ah=ah)
    ud.bench.run()
    assert sorted(ud.a.statuses()) == [(0, 0), (9, 0)]
    assert ud.b.statuses() == [(1, 0)] and c.statuses() == []
    assert ud.remote.data[4096 + 40 : 4096 + 104] == ud.local.data[:64]


def test_a_qp_that_left_or_is_gone_hears_nothing(ud):
    ah = ud.bench.ah(9, MGID, multicast=True, sgid=0)
    ud.bench.command(Command.ATTACH_MCAST, ud.b.number, *halves(MGID))
    ud.bench.command(Command.DETACH_MCAST, ud.b.number, *halves(MGID))
    ud.bench.command(Command.DETACH_MCAST, ud.b.number, *halves(MGID), expect=Status.BAD_PARAM)
    ud.b.post_recv(1, ud.remote.sge(4096))
    ud.send(9, 64, qpn=0xFFFFFF, ah=ah)
    ud.bench.run()
    assert ud.b.statuses() == []


def test_only_datagram_qps_join(ud):
    rc = Qp(ud.bench, 5, ud.a.cq)
    ud.bench.command(Command.ATTACH_MCAST, rc.number, *halves(MGID), expect=Status.BAD_RESOURCE)
