"""tshark reads our frames of every opcode.

What it shows: the headers lie where they should, nothing is malformed, and no expert information is raised. What it
does not: tshark 4.0 shows an ICRC but has neither preference nor field for a verdict on it, so that the value
is compared with the one we emitted, and its rightness is left to scapy (``test_scapy``) and to frames that Linux sent
(``test_golden``). It has no names for XRC, FLUSH, ATOMIC_WRITE and CNP ("Unknown OpCode") and stops at their BTH.
"""

import io
from pathlib import Path

import pytest

from nicemu.wire.ip import Ipv6
from nicemu.wire.opcode import CARRIES, CNP_OPCODE, FLUSH, XRC
from nicemu.wire.pcapng import PcapngWriter
from tests.wire.frames import PATHS, typical, typical_frames
from tests.wire.oracle import complaints, fields

UNNAMED = {op for op in CARRIES if op >> 5 == XRC or op & 0x1F >= FLUSH} | {CNP_OPCODE}
"""Opcodes beyond tshark 4.0."""
HEADER_FIELDS = {
    "reth.va": "va", "reth.r_key": "rkey", "reth.dmalen": "length", "aeth.msn": "msn", "deth.srcqp": "source_qp",
    "deth.q_key": "qkey", "atomiceth.swapdt": "swap_add", "atomiceth.cmpdt": "compare",
    "atomicacketh.origremdt": "original", "aeth.syndrome": "syndrome",
}  # fmt: skip


@pytest.fixture(scope="module")
def frames():
    """Every opcode, address family, tag and pad."""
    return [frame for *_, frame in typical_frames()]


@pytest.fixture(scope="module")
def file(frames, tmp_path_factory) -> Path:
    """They in a capture, a microsecond apart."""
    stream = io.BytesIO()
    writer = PcapngWriter(stream, "tests")
    writer.interface("wire", "every opcode")
    for i, frame in enumerate(frames):
        writer.packet(0, i * 1000, frame.emit())
    path = tmp_path_factory.mktemp("tshark") / "frames.pcapng"
    path.write_bytes(stream.getvalue())
    return path


def test_nothing_is_malformed_and_nothing_is_remarked(file):
    assert complaints(file) == []
    assert not [row for row in fields(file, "_ws.malformed") if row != [""]]


def test_every_frame_is_roce_with_our_bth(file, frames):
    names = ("opcode", "se", "m", "padcnt", "p_key", "destqp", "a", "psn")
    rows = fields(file, "_ws.col.Protocol", *(f"infiniband.bth.{name}" for name in names))
    for frame, (protocol, *values) in zip(frames, rows, strict=True):
        bth = frame.bth
        expected = (bth.opcode, bth.solicited, bth.migreq, bth.pad, bth.pkey, bth.dest_qp, bth.ack_req, bth.psn)
        assert protocol == "RRoCE"
        assert tuple(int(text, 0) for text in values) == expected


def test_opcodes_that_tshark_knows_have_our_extended_headers(file, frames):
    rows = fields(file, *(f"infiniband.{name}" for name in HEADER_FIELDS))
    for frame, row in zip(frames, rows, strict=True):
        if frame.bth.opcode in UNNAMED:
            continue
        ours = {name: getattr(part, name) for part in frame.extended if part.NAME != "IETH" for name in part.__slots__}
        for name, text in zip(HEADER_FIELDS.values(), row, strict=True):
            if text and not (frame.bth.opcode & 0x1F in (0x13, 0x14) and name in ("va", "rkey")):
                assert int(text.split(",")[0], 0) == ours[name], (frame.text(), name)
            if name in ours and frame.bth.opcode & 0x1F not in (0x13, 0x14):
                assert text, (frame.text(), name)


def test_icrc_and_payload_lie_where_tshark_looks(file, frames):
    rows = fields(file, "infiniband.invariant.crc", "infiniband.payload", "data.data")
    seen = 0
    for frame, (crc, payload, data) in zip(frames, rows, strict=True):
        if frame.bth.opcode in UNNAMED:
            continue
        seen += 1
        assert int(crc, 0).to_bytes(4, "big") == frame.icrc.to_bytes(4, "little"), frame.text()
        shown = bytes.fromhex((payload or data).replace(":", ""))
        assert shown[: len(frame.payload)] == frame.payload and len(shown) - len(frame.payload) in (0, frame.bth.pad)
    assert seen > 600


def test_only_what_tshark_4_0_does_not_know_is_unnamed(file, frames):
    rows = fields(file, "_ws.col.Info")
    unknown = {frame.bth.opcode for frame, (info,) in zip(frames, rows, strict=True) if "Unknown" in info}
    assert unknown <= UNNAMED  # a newer tshark may know more


def test_ip_and_vlan(file, frames):
    rows = fields(file, "ip.src", "ipv6.dst", "vlan.id", "ip.dsfield", "ipv6.tclass", "udp.srcport")
    for frame, (source, dest6, vlan, _, tclass, port) in zip(frames, rows, strict=True):
        is_v6 = isinstance(frame.ip, Ipv6)
        assert bool(dest6) == is_v6 and bool(source) == (not is_v6)
        assert vlan == (str(frame.vlan.vid) if frame.vlan else "")
        assert int(port) == frame.udp.source_port
        if is_v6:
            assert int(tclass, 0) == frame.ip.traffic_class


def test_a_short_packet_is_malformed_to_tshark_too(tmp_path):
    """The oracle would notice: a RETH cut short."""
    data = bytearray(typical(0x0C, 0, PATHS["ipv4"]).emit()[:-12])
    data[16:18], data[38:40] = (len(data) - 14).to_bytes(2, "big"), (len(data) - 34).to_bytes(2, "big")
    with (tmp_path / "short.pcapng").open("wb") as stream:
        writer = PcapngWriter(stream, "tests")
        writer.interface("wire", "")
        writer.packet(0, 0, bytes(data))
    assert complaints(tmp_path / "short.pcapng")
