"""LLVM code of every intrinsic, for numba. Imported only when something is compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nicemu._jit import TRAPPED
from nicemu._jit.row_type import Row

_i64, _i32, _i8p = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


def process_vm(name: str) -> Callable:
    @intrinsic
    def access(typing_context, pid, local, remote, length):
        def codegen(context, builder, signature, args):
            pid, local, remote, length = args
            iovec = ir.LiteralStructType([_i64, _i64])
            pointers = []
            for base in (local, remote):
                vector = cgutils.alloca_once(builder, iovec)
                builder.store(base, cgutils.gep_inbounds(builder, vector, 0, 0))
                builder.store(length, cgutils.gep_inbounds(builder, vector, 0, 1))
                pointers.append(builder.bitcast(vector, _i8p))
            kind = ir.FunctionType(_i64, [_i32, _i8p, _i64, _i8p, _i64, _i64])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            one, none = ir.Constant(_i64, 1), ir.Constant(_i64, 0)
            return builder.call(function, [builder.trunc(pid, _i32), pointers[0], one, pointers[1], one, none])

        return types.int64(types.int64, types.int64, types.int64, types.int64), codegen

    return access


def file_access(name: str) -> Callable:
    @intrinsic
    def file_io(typing_context, fd, address, length, offset):
        def codegen(context, builder, signature, args):
            kind = ir.FunctionType(_i64, [_i32, _i64, _i64, _i64])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(function, [builder.trunc(args[0], _i32), *args[1:]])

        return types.int64(types.int64, types.int64, types.int64, types.int64), codegen

    return file_io


def load(bits: int, ordering: str) -> Callable:
    """A read of memory that others may write: whole, and once, whatever the order. What was written before a counter is
    seen after it if the counter is read with ``acquire``."""

    @intrinsic
    def read(typing_context, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            value = builder.load_atomic(pointer, ordering, bits // 8)
            return value if bits == 64 else builder.zext(value, _i64)

        return types.int64(types.int64), codegen

    return read


def store(bits: int, ordering: str) -> Callable:
    @intrinsic
    def write(typing_context, address, value):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            value = args[1] if bits == 64 else builder.trunc(args[1], ir.IntType(bits))
            builder.store_atomic(value, pointer, ordering, bits // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return write


@intrinsic
def copy_bytes(typing_context, destination, source, length):
    def codegen(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.memcpy", [_i8p, _i8p, _i64])
        pointers = [builder.inttoptr(address, _i8p) for address in args[:2]]
        builder.call(function, [*pointers, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def lowest_bit(typing_context, word):
    """How many bits below the lowest one that is set; of 0: anything."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def fill_bytes(typing_context, destination, value, length):
    def codegen(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.memset", [_i8p, _i64])
        pointer = builder.inttoptr(args[0], _i8p)
        value = builder.trunc(args[1], ir.IntType(8))
        builder.call(function, [pointer, value, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call(typing_context, address, a, b, c):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_i64, [_i64, _i64, _i64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64, types.int64), codegen


def _never_moves(builder, loaded):
    """Mark what was loaded from the (base, count) vector: nobody writes there while compiled code runs, so that several
    uses of a row find it once."""
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


def _out_of_range(module):
    """``nicemu.out_of_range(trap, code, index)``: set the trap word at ``trap`` and the one behind it."""
    name = "nicemu.out_of_range"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_i64, _i64, _i64]), name)
    function.linkage = "linkonce_odr"
    builder = ir.IRBuilder(function.append_basic_block())
    trap, code, index = function.args
    builder.store(code, builder.inttoptr(trap, _i64.as_pointer()))
    builder.store(index, builder.inttoptr(builder.add(trap, ir.Constant(_i64, 8)), _i64.as_pointer()))
    builder.ret_void()
    return function


def row(dtype: np.dtype, slot: int, trap_offset: int | None) -> Callable:
    """``row(world, index)``; see :func:`nicemu._jit.row_accessor`."""
    record, size = Row(dtype, slot), dtype.itemsize

    @intrinsic
    def access(typing_context, world, index):
        def codegen(context, builder, signature, args):
            def word(address, offset):
                return builder.inttoptr(builder.add(address, ir.Constant(_i64, offset)), _i64.as_pointer())

            base = _never_moves(builder, builder.load(word(args[0], 16 * slot)))
            index = args[1]
            if trap_offset is not None and index != ir.Constant(_i64, 0):  # every table has a row 0
                count = _never_moves(builder, builder.load(word(args[0], 16 * slot + 8)))
                with builder.if_then(builder.icmp_unsigned(">=", index, count), likely=False):
                    control = _never_moves(builder, builder.load(word(args[0], 0)))
                    at = builder.add(control, ir.Constant(_i64, trap_offset))
                    builder.call(_out_of_range(builder.module), [at, ir.Constant(_i64, slot + 1), index])
                    builder.ret(ir.Constant(_i32, TRAPPED))
            address = builder.add(base, builder.mul(index, ir.Constant(_i64, size)))
            return builder.inttoptr(address, context.get_value_type(record))

        return record(types.int64, types.int64), codegen

    return access


def base(slot: int) -> Callable:
    """``base(world)``; see :func:`nicemu._jit.base_accessor`."""

    @intrinsic
    def address(typing_context, world):
        def codegen(context, builder, signature, args):
            entry = builder.add(args[0], ir.Constant(_i64, 16 * slot))
            return _never_moves(builder, builder.load(builder.inttoptr(entry, _i64.as_pointer())))

        return types.int64(types.int64), codegen

    return address
