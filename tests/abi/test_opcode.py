"""BTH opcode table against ib_pack.h and rxe_opcode.c."""

from nicemu.wire import opcode as bth
from nicemu.wire.opcode import HEADERS, RcOpcode

TABLE = {
    0x00: (), 0x01: (), 0x02: (), 0x03: ("immdt",), 0x04: (), 0x05: ("immdt",), 0x06: ("reth",), 0x07: (), 0x08: (),
    0x09: ("immdt",), 0x0A: ("reth",), 0x0B: ("reth", "immdt"), 0x0C: ("reth",), 0x0D: ("aeth",), 0x0E: (),
    0x0F: ("aeth",), 0x10: ("aeth",), 0x11: ("aeth",), 0x12: ("aeth", "atomicack"), 0x13: ("atomiceth",),
    0x14: ("atomiceth",), 0x16: ("ieth",), 0x17: ("ieth",), 0x1C: ("feth", "reth"), 0x1D: ("reth",),
}  # fmt: skip


def test_every_rc_opcode_carries_the_headers_of_the_table():
    assert {int(opcode): headers for opcode, headers in HEADERS.items()} == TABLE


def test_places_of_a_message():
    """FIRST, MIDDLE, LAST, ONLY as offsets from SEND and WRITE."""
    for name, place in (("FIRST", bth.FIRST), ("MIDDLE", bth.MIDDLE), ("LAST", bth.LAST), ("LAST_IMM", bth.LAST_IMM),
                        ("ONLY", bth.ONLY), ("ONLY_IMM", bth.ONLY_IMM)):  # fmt: skip
        assert RcOpcode[f"SEND_{name}"] == bth.SEND + place
        assert RcOpcode[f"WRITE_{name}"] == bth.WRITE + place


def test_syndromes():
    assert (bth.ACK_UNLIMITED, bth.RNR_NAK) == (0x1F, 0x20)
    assert [bth.NAK_SEQUENCE, bth.NAK_INVALID_REQUEST, bth.NAK_REMOTE_ACCESS, bth.NAK_REMOTE_OPERATIONAL] == [
        0x60, 0x61, 0x62, 0x63]  # fmt: skip
