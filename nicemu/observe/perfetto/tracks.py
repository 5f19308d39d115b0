# mypy: ignore-errors
"""Tracks that come up as they are needed, lanes, slices and counters."""

from nicemu._jit import jit, lowest_bit, store8, store32, store64
from nicemu.observe.perfetto.proto import (
    COUNTER,
    END,
    close_event,
    field,
    open_event,
    put,
    put_decimal,
    put_length,
    put_text,
)
from nicemu.observe.perfetto.state import LANES, counter, scribe
from nicemu.observe.perfetto.words import Gauge

NEW_TRACK = int.from_bytes(bytes((0x0A, 0x80, 0, 0x50, 1, 0xE2, 3, 0x80)), "little", signed=True)
"""Trace.packet, its length; trusted_packet_sequence_id 1; track_descriptor and the first byte of its length."""
UUID, PARENT, RANK, ORDER, TRACK_NAME = 0x08, 0x28, 0x60, 0x58, 0x12
EXPLICIT = 3
COUNTER_INTERVAL_NS = 1000
"""A counter that changes all the time is told so often."""
ALL_BUSY, LAST_BIT = -1, -(1 << 63)
GAUGES = len(Gauge)


@jit
def new_track(world, parent, iid, number, rank):
    """A track below ``parent``, called by a string and, if it is not negative, a number; its uuid."""
    s = scribe(world, 0)
    start = s.at
    store64(start, NEW_TRACK)
    store8(start + 8, 0)
    body = start + 9
    at = field(body, UUID, s.tracks)
    at = field(at, PARENT, parent)
    at = field(at, RANK, rank)
    at = field(at, ORDER, EXPLICIT)
    store8(at, TRACK_NAME)
    name = at + 2
    at = put_text(world, name, iid)
    if number >= 0:
        at = put_decimal(at, number)
    store8(name - 1, at - name)
    put_length(body - 2, at - body)
    put_length(start + 1, at - start - 3)
    s.at = at
    s.tracks += 1
    return s.tracks - 1


@jit
def bit(k):
    """The bit of a lane in a word of lanes."""
    return 1 << k if k < LANES - 1 else LAST_BIT


@jit
def lowest_free(lanes):
    """The lowest lane that is not in use, -1: none."""
    return -1 if lanes == ALL_BUSY else lowest_bit(~lanes)


@jit
def end_slice(world, time, track):
    """The innermost slice of a track ends; nothing but the picture needs it."""
    close_event(world, open_event(world, time, END, track))


@jit
def gauge(nic_number, kind):
    """Row of COUNTER of a NIC's counter."""
    return nic_number * GAUGES + kind


@jit
def put_counter(world, time, row):
    """The present value of a counter."""
    c = counter(world, row)
    at = open_event(world, time, COUNTER, c.track)
    store32(at, 0x01F0)
    close_event(world, put(at + 2, c.value))
    c.due = time + COUNTER_INTERVAL_NS
    c.stale = 0


@jit
def count(world, time, row, change):
    """A counter changes; it is told now, or with a change a little later if it was told just before."""
    c = counter(world, row)
    c.value += change
    if time >= c.due:
        put_counter(world, time, row)
    else:
        c.stale = 1
