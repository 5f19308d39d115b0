"""Python functions where compiled code expects an address, and compiled code as a Python function."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from nicemu._jit import JIT
from nicemu._jit.twins import PYTHON_UNITS

Unit = Callable[[int, int, int], int]
_UNIT = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_alive: list[object] = []


def expose(function: Unit) -> int:
    """A code address that ends up in ``function``, for as long as the process lives. It must not raise."""
    if not JIT:
        PYTHON_UNITS.append(function)
        return len(PYTHON_UNITS) - 1
    thunk = _UNIT(function)
    _alive.append(thunk)
    return ctypes.cast(thunk, ctypes.c_void_p).value or 0


def unit_at(address: int) -> Unit:
    """The unit at a code address."""
    return _UNIT(address) if JIT else PYTHON_UNITS[address]
