"""The one place that names numba options, and the Python twin of every intrinsic.

Compiled code sees the *world* as one ``int64``: the address of a table of (base, count) pairs, one pair per record
table (:mod:`nicemu.tables`). Three decorators:

``jit``    a helper, compiled into whoever calls it.
``unit``   an engine unit or firmware hook, ``int64 f(int64, int64, int64)``: compiled and cached by itself, called by
           code address through :func:`call`.
``entry``  a kernel that Python calls.

The cache directory is keyed by a digest of every kernel source, since numba does not notice an edited callee. With
``NUMBA_DISABLE_JIT=1`` the same sources run as plain Python: a unit's "address" is then an index into a list.

Limits: a unit must not raise (numba would print and return 0): it traps.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic

JIT = not numba_config.DISABLE_JIT
PACKAGE = Path(__file__).parent
KERNEL_FOLDERS = ("abi", "tables", "memory", "nic", "fabric", "wire")
NOT_KERNELS = frozenset((
    "fabric/cable.py", "fabric/fabric.py", "fabric/story.py",
    "memory/arena.py", "memory/frame_ids.py", "memory/frames.py", "memory/safe_copy.py", "memory/slots.py",
    "nic/compile.py", "nic/device.py", "nic/doorbell.py",
    "nic/firmware.py", "tables/world.py", "wire/frame.py", "wire/packet.py", "wire/pcapng.py",
))  # fmt: skip
"""Files of those folders that compile nothing: editing them keeps the cache."""
OPTIONS = {"error_model": "numpy"}
UNIT_SIGNATURE = types.int64(types.int64, types.int64, types.int64)

_i64, _i32, _i8p = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


@functools.cache
def kernel_digest() -> str:
    """Digest of everything compiled code depends on: kernel sources, dtypes, enums and the numba version."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    paths = [PACKAGE / "_jit.py"]
    for folder in KERNEL_FOLDERS:
        paths += [path for path in sorted((PACKAGE / folder).rglob("*.py"))
                  if path.relative_to(PACKAGE).as_posix() not in NOT_KERNELS]  # fmt: skip
    for path in paths:
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Folder of compiled code: ``$NICEMU_CACHE``, else ``nicemu`` below the user's cache folder."""
    chosen = os.environ.get("NICEMU_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nicemu"


class _CacheFolder:
    """Numba reads ``config.CACHE_DIR`` when a function is decorated; this sets it for that moment."""

    def __init__(self, name: str) -> None:
        self.folder = cache_root() / name

    def __enter__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.saved = numba_config.CACHE_DIR
        numba_config.CACHE_DIR = str(self.folder)

    def __exit__(self, *_: object) -> None:
        numba_config.CACHE_DIR = self.saved


_digest: list[str] = []


def kernel_cache() -> _CacheFolder:
    """The folder of the present kernel sources."""
    if not _digest:
        _digest.append(kernel_digest())
    return _CacheFolder(_digest[0])


def cache_with(folder: Path) -> _CacheFolder:
    """A folder for kernels outside ``KERNEL_FOLDERS``: keyed by the kernel sources and by those of ``folder``, so that
    editing these does not compile the engine again."""
    own = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        own.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return _CacheFolder(f"{kernel_digest()}-{folder.name}-{own.hexdigest()[:16]}")


jit = njit(**OPTIONS)


def entry(signature: str, folder: Path | None = None) -> Callable[[Callable], Callable]:
    """A kernel called from Python, compiled at its first call and cached until any kernel source changes.

    ``folder``: where its own sources lie, if outside ``KERNEL_FOLDERS``.
    """

    def decorate(function: Callable) -> Callable:
        if not JIT:
            return function
        compiled: list[Callable] = []

        def call_entry(*args: int) -> int:
            return load()(*args)

        def load() -> Callable:
            """The compiled function itself, for callers in a loop."""
            if not compiled:
                with kernel_cache() if folder is None else cache_with(folder):
                    compiled.append(njit(signature, cache=True, **OPTIONS)(function))
            return compiled[0]

        call_entry.load = load  # type: ignore[attr-defined]
        call_entry.__doc__ = function.__doc__
        return call_entry

    return decorate


PYTHON_UNITS: list[Callable] = [lambda a, b, c: 0]
_installed: dict[Any, tuple[int, Any]] = {}


def install(function: Callable, folder: str | None = None) -> int:
    """Compile ``int64 f(int64, int64, int64)`` and return its code address (without JIT: its index).

    ``folder`` names the cache folder; firmware images pass the digest of their own file.
    """
    key = (function, folder)
    if key not in _installed:
        if not JIT:
            PYTHON_UNITS.append(function)
            _installed[key] = (len(PYTHON_UNITS) - 1, function)
        else:
            with kernel_cache() if folder is None else _CacheFolder(folder):
                compiled = cfunc(UNIT_SIGNATURE, cache=True, **OPTIONS)(function)
            _installed[key] = (compiled.address, compiled)
    return _installed[key][0]


# ---------------------------------------------------------------------------------------------------------------------
# Python twins. Each stands beside its intrinsic below and does the same.

WORLDS: dict[int, list[np.recarray]] = {}
_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("pread", "pwrite"):
    getattr(_libc, _name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
    getattr(_libc, _name).restype = ctypes.c_ssize_t


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _python_vm(name: str) -> Callable[[int, int, int, int], int]:
    function = getattr(_libc, name, None)

    def process_vm(pid: int, local: int, remote: int, length: int) -> int:
        if function is None:
            return -1
        here, there = _Iovec(int(local), int(length)), _Iovec(int(remote), int(length))
        return function(
            int(pid), ctypes.byref(here), ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1), ctypes.c_ulong(0)
        )

    if function is not None:
        function.restype = ctypes.c_ssize_t
    return process_vm


def _native_vm(name: str) -> Callable:
    @intrinsic
    def process_vm(typing_context, pid, local, remote, length):
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

    return process_vm


def _native_pio(name: str) -> Callable:
    @intrinsic
    def file_io(typing_context, fd, address, length, offset):
        def codegen(context, builder, signature, args):
            kind = ir.FunctionType(_i64, [_i32, _i64, _i64, _i64])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(function, [builder.trunc(args[0], _i32), *args[1:]])

        return types.int64(types.int64, types.int64, types.int64, types.int64), codegen

    return file_io


def _native_load(bits: int, ordering: str) -> Callable:
    @intrinsic
    def load(typing_context, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            value = builder.load_atomic(pointer, ordering, bits // 8)
            return value if bits == 64 else builder.zext(value, _i64)

        return types.int64(types.int64), codegen

    return load


def _native_store(bits: int, ordering: str) -> Callable:
    @intrinsic
    def store(typing_context, address, value):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            value = args[1] if bits == 64 else builder.trunc(args[1], ir.IntType(bits))
            builder.store_atomic(value, pointer, ordering, bits // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return store


_CTYPES = {8: ctypes.c_uint8, 32: ctypes.c_uint32, 64: ctypes.c_int64}


def _python_load(bits: int) -> Callable[[int], int]:
    kind = _CTYPES[bits]
    return lambda address: kind.from_address(int(address)).value


def _python_store(bits: int) -> Callable[[int, int], None]:
    kind, mask = _CTYPES[bits], (1 << bits) - 1

    def store(address: int, value: int) -> None:
        kind.from_address(int(address)).value = int(value) & mask

    return store


@intrinsic
def _native_copy(typing_context, destination, source, length):
    def codegen(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.memcpy", [_i8p, _i8p, _i64])
        pointers = [builder.inttoptr(address, _i8p) for address in args[:2]]
        builder.call(function, [*pointers, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _native_fill(typing_context, destination, value, length):
    def codegen(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.memset", [_i8p, _i64])
        pointer = builder.inttoptr(args[0], _i8p)
        value = builder.trunc(args[1], ir.IntType(8))
        builder.call(function, [pointer, value, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _native_call(typing_context, address, a, b, c):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_i64, [_i64, _i64, _i64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64, types.int64), codegen


def _python_copy(destination: int, source: int, length: int) -> None:
    ctypes.memmove(int(destination), int(source), int(length))


def _python_fill(destination: int, value: int, length: int) -> None:
    ctypes.memset(int(destination), int(value) & 0xFF, int(length))


def _python_call(address: int, a: int, b: int, c: int) -> int:
    return PYTHON_UNITS[int(address)](a, b, c)


class _Row(np.record):
    """A row whose fields come before numpy's own attributes of the same name (``base``, ``flags``)."""

    def __getattribute__(self, name: str) -> Any:
        fields = np.void.__getattribute__(self, "dtype").fields
        if name in fields:
            return np.void.__getattribute__(self, "getfield")(*fields[name][:2])
        return np.record.__getattribute__(self, name)


def row_accessor(dtype: np.dtype, slot: int, trap_offset: int) -> Callable:
    """``row(world, index)``: the row of the table in ``slot``; out of range gives row 0 and sets the trap word.

    ``trap_offset`` is the byte offset of the trap code in row 0 of table 0 (the control record); the code stored is
    ``slot + 1``, the index goes into the next word.
    """
    if not JIT:
        row_dtype = np.dtype((_Row, dtype))

        def python_row(world: int, index: int) -> Any:
            table = WORLDS[int(world)][slot]
            if not 0 <= index < len(table):
                control = WORLDS[int(world)][0][0]
                control.trap, control.trap_row, index = slot + 1, index, 0
            return table.view(row_dtype, np.ndarray)[int(index)]

        return python_row
    record, size = numba.from_dtype(dtype), dtype.itemsize

    @intrinsic
    def row(typing_context, world, index):
        def codegen(context, builder, signature, args):
            def word(address, offset):
                return builder.inttoptr(builder.add(address, ir.Constant(_i64, offset)), _i64.as_pointer())

            base = builder.load(word(args[0], 16 * slot))
            count = builder.load(word(args[0], 16 * slot + 8))
            bad = builder.icmp_unsigned(">=", args[1], count)
            with builder.if_then(bad, likely=False):
                control = builder.load(word(args[0], 0))
                builder.store(ir.Constant(_i64, slot + 1), word(control, trap_offset))
                builder.store(args[1], word(control, trap_offset + 8))
            index = builder.select(bad, ir.Constant(_i64, 0), args[1])
            address = builder.add(base, builder.mul(index, ir.Constant(_i64, size)))
            return builder.inttoptr(address, context.get_value_type(record))

        return record(types.int64, types.int64), codegen

    return row


def base_accessor(slot: int) -> Callable:
    """``base(world)``: the address of row 0 of a bulk table (int64)."""
    if not JIT:
        return lambda world: WORLDS[int(world)][slot].ctypes.data

    @intrinsic
    def base(typing_context, world):
        def codegen(context, builder, signature, args):
            address = builder.add(args[0], ir.Constant(_i64, 16 * slot))
            return builder.load(builder.inttoptr(address, _i64.as_pointer()))

        return types.int64(types.int64), codegen

    return base


if JIT:
    load8, load32, load64 = _native_load(8, "acquire"), _native_load(32, "acquire"), _native_load(64, "acquire")
    store8, store32, store64 = (_native_store(8, "release"), _native_store(32, "release"), _native_store(64, "release"))
    copy_bytes, fill_bytes, call = _native_copy, _native_fill, _native_call
    process_vm_readv, process_vm_writev = _native_vm("process_vm_readv"), _native_vm("process_vm_writev")
    pread, pwrite = _native_pio("pread"), _native_pio("pwrite")
else:
    load8, load32, load64 = _python_load(8), _python_load(32), _python_load(64)
    store8, store32, store64 = _python_store(8), _python_store(32), _python_store(64)
    copy_bytes, fill_bytes, call = _python_copy, _python_fill, _python_call
    process_vm_readv, process_vm_writev = _python_vm("process_vm_readv"), _python_vm("process_vm_writev")

    def pread(fd: int, address: int, length: int, offset: int) -> int:
        return _libc.pread(int(fd), int(address), int(length), int(offset))

    def pwrite(fd: int, address: int, length: int, offset: int) -> int:
        return _libc.pwrite(int(fd), int(address), int(length), int(offset))
