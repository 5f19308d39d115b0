"""Lengths of what a raw packet QP sends: whole frames, and TSO: one WQE, many TCP segments.

A TSO WQE brings the headers behind its SGEs; ``compare_add`` is their length, ``swap`` the MSS. Each segment gets the
headers with the IP length, IP identification, TCP sequence number and flags that are its own.
"""

from nicemu._jit import jit, load8, load64
from nicemu.abi import rings
from nicemu.nic.big_endian import store_big
from nicemu.nic.ethernet import (
    ETHERNET_HEADER,
    IPV4,
    IPV4_HEADER,
    IPV6,
    IPV6_HEADER,
    TCP,
    clear,
    load_big,
    read_frame,
    read_tags,
)
from nicemu.nic.qp_type import TSO
from nicemu.tables.packets import payload_address
from nicemu.tables.rows import headers, packet

MAX_TSO = 1 << 18
"""Bytes of data of one TSO WQE."""
FIN, PSH, CWR = 0x01, 0x08, 0x80
TCP_SEQUENCE_AT, TCP_FLAGS_AT = 4, 13


@jit
def header_bytes(at):
    """Bytes of headers of the TSO WQE at host address ``at``."""
    return load64(at + rings.SEND_COMPARE_ADD) & 0xFFFF


@jit
def segment_bytes(at):
    """Data of each segment but the last, at least 1."""
    return max(load64(at + rings.SEND_SWAP) & 0xFFFF, 1)


@jit
def fits_frames(q, e, at):
    """An Ethernet header is there, and no frame is longer than the port takes."""
    if e.opcode != TSO:
        return ETHERNET_HEADER <= e.length <= q.mtu
    size = header_bytes(at)
    return size >= ETHERNET_HEADER and size + segment_bytes(at) <= q.mtu and 0 < e.length <= MAX_TSO


@jit
def segment_headers(world, p, at, k, last):
    """Headers of segment ``k`` of the TSO WQE at ``at`` in front of packet ``p``'s data, which may not be there yet.
    Headers that are not TCP over IP stay as they are."""
    row = packet(world, p)
    frame = payload_address(world, p)
    h = headers(world, 0)
    clear(h)
    read_tags(h, frame, header_bytes(at))
    ip = frame + h.l3_at
    if h.ether_type == IPV4 and h.l3_at + IPV4_HEADER <= header_bytes(at):
        store_big(ip + 2, row.payload - h.l3_at, 2)
        store_big(ip + 4, load_big(ip + 4, 2) + k & 0xFFFF, 2)
    elif h.ether_type == IPV6 and h.l3_at + IPV6_HEADER <= header_bytes(at):
        store_big(ip + 4, row.payload - h.l3_at - IPV6_HEADER, 2)
    h = read_frame(world, p)
    if h.l4 != TCP:
        return
    tcp = frame + h.l4_at
    store_big(tcp + TCP_SEQUENCE_AT, load_big(tcp + TCP_SEQUENCE_AT, 4) + k * segment_bytes(at) & 0xFFFFFFFF, 4)
    flags = load8(tcp + TCP_FLAGS_AT)
    if not last:
        flags &= ~(FIN | PSH)
    if k > 0:
        flags &= ~CWR
    store_big(tcp + TCP_FLAGS_AT, flags, 1)
