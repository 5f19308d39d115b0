"""Flow steering: each field under its mask, the order of rules, default rules, sniffers (ibv_create_flow(3))."""

import ipaddress

import pytest

from nicemu.abi.command import Command, FlowType, Status
from nicemu.tables.raw_records import VLAN_PRESENT
from tests.nic.objects import Cq
from tests.nic.raw import DST, SRC, TCP, UDP, F, Raw, RawQp, ethernet, frame4, ipv4, ipv6, tcp, udp

CVLAN, SVLAN = 0x8100, 0x88A8


def half(address: str, which: int) -> int:
    """A half of an IPv6 address, as int64."""
    return int.from_bytes(ipaddress.ip_address(address).packed[8 * which :][:8], "big", signed=True)


@pytest.fixture
def raw(bench) -> Raw:
    """Two raw packet QPs and no rule."""
    return Raw(bench)


IP6 = ethernet(ipv6(udp(), tos=3, label=0xABCDE, ttl=9), 0x86DD)
FIELDS = {
    "dst mac": (F.DST_MAC, DST, (1 << 48) - 1, frame4(), ethernet(ipv4(udp()), 0x0800, dst=DST ^ 1)),
    "src mac": (F.SRC_MAC, SRC, (1 << 48) - 1, frame4(), ethernet(ipv4(udp()), 0x0800, src=SRC ^ 1)),
    "ether type": (F.ETHER_TYPE, 0x86DD, 0xFFFF, IP6, frame4()),
    "vlan": (F.VLAN, VLAN_PRESENT | 0xBC0C, VLAN_PRESENT | 0xFFFF,
             ethernet(ipv4(udp()), 0x0800, tags=((CVLAN, 0xBC0C),)), frame4()),
    "vlan id": (F.VLAN, VLAN_PRESENT | 0xC0C, VLAN_PRESENT | 0xFFF,
                ethernet(b"x", tags=((SVLAN, 0xFC0C), (CVLAN, 1))), ethernet(b"x", tags=((CVLAN, 0xC0D),))),
    "ip version": (F.L3, 6, 0xF, IP6, frame4()),
    "ipv4 source": (F.SRC_LOW, 0x01010101, 0xFFFFFFFF, frame4(), frame4(src="1.1.1.2")),
    "ipv4 destination": (F.DST_LOW, 0x02020202, 0xFFFFFFFF, frame4(), frame4(dst="2.2.2.3")),
    "protocol": (F.PROTO, 17, 0xFF, frame4(), frame4(proto=6)),
    "tos": (F.TOS, 8, 0xFF, frame4(tos=8), frame4()),
    "ttl": (F.TTL, 64, 0xFF, frame4(), frame4(ttl=63)),
    "ip flags": (F.IP_FLAGS, 2, 7, frame4(), frame4(flags=0)),
    "ipv6 source, high": (F.SRC_HIGH, half("a0a1::a2", 0), -1, IP6, ethernet(ipv6(udp(), src="a0a2::a2"), 0x86DD)),
    "ipv6 source, low": (F.SRC_LOW, half("a0a1::a2", 1), -1, IP6, ethernet(ipv6(udp(), src="a0a1::a3"), 0x86DD)),
    "ipv6 destination, high": (F.DST_HIGH, half("b0b1::b2", 0), -1, IP6,
                               ethernet(ipv6(udp(), dst="3031::b2"), 0x86DD)),
    "ipv6 destination, low": (F.DST_LOW, half("b0b1::b2", 1), -1, IP6,
                              ethernet(ipv6(udp(), dst="b0b1::8000:0:0:b2"), 0x86DD)),
    "next header": (F.PROTO, 17, 0xFF, IP6, ethernet(ipv6(tcp(), proto=6), 0x86DD)),
    "traffic class": (F.TOS, 3, 0xFF, IP6, ethernet(ipv6(udp(), tos=7), 0x86DD)),
    "hop limit": (F.TTL, 9, 0xFF, IP6, ethernet(ipv6(udp(), ttl=10), 0x86DD)),
    "flow label": (F.FLOW_LABEL, 0xABCDE, 0xFFFFF, IP6, ethernet(ipv6(udp(), label=0xABCDF), 0x86DD)),
    "tcp": (F.L4, TCP, 0xFF, ethernet(ipv4(tcp(), proto=TCP), 0x0800), frame4()),
    "udp": (F.L4, UDP, 0xFF, IP6, ethernet(ipv6(tcp(), proto=TCP), 0x86DD)),
    "source port": (F.SRC_PORT, 1234, 0xFFFF, frame4(), ethernet(ipv4(udp(src=1235)), 0x0800)),
    "destination port": (F.DST_PORT, 5678, 0xFFFF, ethernet(ipv4(tcp(), proto=TCP), 0x0800),
                         ethernet(ipv4(tcp(dst=80), proto=TCP), 0x0800)),
    "a masked part": (F.DST_LOW, 0x02020000, 0xFFFF0000, frame4(dst="2.2.9.9"), frame4(dst="2.3.2.2")),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_matches_or_does_not(raw, name):
    field, value, mask, wanted, other = FIELDS[name]
    raw.flow(match={field: (value, mask)})
    assert raw.arrives(wanted)
    assert not raw.arrives(other)


PORTS = {F.L4: (UDP, 0xFF), F.SRC_PORT: (1234, 0xFFFF), F.DST_PORT: (5678, 0xFFFF)}


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("behind options", ethernet(ipv4(udp(), ihl=7), 0x0800)),
        ("behind one tag", ethernet(ipv4(udp()), 0x0800, tags=((CVLAN, 5),))),
        ("behind two tags", ethernet(ipv4(udp()), 0x0800, tags=((SVLAN, 5), (CVLAN, 6)))),
    ],
)
def test_ports_are_found(raw, name, frame):
    raw.flow(match=PORTS)
    assert raw.arrives(frame), name


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("no first fragment", frame4(offset=100, flags=0)),
        ("a first fragment", frame4(flags=1)),
        ("a header length that is too small", ethernet(b"\x44" + ipv4(udp())[1:], 0x0800)),
        ("a header length beyond the packet", ethernet(b"\x4f" + ipv4(udp())[1:], 0x0800)),
        ("a total length without the header", frame4(total=27)),
        ("a total length of nothing", frame4(total=0)),
        ("another version", ethernet(b"\x65" + ipv4(udp())[1:], 0x0800)),
        ("three tags", ethernet(ipv4(udp()), 0x0800, tags=((CVLAN, 5), (CVLAN, 6), (CVLAN, 7)))),
        ("the wrong ether type", ethernet(ipv4(udp()), 0x86DD)),
        ("an IPv6 length of nothing", ethernet(ipv6(udp(), length=0), 0x86DD)),
        ("an IPv6 extension header", ethernet(ipv6(bytes(8) + udp(), proto=0), 0x86DD)),
        ("no IP at all", ethernet(b"", 0x0800)),
    ],
)
def test_ports_that_are_not_there_match_nothing(raw, name, frame):
    raw.flow(match=PORTS)
    assert not raw.arrives(frame), name


