"""The packet capture: CAPTURE rows as RoCEv2 frames in a pcapng file, an interface a link.

Stamps are virtual time: 0 ns is 1970-01-01 00:00 UTC. One seed gives one file, byte for byte.
"""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from nicemu.tables.records import CAPTURE, CAPTURED_BYTES
from nicemu.tables.world import World
from nicemu.wire.frame import Path
from nicemu.wire.ip import (
    CONGESTION_EXPERIENCED,
    V4_MAPPED,
    address_of_gid,
    flow_label_of,
    mac_of_guid,
    multicast_mac,
    source_port_of,
)
from nicemu.wire.opcode import Transport
from nicemu.wire.packet import flip, flip_raw, frame_of
from nicemu.wire.pcapng import PcapngWriter

Row = namedtuple("Row", CAPTURE.names or ())  # type: ignore[misc]
DEFAULT_HOP_LIMIT = 64
LINK_LOCAL = bytes.fromhex("fe80000000000000")
EPOCH = "virtual time: 0 ns is 1970-01-01 00:00 UTC"


def _gid(high: int, low: int) -> bytes:
    return b"".join((half & (1 << 64) - 1).to_bytes(8, "big") for half in (high, low))


class PacketCapture:
    """Writes packets to ``stream``. ``guids``: of the NICs in order; ``links``: number -> (name, description)."""

    def __init__(self, world: World, stream: BinaryIO, guids: Sequence[int], links: Mapping[int, tuple[str, str]],
                 fault_text: Callable[[int], str] = "injected fault {}".format) -> None:  # fmt: skip
        self.world, self.stream, self.guids, self.fault_text = world, stream, guids, fault_text
        self.writer = PcapngWriter(stream, "nicemu", EPOCH)
        self.interfaces = {number: self.writer.interface(*names) for number, names in links.items()}
        self.packets = 0
        self.pid = os.getpid()
        stream.flush()
        world.control[0].capture = 1

    def drain(self, world: World | None = None) -> None:
        """Write the rows that the engine left; the file is complete up to here."""
        control = self.world.control[0]
        count = int(control.capture_count)
        if not count or os.getpid() != self.pid:  # a forked child has a copy of the parent's rows
            return
        control.capture_count = 0
        payloads = memoryview(self.world.captured)
        for i, values in enumerate(self.world.capture[:count].tolist()):
            at = i * CAPTURED_BYTES
            self._write(Row(*values), payloads[at : at + values[_PAYLOAD]].tobytes())
        self.packets += count
        self.stream.flush()

    def _write(self, row: Any, payload: bytes) -> None:
        data = self._bytes(row, payload)
        comments = (self.fault_text(row.fault),) if row.fault else ()
        if row.link not in self.interfaces:
            self.interfaces[row.link] = self.writer.interface(f"link{row.link}", "")
        self.writer.packet(self.interfaces[row.link], row.time, data, comments)

    def _bytes(self, row: Any, payload: bytes) -> bytes:
        """What is on the wire: a raw frame is all payload."""
        if row.transport == Transport.RAW:
            return flip_raw(payload, row.corrupt - 1) if row.corrupt else payload
        frame = frame_of(row, self.path(row), payload)
        return flip(frame, row.corrupt - 1) if row.corrupt else frame.emit()

    def path(self, row: Any) -> Path:
        """How the packet is addressed: by the sender's address vector, else by what the NICs' GIDs are."""
        version, dest = self._dest(row)
        source = address_of_gid(_gid(row.sgid_high, row.sgid_low))
        if not (row.addressed and source[0] == version and source[1]):
            source = version, self._address(version, row.source_nic)
        label = row.flow_label & 0xFFFFF if row.addressed else 0
        tos = row.traffic_class & 0xFF if row.addressed else 0
        return Path(
            source_mac=self._mac(row.source_nic),
            dest_mac=multicast_mac(version, dest) if row.multicast else self._mac(row.dest_nic),
            source=source[1],
            dest=dest,
            version=version,
            flow_label=label,
            traffic_class=tos | CONGESTION_EXPERIENCED if row.ecn else tos,
            hop_limit=(row.addressed and row.hop_limit & 0xFF) or DEFAULT_HOP_LIMIT,
            source_port=source_port_of(label or flow_label_of(row.source_qpn, row.dest_qpn)),
        )

    def _dest(self, row: Any) -> tuple[int, int]:
        """(IP version, address) of the destination."""
        if row.addressed:
            return address_of_gid(_gid(row.dgid_high, row.dgid_low))
        return 4, self._address(4, row.dest_nic)

    def _guid(self, nic: int) -> int:
        return self.guids[nic - 1] if 0 < nic <= len(self.guids) else 0

    def _mac(self, nic: int) -> int:
        """All zeros for a NIC that does not exist: nobody answered."""
        guid = self._guid(nic)
        return mac_of_guid(guid) if guid else 0

    def _address(self, version: int, nic: int) -> int:
        """A NIC's own address: 10.0.0.N, or link-local of its GUID."""
        if version == 4:
            return address_of_gid(V4_MAPPED + bytes((10, 0, *divmod(nic & 0xFFFF, 256))))[1]
        return address_of_gid(LINK_LOCAL + self._guid(nic).to_bytes(8, "big"))[1]

    def close(self) -> None:
        """Write what is left."""
        self.drain()
        self.stream.close()


_PAYLOAD = Row._fields.index("payload")
