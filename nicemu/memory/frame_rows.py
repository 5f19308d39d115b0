"""Passes over many FRAME rows: a batch's lives begin and end, its references and stamps change.

``frames`` are ids, distinct but for :func:`put`. One page at a time is quicker in Python, which writes a row in one go.
The kernels get addresses of contiguous int64 arrays.
"""

from __future__ import annotations

import numpy as np

from nicemu._jit import entry, jit, load64, store64
from nicemu.tables.records import FrameKind
from nicemu.tables.rows import frame, frame_stamp
from nicemu.tables.world import World

FREE, MODEL = int(FrameKind.FREE), int(FrameKind.MODEL)


def begin(world: World, frames: np.ndarray, values: np.ndarray, kind: int) -> None:
    """A new life with one reference each. ``values``: pointers and slots."""
    begin_rows(world.address, _words(frames), _words(values), len(frames), kind)


def end(world: World, frames: np.ndarray, graveyard: int, slots: np.ndarray) -> int:
    """The lives end: pointers go to the graveyard, generations move on. ``slots`` gets the slots of model frames; the
    answer says how many."""
    return end_rows(world.address, _words(frames), _words(slots), len(frames), graveyard)


def put(world: World, frames: np.ndarray, unused: np.ndarray) -> int:
    """Drop a reference of each; ``unused`` gets those whose last it was, the answer says how many. -1: one had none."""
    return put_rows(world.address, _words(frames), _words(unused), len(frames))


def map_new(world: World, frames: np.ndarray, numbers: np.ndarray, mapping: int, shift: int) -> None:
    """New pages, mapped once: their anon_vma and their place in it, page number plus ``shift``."""
    map_rows(world.address, _words(frames), _words(numbers), len(frames), mapping, shift)


def _words(array: np.ndarray) -> int:
    """Address of an array that kernels take for consecutive int64."""
    assert array.dtype == np.int64 and array.flags.c_contiguous, f"{array.dtype} {array.strides}"
    address: int = array.ctypes.data
    return address


@jit
def nth(array, i):
    """Word ``i`` of an array."""
    return load64(array + 8 * i)


@jit
def forget(world, i):
    """Stamps of an earlier life go. What is zero is not written: it may never have been committed."""
    s = frame_stamp(world, i)
    if s.invalidated | s.protected:
        s.invalidated = s.protected = s.operation = 0


@entry("void(int64, int64, int64, int64, int64)")
def begin_rows(world, frames, values, count, kind):
    """:func:`begin`."""
    for i in range(count):
        f = frame(world, nth(frames, i))
        f.pointer = nth(values, i)
        f.slot = nth(values, count + i)
        f.refcount = 1
        f.kind = kind
        f.va = f.mapcount = f.address_space = f.flags = 0
        f.generation += 1
        forget(world, nth(frames, i))


@entry("int64(int64, int64, int64, int64, int64)")
def end_rows(world, frames, slots, count, graveyard):
    """:func:`end`."""
    given = 0
    for i in range(count):
        f = frame(world, nth(frames, i))
        if f.kind == MODEL:
            store64(slots + 8 * given, f.slot)
            given += 1
        f.pointer = graveyard
        f.generation += 1
        f.kind = FREE
    return given


@entry("int64(int64, int64, int64, int64)")
def put_rows(world, frames, unused, count):
    """:func:`put`."""
    given = 0
    for i in range(count):
        f = frame(world, nth(frames, i))
        f.refcount -= 1
        if f.refcount == 0:
            store64(unused + 8 * given, nth(frames, i))
            given += 1
        elif f.refcount < 0:
            return -1
    return given


@entry("void(int64, int64, int64, int64, int64, int64)")
def map_rows(world, frames, numbers, count, mapping, shift):
    """:func:`map_new`."""
    for i in range(count):
        f = frame(world, nth(frames, i))
        f.mapcount = 1
        f.address_space = mapping
        f.va = nth(numbers, i) + shift
