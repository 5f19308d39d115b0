"""Python functions where compiled code expects an address, and compiled code as a Python function."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Callable, Iterator

from nicemu._jit import JIT
from nicemu._jit.guard import SIGNALS
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


SOON = 0.02
"""Seconds: an exposed function has returned by then, and whoever waits for Python's lock gets it later anyway."""


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Meanwhile no handler of the program's runs: what it raises in an exposed function would be lost. Signals that
    came are sent again when compiled code has returned."""
    if threading.current_thread() is not threading.main_thread():  # handlers run nowhere else
        yield
        return
    came: list[int] = []
    mine = {each: signal.getsignal(each) for each in signal.valid_signals() - set(SIGNALS)}
    mine = {each: handler for each, handler in mine.items() if callable(handler)}
    for each in mine:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in mine.items():
            signal.signal(each, handler)
        for number in came:
            threading.Timer(SOON, signal.pthread_kill, (threading.get_ident(), number)).start()
