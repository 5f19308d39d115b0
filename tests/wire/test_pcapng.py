"""pcapng: what scapy's and tshark's readers see of what the writer wrote."""

import io
import struct

import pytest

from nicemu.wire.pcapng import PcapngWriter
from tests.wire.frames import PATHS, typical
from tests.wire.oracle import fields

FRAME = typical(0x04, 13, PATHS["ipv4"]).emit()


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each block; both lengths of a block must agree."""
    found, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and struct.unpack_from("<I", data, at + size - 4)[0] == size
        found.append((kind, data[at + 8 : at + size - 4]))
        at += size
    return found


def write(file) -> None:
    """Two interfaces, three packets."""
    with file.open("wb") as stream:
        writer = PcapngWriter(stream, "tests", "about")
        assert writer.interface("nicemu0", "port 1 of nicemu0") == 0
        assert writer.interface("nicemu1", "port 1 of nicemu1") == 1
        writer.packet(0, 5, FRAME)
        writer.packet(1, 5_000_000_007, FRAME, ("lost: drop 3 of link 1", "second"))
        writer.packet(0, 2**40, FRAME[:61])


def test_blocks_are_whole_and_in_order(tmp_path):
    write(tmp_path / "f")
    assert [kind for kind, _ in blocks((tmp_path / "f").read_bytes())] == [0x0A0D0D0A, 1, 1, 6, 6, 6]


def test_tshark_reads_stamps_interfaces_and_comments(tmp_path):
    write(tmp_path / "f")
    names = ("frame.time_epoch", "frame.interface_name", "frame.interface_description", "frame.comment", "frame.len")
    assert fields(tmp_path / "f", *names) == [
        ["0.000000005", "nicemu0", "port 1 of nicemu0", "", str(len(FRAME))],
        ["5.000000007", "nicemu1", "port 1 of nicemu1", "lost: drop 3 of link 1,second", str(len(FRAME))],
        ["1099.511627776", "nicemu0", "port 1 of nicemu0", "", "61"],
    ]


def test_scapy_reads_the_same_bytes(tmp_path):
    utils = pytest.importorskip("scapy.utils", reason="scapy is not installed (pip install scapy)")
    write(tmp_path / "f")
    with utils.RawPcapNgReader(str(tmp_path / "f")) as reader:
        packets = list(reader)
    assert [data for data, _ in packets] == [FRAME, FRAME, FRAME[:61]]
    assert [(info.tshigh << 32 | info.tslow, info.tsresol) for _, info in packets] == [
        (5, 10**9), (5_000_000_007, 10**9), (2**40, 10**9)]  # fmt: skip


def test_the_writer_keeps_nothing():
    """Each packet is in the stream when ``packet`` returns."""
    stream = io.BytesIO()
    writer = PcapngWriter(stream, "tests")
    writer.interface("a", "")
    for _ in range(3):
        before = stream.tell()
        writer.packet(0, 1, FRAME)
        assert blocks(stream.getvalue()[before:])[0][1][20 : 20 + len(FRAME)] == FRAME
    assert set(vars(writer)) == {"stream", "interfaces"}
