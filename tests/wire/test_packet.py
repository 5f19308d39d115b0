"""From packet record to frame: which field goes where."""

from types import SimpleNamespace

import pytest

from nicemu.tables.records import PACKET
from nicemu.wire.frame import parse
from nicemu.wire.ip import Ethernet, Ipv4, Udp
from nicemu.wire.opcode import CARRIES, CNP_OPCODE
from nicemu.wire.packet import RECORD_FIELDS, flip, frame_of
from nicemu.wire.xth import XTH
from tests.wire.frames import PATHS, payload_sizes

PATH = PATHS["ipv4"]


def record(opcode: int, **fields: int) -> SimpleNamespace:
    """A packet record as the device fills it."""
    row = dict.fromkeys(PACKET.names, 0) | {
        "transport": opcode >> 5, "opcode": opcode & 0x1F, "pkey": 0xFFFF, "psn": 9, "dest_qpn": 17, "ack_request": 1,
    }  # fmt: skip
    return SimpleNamespace(**row | fields)


@pytest.mark.parametrize("opcode", sorted(CARRIES))
def test_every_opcode_becomes_its_frame(opcode):
    size = payload_sizes(opcode)[0]
    frame = frame_of(record(opcode), PATH, bytes(size))
    assert parse(frame.emit()) == frame and frame.is_icrc_right
    assert frame.bth.opcode == opcode and (frame.bth.psn, frame.bth.dest_qp, frame.bth.ack_req) == (9, 17, 1)
    assert [type(part) for part in frame.extended] == [XTH[name] for name in CARRIES[opcode]]


def test_every_header_field_has_its_record_field():
    for name, kind in XTH.items():
        assert set(RECORD_FIELDS[name]) == {f.name for f in kind.FIELDS if not f.name.startswith("reserved")}
        assert set(RECORD_FIELDS[name].values()) <= set(PACKET.names)


def header(opcode: int, **fields: int):
    """The last extended header of the frame."""
    return frame_of(record(opcode, **fields), PATH, b"").extended[-1]


def test_compare_and_swap():
    found = header(0x13, va=-8, rkey=5, compare_add=-1, swap=7)
    assert (found.va, found.rkey, found.compare, found.swap_add) == (2**64 - 8, 5, 2**64 - 1, 7)


def test_fetch_and_add_has_its_addend_in_the_swap_field():
    found = header(0x14, compare_add=3, swap=99)
    assert (found.swap_add, found.compare) == (3, 0)


def test_immediate_data_keeps_its_bytes_in_memory_order():
    """A program's ``imm_data`` is four bytes that nobody converts (rxe: 0x01020304 on a little-endian host)."""
    assert header(0x05, imm=0x01020304).emit() == bytes((4, 3, 2, 1))
    assert header(0x17, imm=0x01020304).emit() == bytes((1, 2, 3, 4))  # an R_Key is a number


def test_flush_has_placement_and_selectivity():
    feth, reth = frame_of(record(0x1C, compare_add=2, swap=1, va=64, rkey=5, length=8), PATH, b"").extended
    assert (feth.placement, feth.selectivity, reth.va, reth.length) == (2, 1, 64, 8)


def test_a_datagram_says_who_sent_it():
    found = header(0x64, qkey=-(1 << 31) & 0xFFFFFFFF, source_qpn=5)
    assert (found.qkey, found.source_qp) == (0x80000000, 5)


def test_a_congestion_notification_says_becn_and_carries_sixteen_zero_bytes():
    frame = frame_of(record(CNP_OPCODE), PATH, b"")
    assert frame.bth.becn == 1 and frame.payload == bytes(16)


def test_an_undefined_opcode_is_captured_without_headers():
    """A hostile peer's packet is in the capture as it was sent."""
    frame = frame_of(record(0x1F), PATH, b"1234")
    assert frame.bth.opcode == 0x1F and frame.extended == () and frame.payload == b"1234"


@pytest.mark.parametrize("bit, at, mask", [(0, 0, 0x80), (7, 0, 0x01), (96, 12, 0x80), (8 * 20, 0, 0x80)])
def test_a_flipped_bit_counts_from_the_bth_in_network_order(bit, at, mask):
    frame = frame_of(record(0x11), PATH, b"")
    data, start = frame.emit(), Ethernet.SIZE + Ipv4.SIZE + Udp.SIZE
    assert len(data) - start == 20
    different = [(i - start, a ^ b) for i, (a, b) in enumerate(zip(data, flip(frame, bit), strict=True)) if a != b]
    assert different == [(at, mask)]
