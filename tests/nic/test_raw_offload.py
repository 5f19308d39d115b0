"""Offloads of raw packet QPs: checksums, VLAN stripping, FCS, TSO. Scapy is the judge of checksums and segments."""

import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.abi.rings import DB_SEND, SEND_WQE, SGE
from nicemu.abi.verbs import SendFlag, WcFlag, WcOpcode, WcStatus, WrOpcode
from tests.nic.objects import SLOTS, Cq
from tests.nic.raw import TCP, QpFlag, Raw, RawQp, ethernet, ipv4, ipv6, tcp, udp

scapy = pytest.importorskip("scapy.layers.inet")
inet6 = pytest.importorskip("scapy.layers.inet6")
Ether = pytest.importorskip("scapy.layers.l2").Ether
CSUM = SendFlag.SIGNALED | SendFlag.IP_CSUM


@pytest.fixture
def raw(bench) -> Raw:
    """Two raw packet QPs; the receiver gets everything."""
    made = Raw(bench)
    made.flow()
    return made


def with_checksums(frame: bytes) -> bytes:
    """What scapy makes of the frame when it fills in checksums."""
    packet = Ether(frame)
    for layer in (scapy.IP, scapy.TCP, scapy.UDP):
        if layer in packet:
            packet[layer].chksum = None
    return bytes(packet)


