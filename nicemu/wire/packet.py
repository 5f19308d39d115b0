"""From a packet record to its frame: which header field is which field of a ``tables.records.PACKET``.

Immediate data is four bytes in memory order on both sides: a little-endian number in the record, a big-endian one in
the header.
"""

from __future__ import annotations

from typing import Any

from nicemu.wire.bth import Bth
from nicemu.wire.frame import Path, RoceFrame, build
from nicemu.wire.header import Header
from nicemu.wire.ip import Ethernet, Ipv4, Udp
from nicemu.wire.opcode import CARRIES, CNP_BYTES, CNP_OPCODE, RcOpcode
from nicemu.wire.xth import XTH

RECORD_FIELDS: dict[str, dict[str, str]] = {
    "reth": {"va": "va", "rkey": "rkey", "length": "length"},
    "aeth": {"syndrome": "syndrome", "msn": "msn"},
    "atomiceth": {"va": "va", "rkey": "rkey", "swap_add": "swap", "compare": "compare_add"},
    "atomicack": {"original": "result"},
    "immdt": {"imm": "imm"},
    "ieth": {"rkey": "imm"},
    "deth": {"qkey": "qkey", "source_qp": "source_qpn"},
    "xrceth": {"srqn": "srqn"},
    "feth": {"placement": "compare_add", "selectivity": "swap"},
}
"""Header field -> field of the record."""
FETCH_ADD_FIELDS = {"va": "va", "rkey": "rkey", "swap_add": "compare_add"}


RAW_FLIP_START = Ethernet.SIZE + Ipv4.SIZE + Udp.SIZE


def _swapped(imm: int) -> int:
    return int.from_bytes((imm & 0xFFFFFFFF).to_bytes(4, "little"), "big")


def _header(name: str, operation: int, row: Any) -> Header:
    """One extended header; record fields are int64 and are cut to the header's width."""
    sources = FETCH_ADD_FIELDS if name == "atomiceth" and operation == RcOpcode.FETCH_ADD else RECORD_FIELDS[name]
    widths = {field.name: field.width for field in XTH[name].FIELDS}
    values = {field: int(getattr(row, source)) & (1 << widths[field]) - 1 for field, source in sources.items()}
    if name == "immdt":
        values["imm"] = _swapped(values["imm"])
    return XTH[name](**values)


def frame_of(row: Any, path: Path, payload: bytes) -> RoceFrame:
    """The frame of a packet record (any object with its fields) on ``path``; an undefined opcode has no headers."""
    opcode = (int(row.transport) << 5 | int(row.opcode)) & 0xFF
    extended = tuple(_header(name, opcode & 0x1F, row) for name in CARRIES.get(opcode, ()))
    bth = Bth(opcode, solicited=row.solicited & 1, pkey=row.pkey & 0xFFFF, becn=int(opcode == CNP_OPCODE),
              dest_qp=row.dest_qpn & 0xFFFFFF, ack_req=row.ack_request & 1, psn=row.psn & 0xFFFFFF)  # fmt: skip
    return build(path, bth, extended, bytes(CNP_BYTES) if opcode == CNP_OPCODE else payload)


def flip(frame: RoceFrame, bit: int) -> bytes:
    """The frame's bytes with one bit wrong, as after a bad cable; bit 0 is the first of the BTH, in network order."""
    start = sum(part.SIZE for part in (frame.ethernet, frame.vlan, frame.ip, frame.udp) if part is not None)
    return _flip_from(start, frame.emit(), bit)


def flip_raw(frame: bytes, bit: int) -> bytes:
    """The same for a frame that is none of RoCE's: bit 0 is where an IPv4 RoCE frame has its BTH."""
    return _flip_from(min(RAW_FLIP_START, len(frame) - 1), frame, bit)


def _flip_from(start: int, emitted: bytes, bit: int) -> bytes:
    data = bytearray(emitted)
    at, within = divmod(bit % (8 * (len(data) - start)), 8)
    data[start + at] ^= 0x80 >> within
    return bytes(data)
