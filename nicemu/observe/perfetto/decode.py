"""Reading a Perfetto trace back: the events of the run, which are the packets with a category.

``perfetto``, the Python package, has the messages; it is imported when a trace is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nicemu.config.errors import ConfigError

LONGEST_PACKET = 1 << 24


def packets(path: Path) -> Iterator[Any]:
    """The ``TracePacket`` messages of a file, one at a time; a last one that is cut off is left out.

    :raises ConfigError: it is no Perfetto trace.
    """
    kind = importlib.import_module("perfetto.protos.perfetto.trace.perfetto_trace_pb2").TracePacket
    with path.open("rb") as stream:
        while head := stream.read(1):
            size = _length(stream) if head == b"\x0a" else LONGEST_PACKET + 1
            if size > LONGEST_PACKET:
                raise ConfigError(f"{path}: expected a Perfetto trace, given other bytes at {stream.tell() - 1}")
            data = stream.read(size)
            if len(data) < size:
                return
            yield kind.FromString(data)


def _length(stream: BinaryIO) -> int:
    """A varint; at the end of the file what there is of it."""
    value = shift = 0
    while byte := stream.read(1):
        value |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    return value


class Names:
    """What the packets so far say of strings and tracks."""

    def __init__(self) -> None:
        self.strings: dict[int, str] = {}
        self.who: dict[int, str] = {}

    def learn(self, packet: Any) -> None:
        """Take note of a packet that is no event."""
        for entry in packet.interned_data.event_names:
            self.strings[entry.iid] = entry.name
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            if track.HasField("process"):
                name = track.process.process_name.partition(" ")[0]
                self.who[track.uuid] = name if name.startswith("nic") else "host"
            else:
                self.who[track.uuid] = self.who.get(track.parent_uuid, "host")

    def value(self, annotation: Any) -> int | str:
        """Value of a field."""
        if annotation.HasField("string_value_iid"):
            return self.strings[annotation.string_value_iid]
        value: int = annotation.int_value
        return value


def events(path: Path) -> Iterator[tuple[int, str, str, dict[str, int | str]]]:
    """(time ns, who, event, fields) of each event, in their order."""
    names = Names()
    for packet in packets(path):
        if not packet.HasField("track_event"):
            names.learn(packet)
            continue
        event = packet.track_event
        if event.category_iids:
            fields = {names.strings[a.name_iid]: names.value(a) for a in event.debug_annotations}
            yield packet.timestamp, names.who[event.track_uuid], names.strings[event.category_iids[0]], fields
