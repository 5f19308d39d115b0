"""Frames that soft-RoCE sent (Linux 7.3 rxe, captured on the wire) and those it took or refused."""

from nicemu.wire.frame import RoceFrame, parse
from nicemu.wire.header import WireError
from nicemu.wire.opcode import name_of
from tests.wire.frames import read_pcap

RXE = 0x0A000002


def roce(name: str) -> list[tuple[bytes, RoceFrame]]:
    """The RoCEv2 frames of a capture; ARP and ICMPv6 are refused."""
    found = []
    for data in read_pcap(name):
        try:
            found.append((data, parse(data)))
        except WireError:
            assert data[12:14] == b"\x08\x06" or data[20] in (0, 58)
    return found


def test_the_eight_frames_of_rxe_decode_and_encode_to_the_same_bytes():
    frames = [(data, frame) for data, frame in roce("rxe_wire.pcap") if frame.ip.source == RXE]
    assert [name_of(frame.bth.opcode) for _, frame in frames] == [
        "RC SEND_ONLY", "RC WRITE_FIRST", "RC WRITE_MIDDLE", "RC WRITE_LAST_IMM", "RC READ_REQUEST", "RC ACKNOWLEDGE",
        "RC READ_RESP_ONLY", "RC ACKNOWLEDGE"]  # fmt: skip
    for data, frame in frames:
        assert frame.emit() == data
        assert frame.computed_icrc == frame.icrc and frame.is_checksum_right


def test_the_frames_that_rxe_accepted_have_a_right_icrc():
    frames = [(data, frame) for data, frame in roce("rxe_wire.pcap") if frame.ip.source != RXE]
    assert len(frames) == 6
    assert all(frame.emit() == data and frame.is_icrc_right for data, frame in frames)


def test_the_acks_that_rxe_refused_have_a_wrong_one():
    frames = roce("rxe_wire_bad.pcap")
    assert len(frames) == 8
    for data, frame in frames:
        assert frame.emit() == data
        assert frame.is_icrc_right == (frame.ip.source == RXE)


def test_what_rxe_said():
    """Three packets of a WRITE of 2500 bytes with immediate, four bytes in memory order."""
    first, middle, last = [frame for _, frame in roce("rxe_wire.pcap") if 6 <= frame.bth.opcode <= 9]
    assert first.extended[0].text() == "RETH va=0xdead0000 rkey=0x1234 length=2500"
    assert (len(first.payload), len(middle.payload), len(last.payload)) == (1024, 1024, 452)
    assert last.extended[0].text() == "IMMDT imm=0x4030201"
    assert [frame.bth.ack_req for frame in (first, middle, last)] == [0, 0, 1]
