"""Declared headers: sizes and layouts of the specification, round trips, values that do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.wire.bth import Bth
from nicemu.wire.header import Header, WireError
from nicemu.wire.ip import Ethernet, Ipv4, Ipv6, Udp, Vlan
from nicemu.wire.opcode import CARRIES, CNP_OPCODE, OPERATIONS, Transport, headers_of, name_of
from nicemu.wire.xth import XTH, Aeth, Feth, Reth
from tests.wire.frames import any_header

ALL: tuple[type[Header], ...] = (Ethernet, Vlan, Ipv4, Ipv6, Udp, Bth, *XTH.values())
SIZES = {
    "BTH": 12, "RETH": 16, "AETH": 4, "ATOMICETH": 28, "ATOMICACKETH": 8, "IMMDT": 4, "IETH": 4, "DETH": 8, "XRCETH": 4,
    "FETH": 4, "ETHERNET": 14, "VLAN": 4, "IPV4": 20, "IPV6": 40, "UDP": 8,
}  # fmt: skip


def test_every_header_has_its_size():
    assert {kind.NAME: kind.SIZE for kind in ALL} == SIZES


@given(st.sampled_from(ALL).flatmap(any_header))
def test_a_header_is_its_bytes(value):
    data = value.emit()
    assert len(data) == value.SIZE
    assert type(value).parse(data) == value
    assert type(value).parse(b"front" + data + b"behind", 5) == value


@given(st.sampled_from(ALL).flatmap(lambda kind: st.tuples(st.just(kind), st.binary(min_size=40, max_size=40))))
def test_every_bit_belongs_to_a_field(drawn):
    kind, data = drawn
    assert kind.parse(data).emit() == data[: kind.SIZE]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.NAME)
def test_too_few_bytes_are_an_error(kind):
    for size in range(kind.SIZE):
        with pytest.raises(WireError, match=f"^{kind.NAME}: expected {kind.SIZE} bytes, given {size}$"):
            kind.parse(bytes(size))
    with pytest.raises(WireError, match="given 0"):
        kind.parse(b"", 3)


@pytest.mark.parametrize("value", [1 << 24, -1])
def test_a_value_that_does_not_fit_names_its_field(value):
    with pytest.raises(WireError, match=f"^BTH.psn: expected 24 bits, given {value}$"):
        Bth(psn=value).emit()


def test_bth_layout():
    """opcode; SE M Pad TVer; P_Key; FECN BECN; DestQP; A; PSN (6.5)."""
    bth = Bth(0x64, 1, 1, 2, 0, 0x8001, 1, 1, 0, 0xABCDEF, 1, 0, 0x123456)
    assert bth.emit().hex(" ") == "64 e0 80 01 c0 ab cd ef 80 12 34 56"


def test_reth_and_feth_layout():
    assert Reth(1, 2, 3).emit().hex() == "00000000000000010000000200000003"
    assert Feth(selectivity=1, placement=2).emit().hex() == "00000012"


def test_one_line_shows_what_is_there():
    assert Aeth(0x60, 9).text() == "AETH syndrome=0x60 msn=9"
    assert Bth(4, pad=3, dest_qp=17, psn=5).text() == "BTH opcode=0x4 pad=3 pkey=0xffff dest_qp=0x11 psn=5"
    assert Ethernet(0x00163E000001, 2, 0x800).text() == (
        "ETHERNET dest=00:16:3e:00:00:01 source=00:00:00:00:00:02 ethertype=0x800")  # fmt: skip


def test_every_defined_opcode_carries_what_its_transport_says():
    """The table of 6.6: four transports and the congestion notification."""
    assert len(CARRIES) == sum(len(operations) for operations in OPERATIONS.values()) + 1
    assert CARRIES[0x0B] == ("reth", "immdt") and CARRIES[0x65] == ("deth", "immdt")
    assert CARRIES[0xAB] == ("xrceth", "reth", "immdt") and CARRIES[0xB1] == ("aeth",)
    assert CARRIES[0x1C] == ("feth", "reth") and CARRIES[0xBC] == ("xrceth", "feth", "reth")
    assert CARRIES[CNP_OPCODE] == ()
    for transport, operations in OPERATIONS.items():
        for operation in operations:
            assert CARRIES[transport << 5 | operation] == headers_of(transport, operation)
            assert all(name in XTH for name in headers_of(transport, operation))


def test_opcodes_have_names():
    assert name_of(0x64) == "UD SEND_ONLY" and name_of(0xB1) == "XRC ACKNOWLEDGE" and name_of(0x81) == "CNP"
    assert name_of(Transport.RD << 5) == "opcode 0x40"
