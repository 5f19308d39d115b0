"""Receive-side scaling: hash, indirection table, work queues (ibv_create_rwq_ind_table(3))."""

import struct

import numpy as np
import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import QpAttrMask, QpState, QpType, RxHash, WcStatus, WrOpcode
from tests.nic.objects import Cq
from tests.nic.raw import TCP, Raw, Wq, ethernet, frame4, ipv4, ipv6, tcp, udp
from tests.wire.test_toeplitz import KEY, VECTORS, hash_of

RSS_QPN = 40
ADDRESSES = RxHash.SRC_IPV4 | RxHash.DST_IPV4


class Rss(Raw):
    """An RSS QP over ``size`` work queues, which have a CQ of their own each."""

    def __init__(self, bench, size=8, fields=ADDRESSES):
        super().__init__(bench)
        self.wqs = [Wq(bench, 10 + i, Cq(bench, 10 + i)) for i in range(size)]
        self.table([wq.number for wq in self.wqs])
        bench.mailbox[:40] = np.frombuffer(KEY, np.uint8)
        bench.command(Command.CREATE_QP, RSS_QPN, QpType.RAW_PACKET, bench.pd, 0, 0, int(fields), 0, 0, 1)
        self.rule(RSS_QPN)

    def table(self, numbers, number=1, expect=Status.OK):
        self.bench.mailbox[: 8 * len(numbers)] = np.frombuffer(struct.pack(f"<{len(numbers)}q", *numbers), np.uint8)
        self.bench.command(Command.CREATE_RQT, number, len(numbers), expect=expect)

    def rule(self, qpn):
        self.bench.mailbox[: 34 * 8] = 0
        self.bench.command(Command.CREATE_FLOW, 1, qpn, 0, 0, 0)

    def where(self, frame):
        """Index of the work queue that a frame goes to."""
        for wq in self.wqs:
            wq.post_recv(1, self.target.sge(2048))
        self.send(frame)
        self.a.cq.poll()
        hit = [i for i, wq in enumerate(self.wqs) if wq.statuses() == [(1, 0)]]
        for i, wq in enumerate(self.wqs):
            if i not in hit:
                wq.record.word(8, wq.record.word(8) - 1)
        (index,) = hit
        return index


def packet(vector, proto=TCP):
    """The frame of a test vector."""
    source, source_port, dest, dest_port = vector[:4]
    segment = tcp(src=source_port, dst=dest_port) if proto == TCP else udp(src=source_port, dst=dest_port)
    if ":" in source:
        return ethernet(ipv6(segment, proto, source, dest), 0x86DD)
    return ethernet(ipv4(segment, proto, source, dest), 0x0800)


@pytest.mark.parametrize("vector", [v for v in VECTORS if ":" not in v[0]])
def test_the_low_bits_of_the_hash_choose_the_queue(bench, vector):
    assert Rss(bench).where(packet(vector)) == vector[4] & 7


@pytest.mark.parametrize("vector", [v for v in VECTORS if ":" in v[0]])
def test_ipv6_addresses(bench, vector):
    assert Rss(bench, fields=RxHash.SRC_IPV6 | RxHash.DST_IPV6).where(packet(vector)) == vector[4] & 7


@pytest.mark.parametrize("proto", [6, 17])
def test_addresses_and_ports(bench, proto):
    ports = RxHash.SRC_PORT_TCP | RxHash.DST_PORT_TCP if proto == TCP else RxHash.SRC_PORT_UDP | RxHash.DST_PORT_UDP
    rss = Rss(bench, fields=ADDRESSES | ports)
    for vector in VECTORS[:3]:
        assert rss.where(packet(vector, proto)) == vector[5] & 7
        assert rss.where(packet(vector, 23 - proto)) == vector[4] & 7  # the other protocol: addresses only


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        (RxHash.DST_IPV4, bytes((161, 142, 100, 80))),
        (RxHash.SRC_PORT_TCP, (2794).to_bytes(2, "big")),
        (RxHash.SRC_IPV4 | RxHash.DST_PORT_TCP, bytes((66, 9, 149, 187)) + (1766).to_bytes(2, "big")),
        (RxHash.SRC_IPV6 | RxHash.DST_PORT_UDP, b""),
    ],
)
def test_only_what_is_asked_for_is_hashed(bench, fields, data):
    assert Rss(bench, fields=fields).where(packet(VECTORS[0])) == hash_of(data) & 7


def test_what_has_no_such_fields_goes_to_the_first_entry(bench):
    assert Rss(bench).where(ethernet(b"no ip")) == 0


def test_many_sources_are_spread_over_all_queues(bench):
    rss = Rss(bench, 4)
    assert {rss.where(frame4(src=f"10.1.2.{i}")) for i in range(24)} == {0, 1, 2, 3}


def test_completions_name_the_work_queue(bench):
    rss = Rss(bench, 1)
    rss.wqs[0].post_recv(7, rss.target.sge(2048))
    rss.send(frame4())
    (cqe,) = rss.wqs[0].cq.poll()
    assert (cqe["wr_id"], cqe["qp_num"], cqe["byte_len"]) == (7, rss.wqs[0].number, 60)


def test_an_entry_may_name_a_queue_twice_and_a_table_is_checked(bench):
    rss = Rss(bench, 2)
    rss.table([10, 11, 10, 10], number=2)
    rss.table([10, 11, 10], number=3, expect=Status.BAD_PARAM)
    rss.table([10, 2], number=3, expect=Status.BAD_RESOURCE)
    rss.table([10, 0], number=3, expect=Status.BAD_RESOURCE)
    rss.table([10], number=2, expect=Status.BAD_RESOURCE)
    bench.command(Command.DESTROY_RQT, 2)
    rss.table([10], number=2)


@pytest.mark.parametrize("state", [QpState.RESET, QpState.ERR])
def test_a_work_queue_that_is_not_ready_gets_nothing(bench, state):
    rss = Rss(bench, 1)
    rss.wqs[0].modify(QpAttrMask.STATE, STATE=state)
    rss.send(frame4())
    assert bench.device.row.packets_dropped == 1


def test_err_flushes_what_is_posted(bench):
    rss = Rss(bench, 1)
    rss.wqs[0].post_recv(7, rss.target.sge(2048))
    rss.wqs[0].modify(QpAttrMask.STATE, STATE=QpState.ERR)
    rss.wqs[0].post_recv(8, rss.target.sge(2048))
    bench.run()
    assert rss.wqs[0].statuses() == [(7, WcStatus.WR_FLUSH_ERR), (8, WcStatus.WR_FLUSH_ERR)]


def test_nothing_is_sent_from_a_work_queue(bench):
    wq = Wq(bench, 10, Cq(bench, 10))
    wq.post_send(1, WrOpcode.SEND, bench.mr(1).sge(60))
    bench.run()
    assert wq.statuses() in ([], [(1, WcStatus.LOC_QP_OP_ERR)]) and bench.device.row.packets_sent == 0


def test_a_missing_page_of_a_work_queue_is_reported_by_key_and_address(bench):
    rss = Rss(bench, 1)
    cold = bench.mr(1, mapped=False)
    rss.wqs[0].post_recv(7, cold.sge(2048))
    rss.put(frame4())
    rss.a.post_send(1, WrOpcode.SEND, rss.source.sge(60))
    fault = bench.fault()
    assert (fault["subtype"], fault["key"], fault["va"], fault["last"]) == (1, cold.key, cold.va, 60)
    cold.map()
    bench.resume(fault["token"])
    rss.send(frame4(), 2)
    assert rss.wqs[0].statuses() == [(7, 0)]
