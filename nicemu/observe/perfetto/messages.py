"""Protobuf in Python, for what a run writes once: strings and tracks (perfetto.protos TracePacket, InternedData,
TrackDescriptor, ProcessDescriptor, CounterDescriptor)."""

from __future__ import annotations

from collections.abc import Iterable

CLEARED, NEEDED = 1, 2
"""``TracePacket.SequenceFlags``: INCREMENTAL_STATE_CLEARED, NEEDS_INCREMENTAL_STATE."""
SEQUENCE = 1
STRING_TABLES = (1, 2, 3, 29)
"""InternedData: event_categories, event_names, debug_annotation_names, debug_annotation_string_values."""
EXPLICIT = 3


def varint(value: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value)


def message(field: int, body: bytes | str) -> bytes:
    """A field of bytes: a message or a string."""
    data = body.encode() if isinstance(body, str) else body
    return varint(field << 3 | 2) + varint(len(data)) + data


def packet(body: bytes, flags: int = NEEDED) -> bytes:
    """A packet of the trace."""
    return message(1, number(10, SEQUENCE) + number(13, flags) + body)


def strings(new: Iterable[tuple[int, str]]) -> bytes:
    """InternedData: each string in each table, so that an iid means the same everywhere."""
    entries = [(iid, number(1, iid) + message(2, text)) for iid, text in new]
    return message(12, b"".join(message(table, entry) for table in STRING_TABLES for _, entry in entries))


def process(uuid: int, name: str, rank: int) -> bytes:
    """A process: a group of tracks. Its pid is its uuid."""
    described = number(1, uuid) + message(6, name) + number(3, rank)
    return packet(message(60, number(1, uuid) + number(11, EXPLICIT) + message(3, described)))


def track(uuid: int, parent: int, name: str, rank: int) -> bytes:
    """A track below another."""
    body = number(1, uuid) + number(5, parent) + message(2, name) + number(12, rank) + number(11, EXPLICIT)
    return packet(message(60, body))


def counter(uuid: int, parent: int, name: str, rank: int) -> bytes:
    """A counter's track."""
    body = number(1, uuid) + number(5, parent) + message(2, name) + number(12, rank) + message(8, b"")
    return packet(message(60, body))
