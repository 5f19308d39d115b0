"""How many bytes the headers of an opcode take: from the opcode table, as one constant array for kernels.

The CNP's 16 reserved bytes count as its header (RoCEv2 annex A17.9.3 as quoted in a vendor's article on the format).
"""

import numpy as np

from nicemu._jit import jit
from nicemu.wire.opcode import CNP_BYTES, OPERATIONS, RAW, Transport, headers_of
from nicemu.wire.xth import XTH

PREAMBLE, ETHERNET, IPV4, IPV6, UDP, BTH, ICRC, FCS, GAP = 8, 14, 20, 40, 8, 12, 4, 4, 12
FRAMING = PREAMBLE + ETHERNET + FCS + GAP
"""Bytes around the IP packet."""
MIN_FRAME = 60
"""Shortest Ethernet frame without FCS; ports pad shorter ones."""
NOT_NEGATIVE = (1 << 63) - 1
"""Of what is never negative a mask takes nothing, and compiled code divides without asking for its sign."""
DATAGRAM = IPV4 + UDP + BTH + ICRC
"""An IPv4 packet with no extension header and no payload."""


def _extensions() -> np.ndarray:
    sizes = np.zeros(256, np.int64)
    for transport, operations in OPERATIONS.items():
        for operation in operations:
            names = headers_of(transport, operation)
            sizes[transport << 5 | operation] = sum(XTH[name].SIZE for name in names)
    sizes[Transport.CNP << 5 : (Transport.CNP << 5) + 32] = CNP_BYTES
    return sizes


_EXTENSIONS = _extensions()


@jit
def wire_ns(size, ps_per_byte):
    """How long ``size`` bytes take at a rate, ns."""
    return (size * ps_per_byte & NOT_NEGATIVE) // 1000


@jit
def ip_bytes(transport, operation, payload, ipv6):
    """Bytes of an IP packet: headers, extension headers of the opcode, payload, pad to 4, ICRC. Of a raw frame (its
    ``payload`` is all of it): what follows the Ethernet header."""
    if transport == RAW:
        return max(payload, MIN_FRAME) - ETHERNET
    extra = IPV6 - IPV4 if ipv6 else 0
    return DATAGRAM + extra + int(_EXTENSIONS[(transport & 7) << 5 | (operation & 31)]) + ((payload + 3) & ~3)
