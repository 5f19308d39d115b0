"""Passes over many FRAME rows: a batch's lives begin and end, its references and stamps change.

``table`` is the FRAME table as (rows, fields) of int64; ``frames`` are ids, distinct but for :func:`put`. One page at a
time is quicker in Python, which writes a row in one go. The kernels get addresses of contiguous int64 arrays.
"""

from __future__ import annotations

import numpy as np

from nicemu._jit import entry, fill_bytes, jit, load64, store64
from nicemu.tables.records import FRAME, FrameKind

POINTER, GENERATION, KIND, SLOT, REFCOUNT, MAPCOUNT, ADDRESS_SPACE, VA, CANONICAL = (
    8 * FRAME.names.index(name)
    for name in ("pointer", "generation", "kind", "slot", "refcount", "mapcount", "address_space", "va", "canonical")
)
"""Byte offsets in a row."""
ROW_BYTES = FRAME.itemsize
FREE, MODEL = int(FrameKind.FREE), int(FrameKind.MODEL)


def begin(table: np.ndarray, frames: np.ndarray, values: np.ndarray, kind: int) -> None:
    """A new life with one reference each. ``values``: pointers, slots and canonical names."""
    begin_rows(_words(table), _words(frames), _words(values), len(frames), kind)


def end(table: np.ndarray, frames: np.ndarray, graveyard: int, slots: np.ndarray) -> int:
    """The lives end: pointers go to the graveyard, generations move on. ``slots`` gets the slots of model frames; the
    answer says how many."""
    return end_rows(_words(table), _words(frames), _words(slots), len(frames), graveyard)


def put(table: np.ndarray, frames: np.ndarray, unused: np.ndarray) -> int:
    """Drop a reference of each; ``unused`` gets those whose last it was, the answer says how many. -1: one had none."""
    return put_rows(_words(table), _words(frames), _words(unused), len(frames))


def map_new(table: np.ndarray, frames: np.ndarray, numbers: np.ndarray, mapping: int, shift: int) -> None:
    """New pages, mapped once: their anon_vma and their place in it, page number plus ``shift``."""
    map_rows(_words(table), _words(frames), _words(numbers), len(frames), mapping, shift)


def _words(array: np.ndarray) -> int:
    """Address of an array that kernels take for consecutive int64."""
    assert array.dtype == np.int64 and array.flags.c_contiguous, f"{array.dtype} {array.strides}"
    address: int = array.ctypes.data
    return address


@jit
def nth(array, i):
    """Word ``i`` of an array."""
    return load64(array + 8 * i)


@entry("void(int64, int64, int64, int64, int64)")
def begin_rows(table, frames, values, count, kind):
    """:func:`begin`."""
    for i in range(count):
        row = table + nth(frames, i) * ROW_BYTES
        generation = load64(row + GENERATION) + 1
        fill_bytes(row, 0, ROW_BYTES)
        store64(row + GENERATION, generation)
        store64(row + KIND, kind)
        store64(row + REFCOUNT, 1)
        store64(row + POINTER, nth(values, i))
        store64(row + SLOT, nth(values, count + i))
        store64(row + CANONICAL, nth(values, 2 * count + i))


@entry("int64(int64, int64, int64, int64, int64)")
def end_rows(table, frames, slots, count, graveyard):
    """:func:`end`."""
    given = 0
    for i in range(count):
        row = table + nth(frames, i) * ROW_BYTES
        if load64(row + KIND) == MODEL:
            store64(slots + 8 * given, load64(row + SLOT))
            given += 1
        store64(row + POINTER, graveyard)
        store64(row + GENERATION, load64(row + GENERATION) + 1)
        store64(row + KIND, FREE)
    return given


@entry("int64(int64, int64, int64, int64)")
def put_rows(table, frames, unused, count):
    """:func:`put`."""
    given = 0
    for i in range(count):
        row = table + nth(frames, i) * ROW_BYTES
        left = load64(row + REFCOUNT) - 1
        store64(row + REFCOUNT, left)
        if left == 0:
            store64(unused + 8 * given, nth(frames, i))
            given += 1
        elif left < 0:
            return -1
    return given


@entry("void(int64, int64, int64, int64, int64, int64)")
def map_rows(table, frames, numbers, count, mapping, shift):
    """:func:`map_new`."""
    for i in range(count):
        row = table + nth(frames, i) * ROW_BYTES
        store64(row + MAPCOUNT, 1)
        store64(row + ADDRESS_SPACE, mapping)
        store64(row + VA, nth(numbers, i) + shift)
