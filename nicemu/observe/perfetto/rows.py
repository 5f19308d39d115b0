# mypy: ignore-errors
"""Rows of the trace table as events: values of their fields, their names, the packet that stands for one."""

from nicemu._jit import jit, load64, store8, store32
from nicemu.observe.perfetto.proto import (
    CATEGORY,
    END,
    NAME_IID,
    close_event,
    field,
    open_event,
    put_annotation,
    put_decimal,
    put_flow,
    put_text,
)
from nicemu.observe.perfetto.state import named, names_field, scribe, shape
from nicemu.tables.trace import TRACE_WORDS, WORDS_AT

ROW_BYTES = 8 * (WORDS_AT + TRACE_WORDS)
WHOLE, LOW, HIGH = 0, 1, 2


@jit
def word(world, r, k):
    """Word ``k`` of the event in row ``r``; from the fifth on they stand in the rows behind it."""
    row = scribe(world, 0).rows + (r + k // TRACE_WORDS) * ROW_BYTES
    return load64(row + 8 * (WORDS_AT + k % TRACE_WORDS))


@jit
def time_of(world, r):
    """When the event in row ``r`` happened, ns."""
    return load64(scribe(world, 0).rows + r * ROW_BYTES)


@jit
def low(value):
    """The first of two values in a word."""
    return value & 0xFFFFFFFF


@jit
def high(value):
    """The second of two values in a word."""
    return value >> 32


@jit
def value_of(world, r, f):
    """Value of a field."""
    value = word(world, r, f.word)
    if f.part == LOW:
        return low(value)
    return high(value) if f.part == HIGH else value


@jit
def iid_of(world, f, value):
    """The string that names a field's value, 0: there is none."""
    if f.text:
        return value
    return named(world, f.names + value).iid if 0 <= value < f.named else 0


@jit
def shown(world, r, sh):
    """iid of what an event is shown as."""
    if sh.name_field == 0:
        return sh.name
    f = names_field(world, sh.name_field)
    found = iid_of(world, f, value_of(world, r, f))
    return found if found else sh.name


@jit
def begin_raw(world, r, kind, track):
    """The packet of the event in row ``r``, without its name."""
    row = scribe(world, 0).rows + r * ROW_BYTES
    at = open_event(world, load64(row), kind, track)
    return field(at, CATEGORY, shape(world, load64(row + 16)).category)


@jit
def shape_of(world, r):
    """Row of SHAPE of the event in row ``r``."""
    return load64(scribe(world, 0).rows + r * ROW_BYTES + 16)


@jit
def end_raw(world, r, at, flow):
    """Flow and fields of the event in row ``r``; its packet is complete."""
    at = put_flow(at, flow)
    sh = shape(world, shape_of(world, r))
    for k in range(sh.first, sh.first + sh.fields):
        f = names_field(world, k)
        value = value_of(world, r, f)
        iid = iid_of(world, f, value)
        at = put_annotation(at, f.name, iid != 0, iid if iid != 0 else value)
    close_event(world, at)


@jit
def raw(world, r, kind, track, flow):
    """The whole packet of the event in row ``r``."""
    at = begin_raw(world, r, kind, track)
    if kind != END:
        at = field(at, NAME_IID, shown(world, r, shape(world, shape_of(world, r))))
    end_raw(world, r, at, flow)


@jit
def open_name(at):
    """A name that is put together: where its characters go."""
    store32(at, 0x01BA)
    return at + 3


@jit
def close_name(start, at):
    """The name is complete."""
    store8(start - 1, at - start)
    return at


@jit
def put_size(world, at, size, units):
    """`` 64 KiB``; ``units``: iid of the first of `` B``, `` KiB``, `` MiB``, `` GiB``."""
    k = 0
    while k < 3 and size >= 1024 and size % 1024 == 0:
        size >>= 10
        k += 1
    store8(at, 32)
    at = put_decimal(at + 1, size)
    return put_text(world, at, units + k)
