"""Frames are hostile input: whatever is in them, they are read as a second reader reads them, and arrive."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.abi.command import Command, FlowType
from nicemu.abi.verbs import SendFlag, WrOpcode
from nicemu.tables.raw_records import MATCH, VLAN_PRESENT
from tests.nic.objects import Cq
from tests.nic.raw import QpFlag, Raw, RawQp, ethernet, ipv4, ipv6, tcp, udp
from tests.nic.test_rss import KEY, Wq
from tests.nic.testbench import Bench

GOOD = [
    ethernet(ipv4(udp(bytes(20))), 0x0800),
    ethernet(ipv4(tcp(bytes(20)), 6, ihl=8), 0x0800, tags=((0x8100, 0xBC0C),)),
    ethernet(ipv6(udp(bytes(20))), 0x86DD, tags=((0x88A8, 1), (0x8100, 2))),
    ethernet(ipv6(tcp(bytes(20)), 6, tos=5, label=0x12345), 0x86DD),
]


def read(frame: bytes) -> dict[str, int]:
    """The second reader."""
    found = dict.fromkeys(MATCH, 0)

    def number(at: int, size: int) -> int:
        return int.from_bytes(frame[at : at + size], "big")

    found["dst_mac"], found["src_mac"] = number(0, 6), number(6, 6)
    at, kind = 14, number(12, 2)
    for tag in range(2):
        if kind in (0x8100, 0x88A8) and at + 4 <= len(frame):
            if tag == 0:
                found["vlan"] = VLAN_PRESENT + number(at, 2)
            kind, at = number(at + 2, 2), at + 4
    found["ether_type"] = kind
    packet = frame[at:]
    ends = None
    if kind == 0x0800 and len(packet) >= 20 and packet[0] >> 4 == 4:
        head, total, fragment = 4 * (packet[0] & 15), number(at + 2, 2), number(at + 6, 2)
        found |= {"l3": 4, "tos": packet[1], "ttl": packet[8], "proto": packet[9], "ip_flags": fragment >> 13}
        found |= {"src_low": number(at + 12, 4), "dst_low": number(at + 16, 4)}
        if head >= 20 and head <= total and head <= len(packet) and not fragment & 0x3FFF:
            ends = head, min(total, len(packet))
    elif kind == 0x86DD and len(packet) >= 40 and packet[0] >> 4 == 6:
        word = number(at, 4)
        found |= {"l3": 6, "tos": word >> 20 & 255, "flow_label": word & 0xFFFFF, "proto": packet[6], "ttl": packet[7]}
        for name, where in (("src_high", 8), ("src_low", 16), ("dst_high", 24), ("dst_low", 32)):
            found[name] = int.from_bytes(packet[where : where + 8], "big", signed=True)
        ends = 40, min(40 + number(at + 4, 2), len(packet))
    need = {6: 20, 17: 8}.get(found["proto"], 1 << 20)
    if ends and ends[0] + need <= ends[1]:
        found |= {"l4": found["proto"], "src_port": number(at + ends[0], 2), "dst_port": number(at + ends[0] + 2, 2)}
    return found


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Good frames with bytes changed, cut off or added; or bytes of no sense at all."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, min(len(data), 70) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(14, len(data)))
    return bytes(data[:cut]) + draw(st.binary(max_size=60))


class Trap(Raw):
    """Everything that looks at frames is on: offloads, rules of all sorts, RSS."""

    def __init__(self) -> None:
        super().__init__(Bench())
        bench = self.bench
        self.c = RawQp(bench, 4, Cq(bench, 3))
        self.c.row().rx_flags = QpFlag.CVLAN_STRIPPING | QpFlag.SCATTER_FCS
        self.flow(self.c, FlowType.SNIFFER)
        self.flow(self.b)
        wq = Wq(bench, 10, Cq(bench, 4))
        bench.mailbox[:8] = 0
        bench.mailbox[0] = wq.number
        bench.command(Command.CREATE_RQT, 1, 1)
        for i, byte in enumerate(KEY):
            bench.mailbox[i] = byte
        bench.command(Command.CREATE_QP, 11, 8, bench.pd, 0, 0, 0xFF, 0, 0, 1)
        self.rss = wq
        bench.mailbox[: 34 * 8] = 0
        bench.command(Command.CREATE_FLOW, 9, 11, FlowType.SNIFFER, 0, 0)


@pytest.fixture(scope="module")
def trap() -> Trap:
    return Trap()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames(), st.booleans())
def test_hostile_frames_are_read_and_arrive(trap: Trap, frame: bytes, offload: bool) -> None:
    trap.b.post_recv(1, trap.target.sge(4096))
    trap.c.post_recv(2, trap.target.sge(4096, 4096))
    trap.rss.post_recv(3, trap.target.sge(4096, 8192))
    trap.put(frame)
    flags = SendFlag.SIGNALED | (SendFlag.IP_CSUM if offload else 0)
    trap.a.post_send(7, WrOpcode.SEND, trap.source.sge(len(frame)), flags=flags)
    trap.bench.run()
    assert trap.a.statuses() == [(7, 0)]
    (got,) = trap.b.cq.poll()
    padded = frame.ljust(60, b"\0")
    there = trap.target.data[: got["byte_len"]]
    assert (got["status"], len(there)) == (0, len(padded))
    assert offload or there == padded
    headers = trap.bench.world.headers[0]
    assert {name: int(headers[name]) for name in MATCH} == read(padded)
    assert trap.c.statuses() == [(2, 0)] and trap.rss.statuses() == [(3, 0)]


def test_the_second_reader_reads_good_frames() -> None:
    found = read(GOOD[1])
    assert (found["vlan"], found["l3"], found["l4"], found["dst_port"]) == (VLAN_PRESENT | 0xBC0C, 4, 6, 5678)
    assert read(GOOD[3])["dst_low"] == int(ipaddress.ip_address("b0b1::b2")) & (1 << 64) - 1
