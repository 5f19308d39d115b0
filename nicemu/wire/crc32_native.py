"""LLVM code of the intrinsics of ``crc32``. Imported only when something is compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nicemu.wire.crc32 import FOLD_BYTES, POLYNOMIAL

_i64, _vector = ir.IntType(64), ir.VectorType(ir.IntType(64), 2)


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


def _load_words(builder: Any, address: Any, offset: int = 0) -> Any:
    at = builder.add(address, ir.Constant(_i64, offset))
    return builder.load(builder.inttoptr(at, _vector.as_pointer()), align=1)


@intrinsic
def words(typing_context, address):
    """The 16 bytes at ``address``, aligned or not, as two int64."""

    def codegen(context, builder, signature, args):
        loaded = _load_words(builder, args[0])
        halves = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(2)]
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
def fold(typing_context, state, address, length):
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
