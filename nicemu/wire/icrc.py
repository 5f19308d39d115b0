"""The invariant CRC of RoCEv2 (Linux rxe_icrc.c): over everything that no router may change.

CRC-32 of eight bytes 0xff in place of the LRH, the IP, UDP and BTH headers with their variant fields all ones, and
everything behind the BTH up to the pad. It stands behind the pad, least significant byte first. Which fields are
variant is said where the headers are declared (``variant=True``). ``icrc`` works on values, ``icrc_at`` on memory in
compiled code.
"""

from __future__ import annotations

import zlib

import numpy as np

from nicemu._jit import jit, load8
from nicemu.wire.bth import Bth
from nicemu.wire.crc32 import ONES, add_byte, crc32
from nicemu.wire.header import Header
from nicemu.wire.ip import Ipv4, Ipv6, Udp

ICRC_BYTES = 4
SEED = zlib.crc32(b"\xff" * 8)


def icrc(headers: tuple[Header, ...], rest: bytes) -> int:
    """The ICRC as a number, of (IP, UDP, BTH) and of all bytes behind the BTH up to the pad."""
    crc = SEED
    for part in headers:
        crc = zlib.crc32(part.masked(), crc)
    return zlib.crc32(rest, crc)


def _masks() -> np.ndarray:
    """``[0]`` for IPv4, ``[1]`` for IPv6: what is or-ed to each byte from the IP header to the BTH's last."""
    masks = np.zeros((2, Ipv6.SIZE + Udp.SIZE + Bth.SIZE), np.int64)
    for row, ip in zip(masks, (Ipv4, Ipv6), strict=True):
        mask = b"".join(part.VARIANT.to_bytes(part.SIZE, "big") for part in (ip, Udp, Bth))
        row[: len(mask)] = list(mask)
    return masks


MASKS = _masks()
MASKED4, MASKED6 = (ip.SIZE + Udp.SIZE + Bth.SIZE for ip in (Ipv4, Ipv6))


@jit
def icrc_at(address, length):
    """ICRC of the packet whose IP header lies at ``address``; ``length`` bytes from there to the end of the pad."""
    is_v6 = 1 if load8(address) >> 4 == 6 else 0
    masked = min(MASKED6 if is_v6 else MASKED4, length)
    state = SEED ^ ONES
    for i in range(masked):
        state = add_byte(state, load8(address + i) | MASKS[is_v6, i])
    return crc32(state ^ ONES, address + masked, length - masked)