FRAMES = {
    "ipv4 udp": ethernet(ipv4(udp(b"odd")), 0x0800),
    "ipv4 tcp": ethernet(ipv4(tcp(b"some data" * 10), TCP), 0x0800),
    "ipv4 options": ethernet(ipv4(udp(bytes(50)), ihl=8), 0x0800),
    "ipv6 udp": ethernet(ipv6(udp(b"even")), 0x86DD),
    "ipv6 tcp": ethernet(ipv6(tcp(b"x" * 333), TCP), 0x86DD),
    "tagged": ethernet(ipv4(tcp(), TCP), 0x0800, tags=((0x8100, 7),)),
    "not IP": ethernet(bytes(50)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_checksums_are_filled_in(raw, name):
    raw.receive(5)
    raw.send(FRAMES[name], flags=CSUM)
    (cqe,) = raw.b.cq.poll()
    at = 5 * 4096
    assert raw.target.data[at:][: len(FRAMES[name])] == with_checksums(FRAMES[name])
    assert bool(cqe["flags"] & WcFlag.IP_CSUM_OK) == (name not in ("not IP", "ipv6 udp", "ipv6 tcp"))


@pytest.mark.parametrize("at", [24, 36, 60])
def test_a_wrong_checksum_is_not_called_right(raw, at):
    data = bytearray(with_checksums(FRAMES["ipv4 tcp"]))
    data[at] ^= 1
    raw.receive(5)
    raw.send(bytes(data))
    (cqe,) = raw.b.cq.poll()
    assert cqe["status"] == 0 and not cqe["flags"] & WcFlag.IP_CSUM_OK


def test_udp_without_a_checksum_is_right(raw):
    raw.receive(5)
    raw.send(ethernet(ipv4(udp(), right=1), 0x0800))
    assert raw.b.cq.poll()[0]["flags"] & WcFlag.IP_CSUM_OK


def with_flags(bench, flags: int) -> tuple[Raw, RawQp]:
    """A receiver made with flags."""
    raw = Raw(bench)

    class Flagged(RawQp):
        pass

    receiver = Flagged(bench, 9, Cq(bench, 9))
    receiver.row().rx_flags = flags
    raw.flow(receiver)
    return raw, receiver


def test_the_outer_vlan_tag_moves_into_the_completion(bench):
    raw, receiver = with_flags(bench, QpFlag.CVLAN_STRIPPING)
    inner = ethernet(ipv4(udp(bytes(60))), 0x0800, tags=((0x8100, 5),))
    tagged = inner[:12] + b"\x81\x00\xbc\x0c" + inner[12:]
    raw.receive(5, receiver)
    raw.send(tagged)
    (cqe,) = receiver.cq.poll()
    assert (cqe["byte_len"], cqe["imm"]) == (len(inner), 0xBC0C)
    assert raw.target.data[5 * 4096 :][: len(inner) + 8] == inner + bytes(8)


@pytest.mark.parametrize("tags", [(), ((0x88A8, 5),)])
def test_no_customer_tag_nothing_stripped(bench, tags):
    raw, receiver = with_flags(bench, QpFlag.CVLAN_STRIPPING)
    data = ethernet(bytes(60), tags=tags)
    raw.receive(5, receiver)
    raw.send(data)
    (cqe,) = receiver.cq.poll()
    assert (cqe["byte_len"], cqe["imm"]) == (len(data), 0)


def test_the_frame_check_sequence_is_received_too(bench):
    raw, receiver = with_flags(bench, QpFlag.SCATTER_FCS | QpFlag.CVLAN_STRIPPING)
    data = ethernet(bytes(range(100)), tags=((0x8100, 5),))
    raw.receive(5, receiver)
    raw.send(data)
    expected = data[:12] + data[16:] + struct.pack("<I", zlib.crc32(data))
    assert raw.got(receiver) == [(5, expected)]


def post_tso(raw: Raw, headers: bytes, length: int, mss: int, claim: int | None = None) -> None:
    """A TSO request: SGE, then the headers."""
    qp = raw.a
    tail = qp.record.word(DB_SEND)
    at = tail % SLOTS * qp.send_stride
    size = len(headers) if claim is None else claim
    SEND_WQE.pack_into(
        qp.send.view, at, 1, WrOpcode.TSO, SendFlag.SIGNALED, 1, 0, 0, 0, 0, size, mss, 0, 0
    )  # fmt: skip
    SGE.pack_into(qp.send.view, at + 64, *raw.source.sge(length))
    qp.send.view[at + 80 : at + 80 + len(headers)] = headers
    qp.record.word(DB_SEND, tail + 1)
    raw.bench.device.write_doorbell(qp.number << 3, 0)
    raw.bench.run()


HEADERS = {
    4: ethernet(ipv4(tcp(b"", seq=0xFFFFFF00, flags=0x99), TCP, ident=0xFFFF), 0x0800),
    6: ethernet(ipv6(tcp(b"", flags=0x19), TCP), 0x86DD, tags=((0x8100, 3),)),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("length", "mss"), [(1, 1000), (1000, 1000), (1001, 1000), (3500, 512)])
def test_one_request_becomes_tcp_segments(raw, version, length, mss):
    headers, data = HEADERS[version], raw.source.fill(7)[:length]
    count = -(-length // mss)
    for wr_id in range(count):
        raw.receive(wr_id)
    post_tso(raw, headers, length, mss)
    (sent,) = raw.a.cq.poll()
    assert (sent["status"], sent["opcode"]) == (0, WcOpcode.TSO)
    frames = [frame for _, frame in raw.got()]
    assert len(frames) == count
    first = Ether(headers)[scapy.TCP]
    for k, frame in enumerate(frames):
        packet = Ether(frame)
        assert with_checksums(frame) == frame
        part = data[k * mss : (k + 1) * mss]
        segment = packet[scapy.TCP]
        assert bytes(segment.payload)[: len(part)] == part
        assert segment.seq == (first.seq + k * mss) & 0xFFFFFFFF
        assert ("F" in str(segment.flags)) == (k == count - 1)
        assert ("C" in str(segment.flags)) == (k == 0 and version == 4)
        if version == 4:
            assert packet[scapy.IP].len == 40 + len(part) and packet[scapy.IP].id == (0xFFFF + k) & 0xFFFF
        else:
            assert packet[inet6.IPv6].plen == 20 + len(part)


@pytest.mark.parametrize("length", [7, 120, 186])
def test_headers_that_are_not_tcp_are_repeated_as_they_are(raw, length):
    headers, data = ethernet(bytes(range(length)), 0x88B5), raw.source.fill(7)
    for wr_id in range(2):
        raw.receive(wr_id)
    post_tso(raw, headers, 2000, 1000)
    assert [frame for _, frame in raw.got()] == [headers + data[:1000], headers + data[1000:2000]]


@pytest.mark.parametrize(
    ("size", "mss", "length", "status"),
    [
        (13, 1000, 2000, WcStatus.LOC_LEN_ERR),
        (54, 4096, 8192, WcStatus.LOC_LEN_ERR),
        (54, 1000, 0, WcStatus.LOC_LEN_ERR),
        (0xFFFF, 1000, 2000, WcStatus.LOC_QP_OP_ERR),
        (450, 1000, 2000, WcStatus.LOC_QP_OP_ERR),
    ],
)
def test_a_tso_request_that_fits_nothing_is_refused(raw, size, mss, length, status):
    post_tso(raw, bytes(54), length, mss, claim=size)
    assert raw.a.statuses() == [(1, status)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=90), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 4096))
def test_hostile_tso_requests_only_complete(raw, headers, claim, mss, length):
    mss = max(mss, 200) if length > 2000 else mss
    if raw.a.row().state != 3:
        raw.a.modify(1, STATE=0)
        raw.a.record.word(DB_SEND, 0)
        raw.a.to_rts()
    if length // max(mss, 1) > 60:
        length = 60 * max(mss, 1)
    post_tso(raw, headers, length, mss, claim)
    assert len(raw.a.statuses()) == 1
