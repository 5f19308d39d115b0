"""CRC-32 (reflected, polynomial 0x04C11DB7) for compiled code: ``crc32(crc, address, length)`` is ``zlib.crc32``.

Two ways, the same result. *Folding*: four 128-bit remainders are carried 64 bytes on by carry-less multiplication with
powers of x modulo the polynomial (x86 PCLMULQDQ); what remains are 16 bytes with the same CRC as all the rest.
*Slicing*: sixteen bytes a step, one table look-up each. Folding is compiled only if the CPU that numba compiles for has
it, which numba's cache index tells apart. Without JIT it is zlib itself.

This file holds an intrinsic, although they belong into ``_jit.py``, because nothing else needs it.
"""

from __future__ import annotations

import ctypes
import platform
import zlib
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config as numba_config
from numba.extending import intrinsic

from nicemu._jit import JIT, jit, load8

POLYNOMIAL = 0x04C11DB7
ONES = 0xFFFFFFFF
FOLD_BYTES = 64
"""Shortest input for folding."""


def _tables() -> np.ndarray:
    """``[n, b]``: what byte ``b`` makes of a remainder of zero when ``n`` zero bytes follow it."""
    reflected = int(f"{POLYNOMIAL:032b}"[::-1], 2)
    tables = np.zeros((16, 256), np.int64)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (reflected if value & 1 else 0)
        tables[0, byte] = value
    for n in range(1, 16):
        tables[n] = tables[n - 1] >> 8 ^ tables[0, tables[n - 1] & 255]
    return tables


def _power(n: int) -> int:
    """x to the ``n`` modulo the polynomial, reflected, one bit up: a product of reflected numbers is one short."""
    value = 1
    for _ in range(n):
        value <<= 1
        if value >> 32:
            value ^= 1 << 32 | POLYNOMIAL
    return int(f"{value:032b}"[::-1], 2) << 1


def _fold_powers(distance: int) -> tuple[int, int]:
    """Multipliers of the low and the high half of a remainder that is carried ``distance`` bits on."""
    return _power(distance + 32), _power(distance - 32)


T = _tables()
_i64, _vector = ir.IntType(64), ir.VectorType(ir.IntType(64), 2)


def _compiles_clmul() -> bool:
    """The CPU that numba compiles for multiplies without carry."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if numba_config.CPU_FEATURES is not None:
        return "+pclmul" in numba_config.CPU_FEATURES.split(",")
    if numba_config.CPU_NAME not in (None, "host"):
        return False
    return bool(llvm.get_host_cpu_features().get("pclmul", False))


CLMUL = JIT and _compiles_clmul()


def _load_words(builder: Any, address: Any, offset: int = 0) -> Any:
    at = builder.add(address, ir.Constant(_i64, offset))
    return builder.load(builder.inttoptr(at, _vector.as_pointer()), align=1)


@intrinsic
def _words(typing_context, address):
    """The 16 bytes at ``address``, aligned or not, as two int64."""

    def codegen(context, builder, signature, args):
        words = _load_words(builder, args[0])
        halves = [builder.extract_element(words, ir.Constant(ir.IntType(32), i)) for i in range(2)]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.int64, 2)(types.int64), codegen


class _Folding:
    """Emits the loops that carry remainders on."""

    def __init__(self, builder: Any) -> None:
        self.builder, module = builder, builder.module
        kind = ir.FunctionType(_vector, [_vector, _vector, ir.IntType(8)])
        name = "llvm.x86.pclmulqdq"
        self.multiply = module.globals.get(name) or ir.Function(module, kind, name)

    def carry(self, remainder: Any, powers: tuple[int, int], words: Any) -> Any:
        """``remainder`` moved on by the distance of ``powers``, plus ``words``."""
        builder, constant = self.builder, ir.Constant(_vector, list(powers))
        low = builder.call(self.multiply, [remainder, constant, ir.Constant(ir.IntType(8), 0x00)])
        high = builder.call(self.multiply, [remainder, constant, ir.Constant(ir.IntType(8), 0x11)])
        return builder.xor(builder.xor(low, high), words)

    def loop(self, remainders: list[Any], address: Any, end: Any, powers: tuple[int, int]) -> tuple[list[Any], Any]:
        """Carry all ``remainders`` over the input as long as a step fits before ``end``."""
        builder, step = self.builder, ir.Constant(_i64, 16 * len(remainders))
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("fold", "fold.body", "fold.end"))
        builder.branch(head)
        builder.position_at_end(head)
        carried, at = [builder.phi(_vector) for _ in remainders], builder.phi(_i64)
        following = builder.add(at, step)
        builder.cbranch(builder.icmp_unsigned("<=", following, end), body, after)
        builder.position_at_end(body)
        moved = [self.carry(x, powers, _load_words(builder, at, 16 * i)) for i, x in enumerate(carried)]
        builder.branch(head)
        for phi, first, later in zip([*carried, at], [*remainders, address], [*moved, following], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, body)
        builder.position_at_end(after)
        return carried, at


@intrinsic
def _fold(typing_context, state, address, length):
    """Two int64: 16 bytes whose remainder from zero is that of the input from ``state``; ``length`` is 64 + 16 n."""

    def codegen(context, builder, signature, args):
        state, address, length = args
        folding = _Folding(builder)
        end = builder.add(address, length)
        remainders = [_load_words(builder, address, 16 * i) for i in range(4)]
        zero = ir.Constant(_vector, [0, 0])
        start = builder.insert_element(zero, state, ir.Constant(ir.IntType(32), 0))
        remainders[0] = builder.xor(remainders[0], start)
        address = builder.add(address, ir.Constant(_i64, FOLD_BYTES))
        remainders, address = folding.loop(remainders, address, end, _fold_powers(4 * 128))
        one = remainders[0]
        for words in remainders[1:]:
            one = folding.carry(one, _fold_powers(128), words)
        (one,), _ = folding.loop([one], address, end, _fold_powers(128))
        halves = [builder.extract_element(one, ir.Constant(ir.IntType(32), i)) for i in range(2)]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.int64, 2)(types.int64, types.int64, types.int64), codegen


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
