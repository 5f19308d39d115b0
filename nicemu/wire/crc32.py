"""CRC-32 (reflected, polynomial 0x04C11DB7) for compiled code: ``crc32(crc, address, length)`` is ``zlib.crc32``.

Two ways, the same result. *Folding*: four 128-bit remainders are carried 64 bytes on by carry-less multiplication with
powers of x modulo the polynomial (x86 PCLMULQDQ); what remains are 16 bytes with the same CRC as all the rest.
*Slicing*: sixteen bytes a step, one table look-up each. Folding is compiled only if the CPU that numba compiles for has
it, which the kernel digest tells apart. Without JIT it is zlib itself.

Its intrinsics, which nothing else needs, are in ``crc32_native``.
"""

from __future__ import annotations

import ctypes
import platform
import zlib
from collections.abc import Callable

import numpy as np

from nicemu._jit import JIT, Native, jit, load8
from nicemu._jit.object_code import cpu_has

POLYNOMIAL = 0x04C11DB7
ONES = 0xFFFFFFFF
FOLD_BYTES = 64
"""Shortest input for folding."""


def _tables() -> np.ndarray:
    """``[n, b]``: what byte ``b`` makes of a remainder of zero when ``n`` zero bytes follow it."""
    reflected = int(f"{POLYNOMIAL:032b}"[::-1], 2)
    tables = np.zeros((16, 256), np.int64)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = tables[0] >> 1 ^ (tables[0] & 1) * reflected
    for n in range(1, 16):
        tables[n] = tables[n - 1] >> 8 ^ tables[0, tables[n - 1] & 255]
    return tables


T = _tables()
CLMUL = JIT and platform.machine() in ("x86_64", "AMD64") and cpu_has("pclmul")


_words, _fold = (Native("nicemu.wire.crc32_native", name) for name in ("words", "fold"))


@jit
def add_byte(state, byte):
    """The remainder with one more byte."""
    return state >> 8 ^ T[0, (state ^ byte) & 255]


@jit
def add_words(state, low, high):
    """The remainder with sixteen more bytes, as two little-endian int64."""
    low ^= state
    crc = T[15, low & 255] ^ T[14, low >> 8 & 255] ^ T[13, low >> 16 & 255] ^ T[12, low >> 24 & 255]
    crc ^= T[11, low >> 32 & 255] ^ T[10, low >> 40 & 255] ^ T[9, low >> 48 & 255] ^ T[8, low >> 56 & 255]
    crc ^= T[7, high & 255] ^ T[6, high >> 8 & 255] ^ T[5, high >> 16 & 255] ^ T[4, high >> 24 & 255]
    crc ^= T[3, high >> 32 & 255] ^ T[2, high >> 40 & 255] ^ T[1, high >> 48 & 255] ^ T[0, high >> 56 & 255]
    return crc


@jit
def crc32_sliced(crc, address, length):
    """CRC-32 by tables."""
    state, end = crc ^ ONES, address + length
    while end - address >= 16:
        low, high = _words(address)
        state = add_words(state, low, high)
        address += 16
    while address < end:
        state = add_byte(state, load8(address))
        address += 1
    return state ^ ONES


@jit
def crc32_folded(crc, address, length):
    """CRC-32 by carry-less multiplication, the tail and short inputs by tables."""
    whole = length & ~15
    if whole < FOLD_BYTES:
        return crc32_sliced(crc, address, length)
    low, high = _fold(crc ^ ONES, address, whole)
    return crc32_sliced(add_words(0, low, high) ^ ONES, address + whole, length - whole)


def crc32_plain(crc: int, address: int, length: int) -> int:
    """The twin without JIT."""
    return zlib.crc32(ctypes.string_at(int(address), int(length)), int(crc))


def _choose() -> Callable[..., int]:
    if not JIT:
        return crc32_plain
    return crc32_folded if CLMUL else crc32_sliced  # type: ignore[no-any-return]


crc32 = _choose()
"""``crc32(crc, address, length)``: ``crc`` of what came before (0: nothing) and of ``length`` bytes at ``address``."""
