"""Python functions where compiled code expects an address, and compiled code as a Python function."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from nicemu._jit import JIT
from nicemu._jit.twins import PYTHON_UNITS

Unit = Callable[[int, int, int], int]
_UNIT = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def expose(function: Unit) -> tuple[int, object]:
    """A code address that ends up in ``function``, which must not raise; and what has to live as long as that."""
    if not JIT:
        PYTHON_UNITS.append(function)
        return len(PYTHON_UNITS) - 1, function
    thunk = _UNIT(function)
    return ctypes.cast(thunk, ctypes.c_void_p).value or 0, thunk


def unit_at(address: int) -> Unit:
    """The unit at a code address."""
    return _UNIT(address) if JIT else PYTHON_UNITS[address]
