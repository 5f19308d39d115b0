"""scapy's RoCE layer (scapy.contrib.roce) computes the same ICRC and reads the same BTH."""

import logging
from dataclasses import replace

import pytest

from nicemu.wire.bth import Bth
from nicemu.wire.frame import build, parse
from nicemu.wire.ip import Ipv4
from nicemu.wire.opcode import CNP_OPCODE
from tests.wire.frames import PATHS, typical, typical_frames

logging.getLogger("scapy").setLevel(logging.ERROR)
roce = pytest.importorskip("scapy.contrib.roce", reason="scapy is not installed (pip install scapy)")
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Dot1Q, Ether  # noqa: E402

BTH_FIELDS = {
    "opcode": "opcode", "solicited": "solicited", "migreq": "migreq", "padcount": "pad", "version": "version",
    "pkey": "pkey", "fecn": "fecn", "becn": "becn", "resv6": "reserved6", "dqpn": "dest_qp", "ackreq": "ack_req",
    "resv7": "reserved7", "psn": "psn",
}  # fmt: skip


def recomputed(data: bytes) -> bytes:
    """The frame as scapy builds it from the fields it read, with an ICRC and checksums of its own."""
    packet = Ether(data)
    packet[roce.BTH].icrc = None
    if IP in packet:
        packet[IP].chksum = None
    return bytes(packet)


def test_every_frame_has_the_icrc_that_scapy_computes():
    """ICRC is computed over bytes, so that XRC, FLUSH and ATOMIC_WRITE, which scapy cannot name, are no exception."""
    for *_, frame in typical_frames():
        assert recomputed(frame.emit()) == frame.emit(), frame.text()


def test_scapy_reads_our_bth():
    for *_, frame in typical_frames():
        bth = Ether(frame.emit())[roce.BTH]
        assert {ours: getattr(bth, theirs) for theirs, ours in BTH_FIELDS.items()} == {
            name: getattr(frame.bth, name) for name in BTH_FIELDS.values()}, frame.text()  # fmt: skip
        assert bth.icrc == int.from_bytes(frame.icrc.to_bytes(4, "little"), "big")


def test_scapy_reads_our_ack():
    frame = typical(0x11, 0, PATHS["ipv4"])
    ack = Ether(frame.emit())[roce.AETH]
    assert (ack.syndrome, ack.msn) == (frame.extended[0].syndrome, frame.extended[0].msn)


def test_scapy_reads_addresses_and_tag():
    for *_, frame in typical_frames():
        packet = Ether(frame.emit())
        assert packet[UDP].sport == frame.udp.source_port and packet[UDP].chksum == 0
        assert (Dot1Q in packet) == (frame.vlan is not None)
        assert (IP in packet) == isinstance(frame.ip, Ipv4) and (IPv6 in packet) != (IP in packet)
        if frame.vlan:
            assert packet[Dot1Q].vlan == frame.vlan.vid


def test_a_congestion_notification_of_scapy_is_ours():
    path = replace(PATHS["ipv4"], source_port=0xC123)
    theirs = bytes(
        Ether(dst="00:16:3e:00:00:02", src="00:16:3e:00:00:01")
        / IP(src="10.0.0.1", dst="10.0.0.2", flags="DF", id=0)
        / UDP(sport=0xC123, dport=4791, chksum=0)
        / roce.cnp(dqpn=0x55)
    )
    ours = build(path, Bth(CNP_OPCODE, becn=1, dest_qp=0x55), (), bytes(16))
    assert parse(theirs) == ours and theirs == ours.emit()
