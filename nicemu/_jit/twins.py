"""Python twins of the intrinsics, for ``NUMBA_DISABLE_JIT=1``: each does what its namesake in ``intrinsics`` does."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

PYTHON_UNITS: list[Callable] = [lambda a, b, c: 0]
"""What a unit's "address" is an index into."""
WORLDS: dict[int, list[np.recarray]] = {}
"""Tables by the address that kernels get."""
_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("pread", "pwrite"):
    getattr(_libc, _name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
    getattr(_libc, _name).restype = ctypes.c_ssize_t


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def process_vm(name: str) -> Callable[[int, int, int, int], int]:
    function = getattr(_libc, name, None)

    def access(pid: int, local: int, remote: int, length: int) -> int:
        if function is None:
            return -1
        here, there = _Iovec(int(local), int(length)), _Iovec(int(remote), int(length))
        return function(
            int(pid), ctypes.byref(here), ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1), ctypes.c_ulong(0)
        )

    if function is not None:
        function.restype = ctypes.c_ssize_t
    return access


_CTYPES = {8: ctypes.c_uint8, 32: ctypes.c_uint32, 64: ctypes.c_int64}


def load(bits: int) -> Callable[[int], int]:
    kind = _CTYPES[bits]
    return lambda address: kind.from_address(int(address)).value


def store(bits: int) -> Callable[[int, int], None]:
    kind, mask = _CTYPES[bits], (1 << bits) - 1

    def write(address: int, value: int) -> None:
        kind.from_address(int(address)).value = int(value) & mask

    return write


def copy_bytes(destination: int, source: int, length: int) -> None:
    ctypes.memmove(int(destination), int(source), int(length))


def lowest_bit(word: int) -> np.int64:
    return np.int64((int(word) & -int(word)).bit_length() - 1)


def fill_bytes(destination: int, value: int, length: int) -> None:
    ctypes.memset(int(destination), int(value) & 0xFF, int(length))


class OutOfRangeError(Exception):
    """A unit met an index out of range, and ends."""


def entry(function: Callable) -> Callable:
    """A unit or kernel as its caller knows it: one that met an index out of range answers 0."""

    @functools.wraps(function)
    def enter(*args: int) -> Any:
        try:
            return function(*args)
        except OutOfRangeError:
            return 0

    return enter


def call(address: int, a: int, b: int, c: int) -> int:
    try:
        return PYTHON_UNITS[int(address)](a, b, c)
    except OutOfRangeError:
        return 0


class _Row(np.record):
    """A row whose fields are int64, and come before numpy's own attributes of the same name (``base``, ``flags``)."""

    def __getattribute__(self, name: str) -> Any:
        fields = np.void.__getattribute__(self, "dtype").fields
        if name in fields:
            return np.int64(np.void.__getattribute__(self, "getfield")(*fields[name][:2]))
        return np.record.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """:raises OverflowError: the field is too narrow for the value."""
        np.record.__setattr__(self, name, int(value))


def pread(fd: int, address: int, length: int, offset: int) -> int:
    return _libc.pread(int(fd), int(address), int(length), int(offset))


def pwrite(fd: int, address: int, length: int, offset: int) -> int:
    return _libc.pwrite(int(fd), int(address), int(length), int(offset))


def row(dtype: np.dtype, slot: int) -> Callable:
    """``row(world, index)``; see :func:`nicemu._jit.row_accessor`."""
    row_dtype = np.dtype((_Row, dtype))

    def access(world: int, index: int) -> Any:
        table = WORLDS[int(world)][slot]
        if not 0 <= index < len(table):
            control = WORLDS[int(world)][0][0]
            control.trap, control.trap_row = slot + 1, index
            raise OutOfRangeError
        return table.view(row_dtype, np.ndarray)[int(index)]

    return access


def base(slot: int) -> Callable:
    """``base(world)``; see :func:`nicemu._jit.base_accessor`."""
    return lambda world: WORLDS[int(world)][slot].ctypes.data
