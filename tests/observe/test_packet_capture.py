"""The capture: what leaves a port is in the file, as its sender addressed it and as the wire spoilt it."""

from __future__ import annotations

import ctypes
import io
import os

import pytest

from nicemu._jit import entry
from nicemu.observe.packet_capture import PacketCapture
from nicemu.tables import World, capture
from nicemu.tables.capture import CAPTURE_ROWS, MAX_CAPTURE
from nicemu.tables.packets import payload_address
from nicemu.tables.world import Capacity
from nicemu.wire.frame import RoceFrame, parse
from nicemu.wire.ip import Ipv4, Ipv6, flow_label_of, source_port_of
from tests.nic.conftest import connected
from tests.wire.test_pcapng import blocks

SMALL = Capacity(nics=2, qps=4, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=8, nodes=8, violations=8)
GUIDS = (0x0216_3EFF_FE00_0001, 0x0216_3EFF_FE00_0002)
GLOBAL = 0x2001 << 48


@entry("void(int64, int64, int64)")
def seen(world, link, p):
    """``capture`` for Python."""
    capture.capture(world, link, p)


@entry("int64(int64, int64)")
def payload_at(world, p):
    """``payload_address`` for Python."""
    return payload_address(world, p)


def packets(data: bytes) -> list[tuple[int, int, bytes, str]]:
    """(interface, ns, frame, comment) of each packet block."""
    found = []
    for kind, body in blocks(data):
        if kind == 6:
            interface, high, low, size, _ = [int.from_bytes(body[i : i + 4], "little") for i in range(0, 20, 4)]
            options = body[20 + (size + 3) // 4 * 4 :]
            comment = options[4 : 4 + int.from_bytes(options[2:4], "little")].decode() if options else ""
            found.append((interface, high << 32 | low, body[20 : 20 + size], comment))
    return found


class Bench:
    """A world of two NICs, one packet of NIC 1's QP 3 to NIC 2's QP 2, and a capture into memory."""

    def __init__(self) -> None:
        self.world = world = World(SMALL)
        for i in (1, 2):
            nic = world.nic[i]
            nic.av_base, nic.gid_base, nic.gid_count = 1 + (i - 1) * (SMALL.ahs + SMALL.qps), 1, SMALL.gids
        world.qp[3].number = 3
        self.row = row = world.packet[1]
        row.source_nic, row.dest_nic, row.qp, row.dest_qpn, row.opcode, row.pkey, row.psn = 1, 2, 3, 2, 4, 0xFFFF, 77
        row.payload = 13
        ctypes.memmove(payload_at(world.address, 1), b"thirteen byte", 13)
        self.stream = io.BytesIO()
        links = {1: ("nicemu0", "port 1"), 2: ("nicemu1", "port 1")}
        self.capture = PacketCapture(world, self.stream, GUIDS, links, lambda number: f"fault {number}: loss")

    def address(self, dgid: tuple[int, int], sgid: tuple[int, int] | None = None, **fields: int) -> None:
        """Give the packet an address vector, and the NIC a source GID at index 1."""
        vector = self.world.av[5]
        vector.sgid_index, (vector.dgid_high, vector.dgid_low) = 1, dgid
        for name, value in fields.items():
            vector[name] = value
        if sgid is not None:
            self.world.gid[2].high, self.world.gid[2].low, self.world.gid[2].type = *sgid, 2
        self.row.av = 5

    def take(self, link: int = 1) -> tuple[int, int, bytes, str]:
        """The packet is on a link: what is in the file then."""
        seen(self.world.address, link, 1)
        self.capture.drain()
        assert self.world.control[0].trap == 0
        return packets(self.stream.getvalue())[-1]

    def frame(self) -> RoceFrame:
        """The same, parsed; its ICRC and checksum must be right."""
        frame = parse(self.take()[2])
        assert frame.is_icrc_right and frame.is_checksum_right
        return frame


@pytest.fixture
def bench():
    """Nothing captured yet."""
    made = Bench()
    yield made
    made.world.close()


def test_off_it_keeps_nothing(bench):
    bench.world.control[0].capture = 0
    seen(bench.world.address, 1, 1)
    assert bench.world.control[0].capture_count == 0


def test_a_packet_is_on_its_link_at_its_time(bench):
    bench.world.control[0].now = 5_000_000_123
    interface, time, data, comment = bench.take(2)
    assert (interface, time, comment) == (1, 5_000_000_123, "")
    assert parse(data).payload == b"thirteen byte" and parse(data).bth.psn == 77


def test_an_unknown_link_gets_an_interface_when_it_carries_something(bench):
    assert [bench.take(link)[0] for link in (9, 1, 9)] == [2, 0, 2]
    assert b"link9" in bench.stream.getvalue()


def test_without_an_address_vector_nics_are_10_0_0_n(bench):
    frame = bench.frame()
    assert isinstance(frame.ip, Ipv4) and (frame.ip.source, frame.ip.dest) == (0x0A000001, 0x0A000002)
    assert (frame.ethernet.source, frame.ethernet.dest) == (0x00163E000001, 0x00163E000002)
    assert frame.udp.source_port == source_port_of(flow_label_of(3, 2))


def test_the_address_vector_decides_ipv6(bench):
    bench.address((GLOBAL, 9), (GLOBAL, 8), flow_label=0x12345, traffic_class=0xB8, hop_limit=7)
    frame = bench.frame()
    assert isinstance(frame.ip, Ipv6) and (frame.ip.source, frame.ip.dest) == (GLOBAL << 64 | 8, GLOBAL << 64 | 9)
    assert (frame.ip.flow_label, frame.ip.traffic_class, frame.ip.hop_limit) == (0x12345, 0xB8, 7)
    assert frame.udp.source_port == source_port_of(0x12345)


def test_a_mapped_gid_is_ipv4(bench):
    bench.address((0, 0xFFFF_0A000009), (0, 0xFFFF_0A000008), traffic_class=0x20)
    ip = bench.frame().ip
    assert isinstance(ip, Ipv4) and (ip.source, ip.dest, ip.tos, ip.ttl) == (0x0A000008, 0x0A000009, 0x20, 64)


def test_an_empty_source_gid_is_link_local_of_the_guid(bench):
    bench.address((-0x0180 << 48, 9))
    assert bench.frame().ip.source == 0xFE80 << 112 | GUIDS[0]


def test_the_address_is_that_of_the_moment(bench):
    """The vector may be gone when the rows are drained."""
    bench.address((GLOBAL, 9), (GLOBAL, 8))
    seen(bench.world.address, 1, 1)
    bench.world.av[5].dgid_low = 1
    bench.capture.drain()
    assert parse(packets(bench.stream.getvalue())[-1][2]).ip.dest == GLOBAL << 64 | 9


def test_a_multicast_packet_has_a_multicast_mac(bench):
    bench.address((-0x00F2 << 48, 0x01020304), (GLOBAL, 8))
    bench.row.multicast = 1
    assert bench.frame().ethernet.dest == 0x333301020304


def test_congestion_experienced_is_in_the_ip_header(bench):
    bench.row.ecn = 1
    assert bench.frame().ip.tos == 3


def test_an_injected_fault_is_a_comment(bench):
    bench.row.fault = 4
    assert bench.take()[3] == "fault 4: loss"


def test_a_corrupted_packet_is_in_the_file_as_the_wire_made_it(bench):
    good = bench.take()[2]
    bench.row.corrupt = 1 + 8 * 12  # first payload bit, behind the BTH
    bad = parse(bench.take()[2])
    assert bad.payload[0] == b"t"[0] ^ 0x80 and not bad.is_icrc_right and bad.icrc == parse(good).icrc


def test_a_destination_that_nobody_has_is_on_the_senders_side(bench):
    bench.row.dest_nic = 0
    assert bench.frame().ethernet.dest == 0


def test_a_forked_child_does_not_write_the_parents_rows(bench):
    seen(bench.world.address, 1, 1)
    bench.capture.pid = os.getpid() + 1
    bench.capture.drain()
    assert packets(bench.stream.getvalue()) == []


def test_the_table_traps_before_it_overflows(bench):
    """The engine drains at half; what one event adds must fit the rest."""
    assert MAX_CAPTURE < CAPTURE_ROWS == len(bench.world.capture)
    bench.world.control[0].capture_count = CAPTURE_ROWS
    seen(bench.world.address, 1, 1)
    assert bench.world.control[0].capture_count == CAPTURE_ROWS
    assert "table CAPTURE" in str(bench.world.trap_error())


def test_the_engine_stops_for_a_drain_in_time(bench):
    """FULL when the table is half full, and on it goes after ``on_trace``."""
    from tests.nic.testbench import Bench as NicBench

    nic = NicBench()
    stream = io.BytesIO()
    drained = PacketCapture(nic.world, stream, [nic.device.guid], {1: ("nicemu0", "")})
    nic.engine.on_trace = drained.drain
    rc = connected(nic)
    nic.world.control[0].capture_count = MAX_CAPTURE - 3
    rc.write(1, 12_000)
    nic.run()
    drained.drain()
    assert drained.packets > MAX_CAPTURE and nic.world.control[0].capture_count == 0
    frames = [parse(data) for _, _, data, _ in packets(stream.getvalue())[MAX_CAPTURE - 3 :]]
    sent = b"".join(frame.payload for frame in frames if 6 <= frame.bth.opcode <= 10)
    assert sent == rc.local.data[:12_000]
