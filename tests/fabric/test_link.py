"""Links: size on the wire, rate, delay, MTU, queue, port down."""

import pytest

from nicemu.fabric.size import is_ipv6
from nicemu.tables.records import LinkDrop
from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from nicemu.wire.size import ip_bytes
from tests.fabric.wires import DELAY_NS, SEND_BYTES, Wires, joins, signed


def wire_ns(size: int, gbps: int = 100) -> int:
    """How long ``size`` bytes take."""
    return size * (8000 // gbps) // 1000


def test_a_packet_arrives_after_its_bytes_and_the_delay_to_the_nanosecond() -> None:
    wires = Wires()
    wires.send(at=500, payload=4096)
    assert wires.arrivals() == [(500 + (SEND_BYTES + 4096) * 80 // 1000 + DELAY_NS, 2, 0)]


@pytest.mark.parametrize(
    ("transport", "operation", "payload", "size"),
    [
        (bth.RC, bth.ONLY, 0, 82),
        (bth.RC, bth.ONLY, 1, 86),  # padded to 4
        (bth.RC, bth.ONLY, 1021, 82 + 1024),
        (bth.RC, bth.WRITE + bth.FIRST, 1024, 82 + 16 + 1024),
        (bth.RC, bth.WRITE + bth.ONLY_IMM, 0, 82 + 20),
        (bth.RC, bth.READ_REQUEST, 0, 98),
        (bth.RC, bth.READ_RESP_MIDDLE, 256, 82 + 256),
        (bth.RC, bth.READ_RESP_LAST, 256, 86 + 256),
        (bth.RC, bth.ACKNOWLEDGE, 0, 86),
        (bth.RC, bth.ATOMIC_ACK, 0, 94),
        (bth.RC, bth.COMPARE_SWAP, 0, 110),
        (bth.RC, bth.FLUSH, 0, 102),
        (bth.UD, bth.ONLY_IMM, 0, 94),
        (bth.XRC, bth.ONLY, 0, 86),
        (bth.XRC, bth.ACKNOWLEDGE, 0, 86),
        (bth.CNP, 1, 0, 98),
    ],
)
def test_the_size_on_the_wire_is_that_of_the_opcodes_headers(transport, operation, payload, size) -> None:
    assert ip_bytes(transport, operation, payload, False) + 38 == size
    wires = Wires()
    wires.send(transport=transport, opcode=operation, payload=payload)
    wires.run()
    assert wires.link(1).bytes == size


def test_ipv6_takes_twenty_bytes_more() -> None:
    wires = Wires()
    wires.send(dgid_high=signed(0xFE80 << 48), dgid_low=7)
    wires.run()
    assert wires.link(1).bytes == SEND_BYTES + 20


def test_the_address_of_a_connected_qp_decides_between_ipv4_and_ipv6() -> None:
    wires = Wires()
    wires.world.av[1].dgid_high, wires.world.av[1].dgid_low = 0, 0xFFFF_0A00_0001
    wires.world.av[2].dgid_high, wires.world.av[2].dgid_low = signed(0xFE80 << 48), 1
    wires.send(av=1)
    wires.send(av=2, at=100)
    wires.run()
    assert wires.link(1).bytes == 2 * SEND_BYTES + 20


@pytest.mark.parametrize(
    ("high", "low", "ipv6"),
    [(0, 0xFFFF_0A00_0001, False), (0, 0, False), (0, 1, True), (0, 0x1_FFFF_0000_0000, True), (-1, 0, True)],
)
def test_only_a_mapped_address_is_ipv4(high: int, low: int, ipv6: bool) -> None:
    assert bool(is_ipv6(high, low)) is ipv6


def test_a_slower_link_queues_what_the_port_sends_faster() -> None:
    wires = Wires(fabric={"links": [{"rate_gbps": 10, "delay_ns": 0}]})
    wires.burst(3)
    ns = SEND_BYTES * 800 // 1000
    assert wires.arrivals() == [(ns * k, 2, k - 1) for k in (1, 2, 3)]


def test_a_link_is_never_faster_than_its_port() -> None:
    wires = Wires(fabric={"links": [{"rate_gbps": 400, "delay_ns": 0}]})
    wires.send(payload=4096)
    assert wires.arrivals()[0][0] == wire_ns(SEND_BYTES + 4096)


def test_a_full_queue_drops_its_tail_and_counts_it() -> None:
    wires = Wires(fabric={"links": [{"rate_gbps": 1, "queue_packets": 2}]})
    wires.burst(6)
    assert wires.psns() == [0, 1, 2]
    assert wires.link(1).queue_drops == 3
    assert [reason for *_, reason in wires.log(Ev.LINK_DROP)] == [LinkDrop.QUEUE] * 3


def test_a_queue_is_limited_in_bytes_as_well() -> None:
    wires = Wires(fabric={"links": [{"rate_gbps": 1, "queue_bytes": 3 * SEND_BYTES}]})
    wires.burst(6)
    assert wires.psns() == [0, 1, 2, 3]


def test_the_queue_takes_again_when_a_packet_has_left() -> None:
    wires = Wires(fabric={"links": [{"rate_gbps": 1, "queue_packets": 1}]})
    wires.burst(2)
    wires.send(at=700)
    assert wires.psns() == [0, 1, 2]


def test_a_packet_larger_than_the_mtu_is_dropped_and_counted() -> None:
    wires = Wires(fabric={"links": [{"mtu": 1044}]})
    wires.send(payload=1000)
    wires.send(payload=1001, at=500)
    assert wires.psns() == [0]
    assert wires.link(1).mtu_drops == 1
    assert wires.leaked == 0


def test_only_the_named_nics_get_another_link() -> None:
    wires = Wires(3, fabric={"links": [{"nics": [1], "delay_ns": 7}]})
    wires.send(source_nic=1, dest_nic=3)
    wires.send(source_nic=2, dest_nic=3)
    ns = wire_ns(SEND_BYTES)
    assert [time for time, *_ in wires.arrivals()] == [ns + 7, ns + DELAY_NS]


@pytest.mark.parametrize("nic", [1, 2])
def test_a_port_that_is_down_loses_everything_in_both_directions(nic: int) -> None:
    wires = Wires()
    wires.fabric.set_link_up(nic, False)
    wires.send(source_nic=1, dest_nic=2)
    wires.send(source_nic=2, dest_nic=1)
    assert wires.psns() == []
    assert wires.total("down_drops") == 2
    assert wires.leaked == 0


def test_a_port_that_is_up_again_carries_packets() -> None:
    wires = Wires()
    wires.fabric.set_link_up(2, False)
    wires.send()
    wires.run()
    wires.fabric.set_link_up(2, True)
    wires.send(at=10_000)
    assert wires.psns() == [1]


def test_a_multicast_packet_reaches_every_nic_with_a_member_once_the_senders_too() -> None:
    wires = Wires(4)
    joins(wires, 1, 5, low=9)
    joins(wires, 2, 6, low=9)
    joins(wires, 2, 8, low=9)
    joins(wires, 3, 6, low=10)
    joins(wires, 4, 6, low=9)
    wires.send(multicast=1, dest_nic=0, transport=bth.UD, dgid_high=signed(0xFF0E << 48), dgid_low=9)
    assert [nic for _, nic, _ in wires.arrivals()] == [1, 2, 4]
    assert len({time for time, *_ in wires.arrivals()}) == 1
    assert wires.leaked == 0


def test_a_multicast_packet_without_members_is_gone() -> None:
    wires = Wires()
    wires.send(multicast=1, transport=bth.UD, dgid_low=9)
    assert wires.psns() == []
    assert wires.leaked == 0


def test_a_packet_for_no_nic_of_the_lab_is_dropped() -> None:
    wires = Wires()
    wires.send(dest_nic=9)
    wires.run()
    assert [reason for *_, reason in wires.log(Ev.LINK_DROP)] == [LinkDrop.NO_DESTINATION]
    assert wires.leaked == 0


def test_a_wire_between_two_nics_costs_one_event_a_packet_besides_its_departure() -> None:
    wires = Wires()
    wires.burst(10)
    wires.run()
    assert wires.world.control[0].ran == 20


def seen(wires: Wires) -> list[tuple[int, int, int]]:
    """(link, time, fault) of each packet in the capture."""
    rows = wires.world.capture[: int(wires.world.control[0].capture_count)]
    return list(zip(rows.link.tolist(), rows.time.tolist(), rows.fault.tolist(), strict=True))


def capturing(**options: object) -> Wires:
    """A fabric with the capture on."""
    wires = Wires(**options)
    wires.world.control[0].capture = 1
    return wires


def test_a_capture_sees_a_packet_where_it_gets_onto_its_link() -> None:
    wires = capturing()
    wires.send(at=100)
    wires.send(at=200, source_nic=2, dest_nic=1)
    wires.run()
    assert seen(wires) == [(1, 100, 0), (3, 200, 0)]


def test_a_capture_sees_a_packet_that_is_lost_with_the_number_of_its_fault() -> None:
    wires = capturing(impairments=({"kind": "loss"},))
    wires.send(at=100)
    assert wires.psns() == []
    assert seen(wires) == [(1, 100, 1)]


def test_a_capture_sees_what_leaves_the_switch_and_what_is_hit_on_the_way_in() -> None:
    wires = capturing(fabric={"switch": {"latency_ns": 0}})
    wires.send()
    wires.run()
    assert [link for link, *_ in seen(wires)] == [1, 4]
    wires = capturing(impairments=({"kind": "loss", "direction": "in"},))
    wires.send(at=100)
    wires.run()
    assert seen(wires) == [(1, 100, 0), (4, 100, 1)]


@pytest.mark.parametrize("switch", [None, {}])
@pytest.mark.parametrize("rules", [(), ({"kind": "loss", "count": 0, "direction": "both"},)])
def test_both_links_of_the_way_count_the_packet(switch: dict | None, rules: tuple) -> None:
    wires = Wires(fabric={"switch": switch}, impairments=rules)
    wires.send()
    wires.run()
    assert [int(wires.link(nic, out).packets) for nic in (1, 2) for out in (True, False)] == [1, 0, 0, 1]
