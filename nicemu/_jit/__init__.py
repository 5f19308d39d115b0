"""What kernels are made with: the decorators, the intrinsics and the machine code of both, without importing numba.

Compiled code sees the *world* as one ``int64``: the address of a table of (base, count) pairs, one pair per record
table (:mod:`nicemu.tables`). Three kinds of kernels:

``jit``    a helper, compiled into whoever calls it.
``unit``   an engine unit or firmware hook, ``int64 f(int64, int64, int64)``: compiled and cached by itself
           (:func:`install`), called by code address through :func:`call`.
``entry``  a kernel that Python calls.

Machine code comes from the cache (:mod:`nicemu._jit.object_code`). What is not in it LLVM makes
(:mod:`nicemu._jit.back_end`), of what a release brought along (:mod:`nicemu._jit.lowered`) or, else, of what numba
makes of the sources (:mod:`nicemu._jit.compile`). With ``NUMBA_DISABLE_JIT=1`` the same sources run as plain Python
(:mod:`nicemu._jit.twins`): a unit's "address" is then an index into a list.

Limits: a unit must not raise (it would print and return 0): it traps.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nicemu._jit import object_code, twins
from nicemu._jit.object_code import cache_root, kernel_digest
from nicemu._jit.twins import PYTHON_UNITS, WORLDS

__all__ = [
    "JIT", "WORLDS", "Kernel", "Native", "base_accessor", "cache_root", "call", "cold", "copy_bytes", "entry",
    "fill_bytes", "install", "jit", "kernel_digest", "load8", "load32", "load64", "pread", "process_vm_readv",
    "process_vm_writev", "pwrite", "row_accessor", "store8", "store32", "store64",
]  # fmt: skip

JIT = not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)
TRAPPED = -1
"""Status of a function that met an index out of range: it and all its callers end. Numba's for a Python exception that
is already set, so that a kernel that Python calls through numba ends in SystemError."""


class Kernel:
    """A function for compiled code. Numba takes it for the dispatcher of that function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function

    @functools.cached_property
    def dispatcher(self) -> Any:
        """What compiled callers call."""
        return importlib.import_module("nicemu._jit.compile").callee(self.py_func)

    @functools.cached_property
    def _callable(self) -> Callable[..., Any]:
        made: Callable[..., Any] = importlib.import_module("nicemu._jit.compile").callable_from_python(self.py_func)
        return made

    def __call__(self, *args: Any) -> Any:
        """Call it from Python (tests): compiled in this process, never cached."""
        return self._callable(*args)


class Native:
    """An intrinsic: ``module.name`` makes its LLVM code, of ``parameters`` if there are any."""

    def __init__(self, module: str, name: str, *parameters: Any) -> None:
        self.module, self.name, self.parameters = module, name, parameters

    @functools.cached_property
    def intrinsic(self) -> Any:
        """Numba's object."""
        made = getattr(importlib.import_module(self.module), self.name)
        return made(*self.parameters) if self.parameters else made


def jit(function: Callable[..., Any]) -> Any:
    """A helper, compiled into whoever calls it."""
    return Kernel(function) if JIT else function


COLD: set[str] = set()
"""How numba's names of functions begin that are rarely called."""


def cold(function: Callable[..., Any]) -> Any:
    """A helper that is rarely called: it stays a function of its own, and the way to it is laid out last."""
    parts = [*function.__module__.split("."), function.__qualname__]
    COLD.add("_ZN" + "".join(f"{len(part)}{part}" for part in parts) + "B")
    return jit(function)


def entry(signature: str, folder: Path | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A kernel called from Python, compiled at its first call and cached until any kernel source changes.

    ``signature``: ``"int64(int64, ...)"`` or ``"void(...)"``, all arguments int64. ``folder``: where its own sources
    lie, if outside the package's kernels.
    """
    returns, _, arguments = signature.rstrip(")").partition("(")
    count = arguments.count("int64")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not JIT:
            return twins.entry(function)
        compiled: list[Callable[..., Any]] = []

        def call_entry(*args: int) -> Any:
            return load()(*args)

        def load() -> Callable[..., Any]:
            """The compiled function itself, for callers in a loop."""
            if not compiled:
                cache = object_code.folder_of(folder)
                address = object_code.address_of(function, cache, count, returns == "int64", python=True)
                compiled.append(object_code.builtin(function.__name__, address))
            return compiled[0]

        call_entry.load = load  # type: ignore[attr-defined]
        call_entry.kernel = function, count, returns == "int64"  # type: ignore[attr-defined]
        call_entry.__doc__ = function.__doc__
        return call_entry

    return decorate


_installed: dict[Any, int] = {}


def install(function: Callable[..., Any], folder: str | None = None) -> int:
    """The code address of ``int64 f(int64, int64, int64)``, compiled unless the cache has it; without JIT its index.

    ``folder`` names the cache folder; firmware images pass the digest of their own file.
    """
    key = (function, folder)
    if key not in _installed:
        if JIT:
            cache = cache_root() / (folder or kernel_digest())
            _installed[key] = object_code.address_of(function, cache, 3, True)
        else:
            PYTHON_UNITS.append(function)
            _installed[key] = len(PYTHON_UNITS) - 1
    return _installed[key]


def row_accessor(dtype: np.dtype, slot: int, trap_offset: int | None) -> Callable[..., Any]:
    """``row(world, index)``: the row of the table in ``slot``. An index out of range sets the trap word and ends the
    unit or kernel, which answers 0: what follows knows that the row is there, and looks it up once.

    ``trap_offset`` is the byte offset of the trap code in row 0 of table 0 (the control record); the code stored is
    ``slot + 1``, the index goes into the next word. None: compiled code trusts the index.
    """
    if not JIT:
        return twins.row(dtype, slot)
    return Native("nicemu._jit.intrinsics", "row", dtype, slot, trap_offset)  # type: ignore[return-value]


def base_accessor(slot: int) -> Callable[..., Any]:
    """``base(world)``: the address of row 0 of a bulk table (int64)."""
    return twins.base(slot) if not JIT else Native("nicemu._jit.intrinsics", "base", slot)  # type: ignore[return-value]


def _native(name: str, *parameters: Any) -> Any:
    return Native("nicemu._jit.intrinsics", name, *parameters)


if JIT:
    load8, load32, load64 = (_native("load", bits, "unordered") for bits in (8, 32, 64))
    acquire64 = _native("load", 64, "acquire")
    store8, store32, store64 = (_native("store", bits, "release") for bits in (8, 32, 64))
    copy_bytes, fill_bytes, call = _native("copy_bytes"), _native("fill_bytes"), _native("call")
    lowest_bit = _native("lowest_bit")
    process_vm_readv, process_vm_writev = (_native("process_vm", f"process_vm_{name}") for name in ("readv", "writev"))
    pread, pwrite = _native("file_access", "pread"), _native("file_access", "pwrite")
else:
    load8, load32, load64 = (twins.load(bits) for bits in (8, 32, 64))
    acquire64 = load64
    store8, store32, store64 = (twins.store(bits) for bits in (8, 32, 64))
    copy_bytes, fill_bytes, call, lowest_bit = twins.copy_bytes, twins.fill_bytes, twins.call, twins.lowest_bit
    process_vm_readv, process_vm_writev = (twins.process_vm(f"process_vm_{name}") for name in ("readv", "writev"))
    pread, pwrite = twins.pread, twins.pwrite
