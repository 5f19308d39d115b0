"""Checksum offload: IPv4 header (RFC 791), TCP (RFC 9293) and UDP (RFC 768) with their pseudo headers (RFC 8200)."""

from nicemu._jit import jit, load8
from nicemu.nic.big_endian import store_big
from nicemu.nic.ethernet import UDP
from nicemu.tables.packets import payload_address
from nicemu.tables.rows import headers

TCP_CHECKSUM_AT, UDP_CHECKSUM_AT, IP_CHECKSUM_AT = 16, 6, 10


@jit
def add_words(total, at, size):
    """Ones' complement sum of ``size`` bytes as 16-bit words; an odd one counts as followed by zero."""
    for i in range(0, size - 1, 2):
        total += load8(at + i) << 8 | load8(at + i + 1)
    return total + (load8(at + size - 1) << 8) if size & 1 else total


@jit
def folded(total):
    """The sum in 16 bits."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@jit
def ip_sum(h, frame):
    """Sum over the IPv4 header; 0xFFFF if its checksum is right."""
    return folded(add_words(0, frame + h.l3_at, h.l4_at - h.l3_at))


@jit
def l4_sum(h, frame):
    """Sum over pseudo header, TCP or UDP header, and data; 0xFFFF if the checksum is right."""
    address_at, address_bytes = (12, 8) if h.l3 == 4 else (8, 32)
    size = h.l4_end - h.l4_at
    total = add_words(h.l4 + size, frame + h.l3_at + address_at, address_bytes)
    return folded(add_words(total, frame + h.l4_at, size))


@jit
def l4_checksum_at(h, frame):
    """Address of the TCP or UDP checksum."""
    return frame + h.l4_at + (UDP_CHECKSUM_AT if h.l4 == UDP else TCP_CHECKSUM_AT)


@jit
def fill_checksums(world, p):
    """Write the checksums of the frame that was read last (IBV_SEND_IP_CSUM)."""
    h = headers(world, 0)
    frame = payload_address(world, p)
    if h.l3 == 4 and h.l4_at > 0:
        store_big(frame + h.l3_at + IP_CHECKSUM_AT, 0, 2)
        store_big(frame + h.l3_at + IP_CHECKSUM_AT, ~ip_sum(h, frame) & 0xFFFF, 2)
    if h.l4 == 0 or h.whole == 0:
        return
    at = l4_checksum_at(h, frame)
    store_big(at, 0, 2)
    value = ~l4_sum(h, frame) & 0xFFFF
    if value == 0 and h.l4 == UDP:  # 0 would say that there is none
        value = 0xFFFF
    store_big(at, value, 2)


@jit
def checksums_right(world, p):
    """IBV_WC_IP_CSUM_OK: IPv4, and both its header's checksum and that of TCP or UDP are right."""
    h = headers(world, 0)
    frame = payload_address(world, p)
    if h.l3 != 4 or h.l4 == 0 or h.whole == 0 or ip_sum(h, frame) != 0xFFFF:
        return False
    at = l4_checksum_at(h, frame)
    if h.l4 == UDP and load8(at) == 0 and load8(at + 1) == 0:
        return True
    return l4_sum(h, frame) == 0xFFFF
