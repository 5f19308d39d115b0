"""Packet sequence numbers: 24 bits, compared in a window of 2^23 either side (Linux rxe psn_compare)."""

from nicemu._jit import jit

PSN_MASK = 0xFFFFFF


@jit
def psn_diff(a, b):
    """``a - b`` as a signed distance, -2^23..2^23-1."""
    return ((a - b + 0x800000) & PSN_MASK) - 0x800000


@jit
def psn_ahead(a, b):
    """How far ``a`` lies ahead of ``b``, which is never later: 0..2^24-1. A READ of 2^23 responses fits."""
    return (a - b) & PSN_MASK


@jit
def psn_add(psn, count):
    """``psn + count`` modulo 2^24."""
    return (psn + count) & PSN_MASK


@jit
def packet_count(length, mtu):
    """Packets of a message of ``length`` bytes: at least one."""
    return max((length + mtu - 1) // mtu, 1)


@jit
def in_range(va, length, base, size):
    """``va .. va+length`` lies in ``base .. base+size``. Addresses are int64 two's complement; nothing overflows."""
    if va < base or base < 0 <= va:
        return False
    return 0 <= length <= size and va - base <= size - length
