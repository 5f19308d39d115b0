# mypy: ignore-errors
"""Protobuf in compiled code: perfetto.protos TracePacket, TrackEvent, DebugAnnotation (field numbers of
trace_packet.proto, track_event.proto, debug_annotation.proto).

A function takes the host address to write at and gives the one behind what it wrote. Lengths of packets are two bytes
of varint, filled in at the end.
"""

from nicemu._jit import copy_bytes, jit, store8, store32, store64
from nicemu.observe.perfetto.state import scribe, text

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
"""``TrackEvent.Type``."""
HEAD = int.from_bytes(bytes((0x0A, 0x80, 0, 0x50, 1, 0x68, 2, 0x40)), "little", signed=True)
"""Trace.packet, its length; trusted_packet_sequence_id 1; sequence_flags NEEDS_INCREMENTAL_STATE; timestamp follows."""
TRACK_EVENT = 0x5A
TYPE, TRACK, NAME_IID, CATEGORY = 0x48, 0x58, 0x50, 0x18
SLACK = 16


@jit
def put(at, value):
    """A varint; negative numbers take ten bytes."""
    while value < 0 or value > 127:
        store8(at, value & 127 | 128)
        value = (value >> 7) & 0x01FFFFFFFFFFFFFF
        at += 1
    store8(at, value)
    return at + 1


@jit
def field(at, tag, value):
    """A varint field with a one-byte tag."""
    store8(at, tag)
    return put(at + 1, value)


@jit
def put_length(at, length):
    """A length of two bytes, whatever it is."""
    store8(at, length & 127 | 128)
    store8(at + 1, length >> 7)


@jit
def put_text(world, at, iid):
    """The characters of an interned string."""
    t = text(world, iid)
    copy_bytes(at, t.address, t.length)
    return at + t.length


@jit
def put_decimal(at, number):
    """A number in digits."""
    if number < 0:
        store8(at, 45)
        at += 1
        number = -number
    size = 1
    limit = 10
    while number >= limit and size < 18:
        size += 1
        limit *= 10
    for k in range(size):
        store8(at + size - 1 - k, 48 + number % 10)
        number //= 10
    return at + size


@jit
def open_event(world, time, kind, track):
    """A packet with a track event; the address for its further fields."""
    s = scribe(world, 0)
    at = s.at
    store64(at, HEAD)
    s.packet = at
    at = put(at + 8, time)
    store32(at, TRACK_EVENT)
    at += 3
    s.event = at
    at = field(at, TYPE, kind)
    return field(at, TRACK, track)


@jit
def close_event(world, at):
    """Fill in the lengths: the packet is complete."""
    s = scribe(world, 0)
    put_length(s.event - 2, at - s.event)
    put_length(s.packet + 1, at - s.packet - 3)
    s.at = at


@jit
def put_flow(at, flow):
    """A flow id (fixed64 flow_ids); 0: none."""
    if flow == 0:
        return at
    store32(at, 0x02F9)
    store64(at + 2, flow)
    return at + 10


@jit
def put_annotation(at, name, is_text, value):
    """A debug annotation: ``value`` is a number, or the iid of a string."""
    store8(at, 0x22)
    p = field(at + 2, 0x08, name)
    if is_text:
        store32(p, 0x0188)
        p = put(p + 2, value)
    else:
        p = field(p, 0x20, value)
    store8(at + 1, p - at - 2)
    return p
