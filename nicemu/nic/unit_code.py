"""The machine code of the engine's units in this process: loaded from the cache, or compiled when first used.

For a unit that the cache lacks, the handler vector holds a stub: Python code that compiles the unit, puts it into the
cache and into the vector, and runs it. The history does not see the difference.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from nicemu import _jit
from nicemu._jit import object_code
from nicemu._jit.foreign import expose, signals_wait, unit_at
from nicemu.nic.dispatch import UNITS
from nicemu.tables import records, units
from nicemu.tables.world import Slot

NAMES = {number: name for name, number in vars(units).items() if isinstance(number, int)}
_loaded: dict[int, int] = {}
"""Code addresses of units by number; once there are all, nothing is looked up any more."""
_compiling = threading.RLock()


def load_units() -> dict[int, int]:
    """What the handler vector starts with: the code address of each unit, or of its stub."""
    return {number: _code(number) or _stub(number)[0] for number in UNITS}


def missing() -> list[int]:
    """The units whose code the cache lacks."""
    return [number for number, function in UNITS.items() if not object_code.has_unit(function)] if _jit.JIT else []


def code_text() -> str:
    """Where the engine's code came from in this process: ``31 functions from the cache, 0 compiled, 24 units not needed
    yet``."""
    if not _jit.JIT:
        return f"{len(UNITS)} units in plain Python"
    work, left = object_code.work[_jit.kernel_digest()], len(UNITS) - len(_loaded)
    later = f", {left} {'unit' if left == 1 else 'units'} not needed yet" if left else ""
    return f"{work.cached} functions from the cache, {work.compiled} compiled{later}"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time fills the cache; the others wait, and find what it compiled.

    :raises OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the file open, too


def _code(number: int) -> int:
    """The code address of a unit that needs no compiling, else 0."""
    if number not in _loaded and (not _jit.JIT or object_code.has_unit(UNITS[number])):
        _loaded[number] = _jit.install(UNITS[number])
    return _loaded.get(number, 0)


@functools.cache
def _stub(number: int) -> tuple[int, object]:
    """A code address that stands for a unit, and what lives as long as that."""

    def first_use(world: int, a: int, b: int) -> int:
        with signals_wait():
            try:
                address = _compiled(number)
            except BaseException:
                traceback.print_exc()
                _trap(world, number)
                return 0
            _word(_word(world + 16 * Slot.VECTOR).value + number * records.VECTOR.itemsize).value = address
            return unit_at(address)(world, a, b)

    return expose(first_use)


def _compiled(number: int) -> int:
    """The code address of a unit, compiled unless another process or thread did."""
    with _compiling, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then it is compiled for this process only
            stack.enter_context(alone(object_code.folder_of(None)))
        if not _code(number):
            print(f"nicemu: {NAMES[number]} is used for the first time: compiling it", file=sys.stderr, flush=True)
            _loaded[number] = _jit.install(UNITS[number])
        return _loaded[number]


def _word(address: int) -> ctypes.c_int64:
    return ctypes.c_int64.from_address(address)


def _trap(world: int, number: int) -> None:
    """There is no such unit: the run ends, and says so."""
    control, fields = _word(world + 16 * Slot.CONTROL).value, records.CONTROL.fields
    _word(control + fields["trap"][1]).value = int(records.Trap.BAD_UNIT)
    _word(control + fields["trap_row"][1]).value = number
