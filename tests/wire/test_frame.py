"""Frames: what is emitted parses to the same value; bytes that are no RoCE packet are one line."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nicemu.wire.bth import Bth
from nicemu.wire.frame import build, parse
from nicemu.wire.header import WireError
from nicemu.wire.ip import Ethernet, Ipv4, Ipv6, Udp, ipv4_checksum
from nicemu.wire.opcode import CARRIES
from nicemu.wire.xth import Aeth
from tests.wire.frames import PATHS, any_frame, read_pcap, typical, typical_frames

ACK = typical(0x11, 0, PATHS["ipv4"])


@given(any_frame(), st.binary(max_size=20))
@settings(max_examples=300)
def test_parse_is_the_inverse_of_emit(frame, trailer):
    frame = replace(frame, trailer=trailer)
    assert parse(frame.emit()) == frame
    assert frame.is_icrc_right and frame.is_checksum_right


def test_every_opcode_on_every_path_with_every_pad():
    for opcode, _, size, frame in typical_frames():
        data = frame.emit()
        assert parse(data) == frame
        assert frame.is_icrc_right and frame.is_checksum_right and frame.bth.opcode == opcode
        assert len(frame.payload) == size and (size + frame.bth.pad) % 4 == 0


def refused_or_the_same(data: bytes) -> None:
    """Whatever the bytes: a WireError of one line, or a value that emits exactly them."""
    try:
        frame = parse(data)
    except WireError as error:
        assert "\n" not in str(error) and str(error)
        return
    assert frame.emit() == data
    assert "\n" not in frame.text()
    _ = frame.is_icrc_right, frame.is_checksum_right


@given(any_frame(), st.lists(st.integers(0, 1500 * 8), min_size=1, max_size=4), st.integers(0, 12))
@settings(max_examples=500)
def test_flipped_bits_are_refused_or_seen(frame, flips, cut):
    data = bytearray(frame.emit())
    for bit in flips:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    refused_or_the_same(bytes(data[: len(data) - cut]))


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_refused_or_seen(data):
    refused_or_the_same(data)


@given(st.binary(max_size=120), st.sampled_from(["ipv4", "ipv6"]))
def test_any_packet_in_udp_is_refused_or_seen(data, path):
    whole = build(PATHS[path], Bth()).emit()
    refused_or_the_same(whole[: len(whole) - Bth.SIZE - 4] + data)


def test_every_cut_of_every_opcode_is_refused():
    for opcode in CARRIES:
        data = typical(opcode, 8, PATHS["ipv4"]).emit()
        for size in range(len(data)):
            with pytest.raises(WireError):
                parse(data[:size])


def test_every_single_bit_of_a_packet_is_covered():
    """From the BTH on only the bits that routers may set can change without the ICRC noticing."""
    frame = typical(0x0B, 5, PATHS["ipv6"])
    data = frame.emit()
    first = Ethernet.SIZE + Ipv6.SIZE + Udp.SIZE
    for bit in range(8 * first, 8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        try:
            same = parse(bytes(flipped)).is_icrc_right
        except WireError:
            continue
        assert same == (bit // 8 == first + 4)


def with_ip(**changes: int) -> bytes:
    """The ACK with another IPv4 header."""
    return replace(ACK, ip=replace(ACK.ip, **changes)).emit()


def with_udp(**changes: int) -> bytes:
    """The ACK with another UDP header."""
    return replace(ACK, udp=replace(ACK.udp, **changes)).emit()


def with_bth(**changes: int) -> bytes:
    """The ACK with another BTH."""
    return replace(ACK, bth=replace(ACK.bth, **changes)).emit()


@pytest.mark.parametrize(
    "data, line",
    [
        (replace(ACK, ethernet=Ethernet(1, 2, 0x0806)).emit(),
         "ETHERNET.ethertype: expected 0x0800 or 0x86dd, given 0x0806"),
        (with_ip(version=6), "IPV4.version: expected 4, given 6"),
        (with_ip(ihl=6), "IPV4.ihl: expected 5, given 6"),
        (with_ip(protocol=6), "IPV4.protocol: expected 17, given 6"),
        (with_ip(more_fragments=1), "IPV4.more_fragments: expected 0, given 1"),
        (with_ip(fragment_offset=3), "IPV4.fragment_offset: expected 0, given 3"),
        (with_ip(total_length=19), "UDP.length: expected -1, given 28"),
        (with_udp(dest_port=53), "UDP.dest_port: expected 4791, given 53"),
        (with_udp(length=27), "UDP.length: expected 28, given 27"),
        (ACK.emit()[:-1], "IPV4: expected 28 bytes behind the header, given 27"),
        (with_bth(opcode=0x1F), "BTH.opcode: expected a defined opcode, given 0x1f"),
        (with_bth(opcode=0x40), "BTH.opcode: expected a defined opcode, given 0x40"),
        (with_bth(version=1), "BTH.version: expected 0, given 1"),
        (with_bth(opcode=0x12), "ATOMICACKETH: expected 8 bytes, given 4"),
        (with_bth(opcode=0x0C), "RETH: expected 16 bytes, given 8"),
        (with_bth(pad=1), "payload and pad: expected 1 bytes or more, a multiple of 4, given 0"),
        (with_bth(opcode=0x81), "CNP payload: expected 16, given 4"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_one_line_says_what_is_wrong(data, line):
    with pytest.raises(WireError) as caught:
        parse(data)
    assert str(caught.value) == line


def test_a_packet_larger_than_ip_can_carry_is_an_error():
    with pytest.raises(WireError, match=r"^IPV4\.total_length: expected 16 bits, given 65580$"):
        build(PATHS["ipv4"], Bth(), (), bytes(65536))


def test_a_wrong_icrc_is_not_malformed():
    frame = replace(ACK, icrc=ACK.icrc ^ 1)
    assert not parse(frame.emit()).is_icrc_right
    assert "expected=" in frame.text() and "expected=" not in ACK.text()


def test_a_wrong_ipv4_checksum_is_seen():
    assert not parse(with_ip(checksum=0)).is_checksum_right


def test_ipv4_checksum_of_a_frame_from_the_wire():
    """Linux computed these."""
    for data in read_pcap("rxe_wire.pcap"):
        if data[12:14] == b"\x08\x00":
            assert ipv4_checksum(data[14 : 14 + Ipv4.SIZE]) == int.from_bytes(data[24:26], "big")


def test_one_line_of_text():
    frame = build(PATHS["ipv4"], Bth(0x11, dest_qp=0x11, psn=7), (Aeth(0x1F, 3),))
    assert frame.text() == (
        "10.0.0.1 > 10.0.0.2 RC ACKNOWLEDGE | BTH opcode=0x11 pad=0 pkey=0xffff dest_qp=0x11 psn=7"
        f" | AETH syndrome=0x1f msn=3 | payload=0 icrc={frame.icrc:#010x}"
    )
