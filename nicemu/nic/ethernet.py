"""Reading a raw frame: Ethernet, VLAN tags, IPv4 or IPv6, the ports of TCP or UDP, into the one row of HEADERS.

Whatever a frame says about lengths, nothing behind its end is read: a header that is not all there was not seen, nor
was anything behind it. Ports of fragments are not read. Left out: IPv6 extension headers (what they carry has no
ports), IP-in-IP and other tunnels.
"""

from nicemu._jit import jit, load8
from nicemu.tables.packets import payload_address
from nicemu.tables.raw_records import VLAN_PRESENT
from nicemu.tables.rows import headers, packet

MAC_BYTES, ETHERNET_HEADER, VLAN_TAG, MAX_TAGS = 6, 14, 4, 2
IPV4, IPV6, CVLAN, SVLAN = 0x0800, 0x86DD, 0x8100, 0x88A8
IPV4_HEADER, IPV6_HEADER, TCP_HEADER, UDP_HEADER = 20, 40, 20, 8
TCP, UDP = 6, 17
MULTICAST_BIT = 1 << 40
FRAGMENT = 0x3FFF
"""More fragments, and the offset."""
MAX_HEADERS = ETHERNET_HEADER + MAX_TAGS * VLAN_TAG
"""A frame is at most so many bytes longer than the MTU."""


@jit
def load_big(at, size):
    """``size`` big-endian bytes, at most 8; 8 bytes as int64."""
    value = load8(at) if size < 8 or load8(at) < 128 else load8(at) - 256
    for i in range(1, size):
        value = value * 256 + load8(at + i)
    return value


@jit
def read_frame(world, p):
    """Read packet ``p``, a frame of at least an Ethernet header; gives the row of HEADERS."""
    h = headers(world, 0)
    frame = payload_address(world, p)
    size = packet(world, p).payload
    clear(h)
    h.dst_mac = load_big(frame, MAC_BYTES)
    h.src_mac = load_big(frame + MAC_BYTES, MAC_BYTES)
    read_tags(h, frame, size)
    if h.ether_type == IPV4:
        read_ipv4(h, frame, size)
    elif h.ether_type == IPV6:
        read_ipv6(h, frame, size)
    return h


@jit
def clear(h):
    """Nothing is known."""
    h.vlan = h.l3 = h.l4 = h.proto = h.tos = h.ttl = h.ip_flags = h.flow_label = h.src_port = h.dst_port = 0
    h.src_high = h.src_low = h.dst_high = h.dst_low = 0
    h.l3_at = h.l4_at = h.l4_end = h.whole = 0


@jit
def read_tags(h, frame, size):
    """EtherType behind at most two VLAN tags (802.1Q, 802.1ad); the outermost is the one that rules look at."""
    at = ETHERNET_HEADER - 2
    h.ether_type = load_big(frame + at, 2)
    for tag in range(MAX_TAGS):
        if (h.ether_type != CVLAN and h.ether_type != SVLAN) or at + 2 + VLAN_TAG > size:
            break
        if tag == 0:
            h.vlan = VLAN_PRESENT | load_big(frame + at + 2, 2)
        at += VLAN_TAG
        h.ether_type = load_big(frame + at, 2)
    h.l3_at = at + 2


@jit
def read_ipv4(h, frame, size):
    """IPv4 with options; the ports of what is no fragment."""
    at = frame + h.l3_at
    if h.l3_at + IPV4_HEADER > size or load8(at) >> 4 != 4:
        return
    words = load8(at) & 0xF
    total = load_big(at + 2, 2)
    fragment = load_big(at + 6, 2)
    h.l3 = 4
    h.tos = load8(at + 1)
    h.ip_flags = fragment >> 13
    h.ttl = load8(at + 8)
    h.proto = load8(at + 9)
    h.src_low = load_big(at + 12, 4)
    h.dst_low = load_big(at + 16, 4)
    if words < 5 or 4 * words > total or h.l3_at + 4 * words > size or fragment & FRAGMENT:
        return
    h.l4_at = h.l3_at + 4 * words
    h.l4_end = h.l3_at + total
    read_ports(h, frame, size)


@jit
def read_ipv6(h, frame, size):
    """IPv6."""
    at = frame + h.l3_at
    if h.l3_at + IPV6_HEADER > size or load8(at) >> 4 != 6:
        return
    first = load_big(at, 4)
    h.l3 = 6
    h.tos = first >> 20 & 0xFF
    h.flow_label = first & 0xFFFFF
    h.proto = load8(at + 6)
    h.ttl = load8(at + 7)
    h.src_high = load_big(at + 8, 8)
    h.src_low = load_big(at + 16, 8)
    h.dst_high = load_big(at + 24, 8)
    h.dst_low = load_big(at + 32, 8)
    h.l4_at = h.l3_at + IPV6_HEADER
    h.l4_end = h.l4_at + load_big(at + 4, 2)
    read_ports(h, frame, size)


@jit
def read_ports(h, frame, size):
    """Ports of a TCP or UDP header that is all there."""
    need = TCP_HEADER if h.proto == TCP else UDP_HEADER
    h.whole = 1 if h.l4_end <= size and h.l4_at + need <= h.l4_end else 0
    h.l4_end = min(h.l4_end, size)
    if (h.proto != TCP and h.proto != UDP) or h.l4_at + need > h.l4_end:
        return
    h.l4 = h.proto
    h.src_port = load_big(frame + h.l4_at, 2)
    h.dst_port = load_big(frame + h.l4_at + 2, 2)