def test_a_frame_for_this_nic_that_no_rule_wants_is_counted(raw):
    raw.flow(match={F.L3: (6, 0xF)})
    assert not raw.arrives(ethernet(ipv4(udp()), 0x0800, dst=raw.bench.device.mac))
    assert (raw.bench.device.row.raw_unsteered, raw.bench.device.row.packets_dropped) == (1, 1)


def three(raw: Raw) -> RawQp:
    """Another receiver."""
    return RawQp(raw.bench, 4, Cq(raw.bench, 3))


def test_the_lowest_priority_is_tried_first(raw):
    other = three(raw)
    raw.flow(other, priority=5)
    raw.flow(raw.b, priority=4)
    raw.receive(6, other)
    assert raw.arrives(frame4()) and raw.got(other) == []


def test_of_one_priority_the_rule_made_first_wins(raw):
    other = three(raw)
    raw.flow(raw.b, match={F.DST_MAC: (DST, (1 << 48) - 1)})
    raw.flow(other)
    raw.receive(6, other)
    assert raw.arrives(frame4()) and raw.got(other) == []
    raw.send(ethernet(b"x", dst=SRC))
    assert [wr_id for wr_id, _ in raw.got(other)] == [6]


def test_after_a_rule_that_does_not_trap_the_search_goes_on(raw):
    other = three(raw)
    raw.flow(other, dont_trap=1)
    raw.flow(raw.b, priority=1)
    raw.receive(6, other)
    assert raw.arrives(frame4()) and len(raw.got(other)) == 1


def test_rules_that_say_the_same_both_get_the_frame(raw):
    other = three(raw)
    match = {F.DST_MAC: (DST, (1 << 48) - 1)}
    raw.flow(raw.b, match=match)
    raw.flow(other, match=match)
    raw.receive(6, other)
    assert raw.arrives(frame4()) and len(raw.got(other)) == 1


def test_default_rules_get_what_no_rule_takes(raw):
    other = three(raw)
    raw.flow(other, FlowType.ALL_DEFAULT)
    raw.flow(raw.b, priority=9, match={F.L3: (4, 0xF)})
    raw.receive(6, other)
    assert raw.arrives(frame4()) and raw.got(other) == []
    assert not raw.arrives(IP6) and len(raw.got(other)) == 1


def test_the_multicast_default_gets_multicast_only(raw):
    raw.flow(raw.b, FlowType.MC_DEFAULT)
    assert raw.arrives(ethernet(b"x", dst=0x01005E000001))
    assert not raw.arrives(ethernet(b"x", dst=raw.bench.device.mac))


def test_a_sniffer_sees_what_others_take_and_what_nobody_takes(raw):
    other = three(raw)
    raw.flow(other, FlowType.SNIFFER)
    raw.flow(raw.b, match={F.L3: (4, 0xF)})
    raw.receive(6, other)
    raw.receive(7, other)
    to_us = ethernet(ipv4(udp()), 0x0800, dst=raw.bench.device.mac)
    assert raw.arrives(to_us) and not raw.arrives(ethernet(b"x", dst=raw.bench.device.mac))
    assert [wr_id for wr_id, _ in raw.got(other)] == [6, 7]


def test_a_rule_that_is_gone_takes_nothing(raw):
    number = raw.flow()
    assert raw.arrives(frame4())
    raw.bench.command(Command.DESTROY_FLOW, number)
    assert not raw.arrives(frame4())


def test_rules_beyond_the_table_are_refused(raw):
    raw.bench.command(Command.CREATE_FLOW, 0, 3, 0, 0, 0, expect=Status.BAD_RESOURCE)
    raw.bench.command(Command.CREATE_FLOW, 5000, 3, 0, 0, 0, expect=Status.BAD_RESOURCE)
    raw.flow()
    raw.bench.command(Command.CREATE_FLOW, 1, 3, 0, 0, 0, expect=Status.BAD_RESOURCE)
