"""Integers in network order, for headers inside payloads."""

from nicemu._jit import jit, load8, store8


@jit
def store_big(at, value, size):
    """``value`` in ``size`` big-endian bytes."""
    for i in range(size):
        store8(at + i, (value >> (8 * (size - 1 - i))) & 0xFF)


@jit
def load_big32(at):
    """Four big-endian bytes, unsigned."""
    return load8(at) << 24 | load8(at + 1) << 16 | load8(at + 2) << 8 | load8(at + 3)


@jit
def load_big64(at):
    """Eight big-endian bytes as the table fields hold them: two's complement."""
    return ((load_big32(at) ^ 0x80000000) - 0x80000000) * 0x100000000 + load_big32(at + 4)
