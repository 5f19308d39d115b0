"""What carries RoCEv2: Ethernet, 802.1Q, IPv4 or IPv6, UDP port 4791; GIDs as addresses; the UDP source port.

Left out: IP options and extension headers, fragments, stacked VLAN tags, RoCEv1.
"""

from __future__ import annotations

from nicemu.wire.header import DEC, FLAG, HEX, IPV4, IPV6, MAC, RESERVED, Header, bits, header

ETHERTYPE_IPV4, ETHERTYPE_VLAN, ETHERTYPE_IPV6 = 0x0800, 0x8100, 0x86DD
PROTOCOL_UDP = 17
ROCE_PORT = 4791
V4_MAPPED = bytes(10) + b"\xff\xff"
"""First twelve bytes of a GID that is an IPv4 address."""
CONGESTION_EXPERIENCED = 0b11


@header
class Ethernet(Header):
    """Ethernet II, without preamble and FCS."""

    dest: int = bits(48, MAC)
    source: int = bits(48, MAC)
    ethertype: int = bits(16, HEX)


@header
class Vlan(Header):
    """802.1Q tag behind Ethernet's ethertype 0x8100."""

    priority: int = bits(3)
    drop_eligible: int = bits(1, FLAG)
    vid: int = bits(12)
    ethertype: int = bits(16, HEX)


@header
class Ipv4(Header):
    """IPv4 without options. The variant fields are those the ICRC masks (Linux rxe_icrc.c)."""

    version: int = bits(4, RESERVED, default=4)
    ihl: int = bits(4, RESERVED, default=5)
    tos: int = bits(8, HEX, variant=True)
    total_length: int = bits(16)
    identification: int = bits(16, HEX)
    reserved1: int = bits(1, RESERVED)
    dont_fragment: int = bits(1, FLAG, default=1)
    more_fragments: int = bits(1, FLAG)
    fragment_offset: int = bits(13)
    ttl: int = bits(8, DEC, default=64, variant=True)
    protocol: int = bits(8, default=PROTOCOL_UDP)
    checksum: int = bits(16, HEX, variant=True)
    source: int = bits(32, IPV4)
    dest: int = bits(32, IPV4)


@header
class Ipv6(Header):
    """IPv6 without extension headers."""

    version: int = bits(4, RESERVED, default=6)
    traffic_class: int = bits(8, HEX, variant=True)
    flow_label: int = bits(20, HEX, variant=True)
    payload_length: int = bits(16)
    next_header: int = bits(8, default=PROTOCOL_UDP)
    hop_limit: int = bits(8, default=64, variant=True)
    source: int = bits(128, IPV6)
    dest: int = bits(128, IPV6)


@header
class Udp(Header):
    """UDP. RoCE sends checksum 0: none."""

    source_port: int = bits(16)
    dest_port: int = bits(16, default=ROCE_PORT)
    length: int = bits(16)
    checksum: int = bits(16, HEX, variant=True)


def ipv4_checksum(data: bytes) -> int:
    """Ones' complement sum of an IPv4 header whose checksum field counts as zero."""
    words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, Ipv4.SIZE, 2) if i != 10]
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def address_of_gid(gid: bytes) -> tuple[int, int]:
    """(IP version, address): ``::ffff:a.b.c.d`` is IPv4 (Linux rdma_gid2ip)."""
    if gid[:12] == V4_MAPPED:
        return 4, int.from_bytes(gid[12:], "big")
    return 6, int.from_bytes(gid, "big")


def mac_of_guid(guid: int) -> int:
    """The MAC address from which an EUI-64 was made."""
    eui = (guid ^ 0x02 << 56).to_bytes(8, "big")
    return int.from_bytes(eui[:3] + eui[5:], "big")


def multicast_mac(version: int, address: int) -> int:
    """MAC address of an IP multicast group (RFC 1112, RFC 2464)."""
    if version == 4:
        return 0x01005E000000 | address & 0x7FFFFF
    return 0x333300000000 | address & 0xFFFFFFFF


def flow_label_of(local_qpn: int, remote_qpn: int) -> int:
    """20-bit flow label of a pair of QPs that has none of its own (Linux rdma_calc_flow_label)."""
    mixed = local_qpn * remote_qpn
    mixed ^= mixed >> 20
    mixed ^= mixed >> 40
    return mixed & 0xFFFFF


def source_port_of(flow_label: int) -> int:
    """UDP source port 0xC000..0xFFFF: one path for one flow (Linux rdma_flow_label_to_udp_sport)."""
    return 0xC000 | (flow_label & 0x3FFF) ^ (flow_label >> 14 & 0x3F)
