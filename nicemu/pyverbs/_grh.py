"""The 40 bytes in front of a received datagram, and the way back they show (`ibv_init_ah_from_wc`).

RoCE v2 over IPv4 leaves the first 20 undefined; there the IPv4 header follows. Over IPv6, and for RoCE v1, all 40 are
the IPv6 header (the GRH).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

GRH_BYTES, V4_AT = 40, 20
_V6 = struct.Struct(">IHBB16s16s")  # version, traffic class, flow label; payload length; next header; hop limit; GIDs
_V4 = struct.Struct(">BB6xBBH4s4s")  # version and length; TOS; TTL; protocol; checksum; addresses
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Route:
    """Whom a datagram came from and whom it was for, as GIDs."""

    source: bytes
    destination: bytes
    flow_label: int
    traffic_class: int
    hop_limit: int


def route_back(header: bytes) -> Route:
    """The route of a datagram with this header. OSError, EINVAL: it is neither IPv4 nor IPv6."""
    if header[0] >> 4 == 6 and not _is_checked_v4(header):
        first, _, _, hops, source, destination = _V6.unpack(header)
        return Route(source, destination, first & 0xFFFFF, first >> 20 & 0xFF, hops)
    if header[V4_AT] >> 4 != 4:
        raise OSError(errno.EINVAL, "the header in front of the datagram is neither IPv4 nor IPv6")
    _, service, ttl, _, _, sender, receiver = _V4.unpack_from(header, V4_AT)
    return Route(_MAPPED + sender, _MAPPED + receiver, 0, service, ttl)


def _is_checked_v4(header: bytes) -> bool:
    """The last 20 bytes are an IPv4 header whose checksum is right (as `ib_get_rdma_header_version` decides)."""
    words = struct.unpack_from(">10H", header, V4_AT)
    total = sum(words)
    return header[V4_AT] == 0x45 and (total & 0xFFFF) + (total >> 16) == 0xFFFF
