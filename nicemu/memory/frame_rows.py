"""Passes over many FRAME rows: a batch's lives begin and end, its references and stamps change.

``table`` is the FRAME table as (rows, fields) of int64; ``frames`` are ids, distinct but for :func:`put`. One page at a
time is quicker in Python, which writes a row in one go.
"""

from nicemu._jit import entry
from nicemu.tables.records import FRAME, FrameKind

POINTER, GENERATION, KIND, SLOT, REFCOUNT, MAPCOUNT, ADDRESS_SPACE, VA, CANONICAL = (
    FRAME.names.index(name)
    for name in ("pointer", "generation", "kind", "slot", "refcount", "mapcount", "address_space", "va", "canonical")
)
FREE, MODEL = int(FrameKind.FREE), int(FrameKind.MODEL)


@entry("void(int64[:,::1], int64[::1], int64[:,::1], int64)")
def begin(table, frames, values, kind):
    """A new life with one reference each. ``values``: pointers, slots and canonical names."""
    for i in range(len(frames)):
        f = frames[i]
        generation = table[f, GENERATION] + 1
        table[f, :] = 0
        table[f, GENERATION] = generation
        table[f, KIND] = kind
        table[f, REFCOUNT] = 1
        table[f, POINTER] = values[0, i]
        table[f, SLOT] = values[1, i]
        table[f, CANONICAL] = values[2, i]


@entry("int64(int64[:,::1], int64[::1], int64, int64[::1])")
def end(table, frames, graveyard, slots):
    """The lives end: pointers go to the graveyard, generations move on. ``slots`` gets the slots of model frames; the
    answer says how many."""
    count = 0
    for f in frames:
        if table[f, KIND] == MODEL:
            slots[count] = table[f, SLOT]
            count += 1
        table[f, POINTER] = graveyard
        table[f, GENERATION] += 1
        table[f, KIND] = FREE
    return count


@entry("int64(int64[:,::1], int64[::1], int64[::1])")
def put(table, frames, unused):
    """Drop a reference of each; ``unused`` gets those whose last it was, the answer says how many. -1: one had none."""
    count = 0
    for f in frames:
        table[f, REFCOUNT] -= 1
        if table[f, REFCOUNT] == 0:
            unused[count] = f
            count += 1
        elif table[f, REFCOUNT] < 0:
            return -1
    return count


@entry("void(int64[:,::1], int64[::1], int64[::1], int64, int64)")
def map_new(table, frames, numbers, mapping, shift):
    """New pages, mapped once: their anon_vma and their place in it, page number plus ``shift``."""
    for i in range(len(frames)):
        f = frames[i]
        table[f, MAPCOUNT] = 1
        table[f, ADDRESS_SPACE] = mapping
        table[f, VA] = numbers[i] + shift
