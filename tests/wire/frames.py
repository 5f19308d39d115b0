"""Frames of every opcode for the tests of this folder: typical ones, and strategies for any."""

from __future__ import annotations

import struct
from pathlib import Path as File

from hypothesis import strategies as st

from nicemu.wire.bth import Bth
from nicemu.wire.frame import Path, RoceFrame, build
from nicemu.wire.header import Header
from nicemu.wire.ip import Vlan
from nicemu.wire.opcode import CARRIES, CNP_BYTES, CNP_OPCODE, RcOpcode
from nicemu.wire.xth import XTH

DATA = File(__file__).parent / "data"
NO_PAYLOAD = {
    RcOpcode.READ_REQUEST, RcOpcode.ACKNOWLEDGE, RcOpcode.ATOMIC_ACK, RcOpcode.COMPARE_SWAP, RcOpcode.FETCH_ADD,
    RcOpcode.FLUSH,
}  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 13, 256, 1021, 4096)
"""Payloads with every pad, from nothing to the largest MTU."""
PATHS = {
    "ipv4": Path(0x00163E000001, 0x00163E000002, 0x0A000001, 0x0A000002),
    "ipv6": Path(0x00163E000001, 0x00163E000002, 0xFE80 << 112 | 1, 0xFE80 << 112 | 2, 6, 0xABCDE, 0xB8, 200, 0xD123),
    "ipv4 vlan": Path(1, 2, 0x0A000001, 0x0A000002, vlan=Vlan(3, 0, 77)),
    "ipv6 vlan": Path(1, 2, 1, 2, 6, vlan=Vlan(5, 1, 4094)),
}


def payload_sizes(opcode: int) -> tuple[int, ...]:
    """Payload sizes that an opcode may have: requests and responses without data have none."""
    if opcode == CNP_OPCODE:
        return (CNP_BYTES,)
    if opcode & 0x1F == RcOpcode.ATOMIC_WRITE:
        return (8,)
    return (0,) if opcode & 0x1F in NO_PAYLOAD else SIZES


def typical(opcode: int, size: int, path: Path) -> RoceFrame:
    """A frame whose header fields all differ."""
    extended = tuple(
        XTH[name](**{f.name: value(f.name, f.width) for f in XTH[name].FIELDS}) for name in CARRIES[opcode]
    )
    bth = Bth(opcode, dest_qp=0x00ABCD, psn=0x123456, ack_req=1, pkey=0xFFFF)
    return build(path, bth, extended, contents(opcode, size))


def contents(opcode: int, size: int) -> bytes:
    """A payload that no upper layer takes for its own."""
    return bytes(CNP_BYTES) if opcode == CNP_OPCODE else bytes((i * 7 + 3) & 255 for i in range(size))


def value(name: str, width: int) -> int:
    """A value that says where it belongs; reserved fields stay empty."""
    if name.startswith("reserved"):
        return 0
    if name == "syndrome":
        return 0x1F
    return int.from_bytes((name.encode() * 8)[:8], "big") & (1 << width) - 1


def typical_frames() -> list[tuple[int, str, int, RoceFrame]]:
    """(opcode, path, payload size, frame) of every opcode, address family, tag and pad."""
    return [(opcode, name, size, typical(opcode, size, path))
            for opcode in CARRIES for name, path in PATHS.items() for size in payload_sizes(opcode)]  # fmt: skip


def any_header(kind: type[Header], **fixed: int) -> st.SearchStrategy[Header]:
    """A header with any values."""
    fields = {f.name: st.integers(0, (1 << f.width) - 1) for f in kind.FIELDS}
    return st.builds(kind, **fields | {name: st.just(value) for name, value in fixed.items()})


def any_path() -> st.SearchStrategy[Path]:
    """Any addressing."""
    macs, ports = st.integers(0, 2**48 - 1), st.integers(0, 0xFFFF)
    vlans = st.none() | any_header(Vlan)
    bytes_ = st.integers(0, 255)

    def of(version: int) -> st.SearchStrategy[Path]:
        ips = st.integers(0, 2 ** (32 if version == 4 else 128) - 1)
        labels = st.integers(0, 2**20 - 1)
        return st.builds(Path, macs, macs, ips, ips, st.just(version), labels, bytes_, bytes_, ports, vlans)

    return st.sampled_from([4, 6]).flatmap(of)


@st.composite
def any_frame(draw: st.DrawFn) -> RoceFrame:
    """A frame of any opcode with any values; lengths, checksum and ICRC are right."""
    opcode = draw(st.sampled_from(sorted(CARRIES)))
    extended = tuple(draw(any_header(XTH[name])) for name in CARRIES[opcode])
    bth = draw(any_header(Bth, opcode=opcode, version=0))
    size = CNP_BYTES if opcode == CNP_OPCODE else None
    payload = draw(st.binary(min_size=size or 0, max_size=size or 70))
    return build(draw(any_path()), bth, extended, payload)


def read_pcap(name: str) -> list[bytes]:
    """Frames of a classic little-endian pcap file."""
    data, at, frames = (DATA / name).read_bytes(), 24, []
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames
