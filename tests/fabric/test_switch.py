"""The switch: store and forward, output queues, ECN, pause, multicast."""

from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from tests.fabric.wires import DELAY_NS, SEND_BYTES, Wires, joins, signed

NS = SEND_BYTES * 80 // 1000
BIG = dict(payload=4096 - SEND_BYTES)
"""A packet of 4096 bytes on the wire: 327 ns at 100 Gb/s."""
SLOW = {"nics": [0], "rate_gbps": 10}
"""The link that everybody sends to."""


def incast(wires: Wires, senders: tuple[int, ...] = (2, 3), count: int = 20) -> None:
    """``senders`` send to NIC 1 as fast as their ports can."""
    for k in range(count):
        for nic in senders:
            wires.send(at=k * 328, source_nic=nic, dest_nic=1, psn=nic * 1000 + k, **BIG)


def test_a_packet_is_stored_then_forwarded() -> None:
    wires = Wires(fabric={"switch": {"latency_ns": 300}})
    wires.send()
    assert wires.arrivals() == [(NS + DELAY_NS + 300 + NS + DELAY_NS, 2, 0)]


def test_packets_of_two_ingress_ports_leave_one_output_after_each_other_in_the_order_they_came() -> None:
    wires = Wires(3, fabric={"switch": {"latency_ns": 0}})
    wires.send(source_nic=2, dest_nic=1, psn=20)
    wires.send(source_nic=3, dest_nic=1, psn=30)
    wires.send(source_nic=2, dest_nic=1, psn=21, at=NS)
    first = 2 * (NS + DELAY_NS)
    assert wires.arrivals() == [(first, 1, 20), (first + NS, 1, 30), (first + 2 * NS, 1, 21)]


def test_one_output_does_not_block_another() -> None:
    wires = Wires(3, fabric={"links": [SLOW], "switch": {}})
    wires.send(source_nic=2, dest_nic=1, psn=1, **BIG)
    wires.send(source_nic=2, dest_nic=1, psn=2, at=328, **BIG)
    wires.send(source_nic=2, dest_nic=3, psn=3, at=656)
    assert wires.psns() == [3, 1, 2]


def test_an_output_queue_without_pause_drops_its_tail() -> None:
    wires = Wires(3, fabric={"links": [SLOW], "switch": {"queue_bytes": 3 * 4096}})
    incast(wires)
    arrived = len(wires.arrivals())
    assert arrived < 40
    assert arrived + wires.link(1, out=False).queue_drops == 40
    assert wires.leaked == 0


def test_pause_prevents_loss() -> None:
    pause = {"xoff_bytes": 4 * 4096, "xon_bytes": 4096}
    wires = Wires(3, fabric={"links": [SLOW], "switch": {"pause": pause}})
    incast(wires)
    assert sorted(wires.psns()) == [nic * 1000 + k for nic in (2, 3) for k in range(20)]
    assert wires.total("pauses") > 0
    assert wires.total("queue_drops") == 0


def test_a_paused_sender_holds_its_packets_until_xon() -> None:
    pause = {"xoff_bytes": 2 * 4096, "xon_bytes": 0}
    wires = Wires(3, fabric={"links": [SLOW, {"delay_ns": 10}], "switch": {"pause": pause}})
    incast(wires, senders=(2,), count=10)
    wires.run(until=328 * 9)
    assert wires.link(2).paused == 1
    assert wires.link(2).queued > 0
    assert wires.psns() == [2000 + k for k in range(10)]
    assert [row[2] for row in wires.log(Ev.LINK_PAUSE)][:2] == [1, 0]


def test_a_pause_stops_only_the_port_that_fills_the_switch() -> None:
    pause = {"xoff_bytes": 2 * 4096, "xon_bytes": 4096}
    wires = Wires(4, fabric={"links": [SLOW], "switch": {"pause": pause}})
    incast(wires, senders=(2,))
    wires.send(at=5000, source_nic=3, dest_nic=4, psn=1)
    wires.run()
    assert wires.link(2).pauses > 0
    assert wires.link(3).pauses == 0


def marks(wires: Wires) -> list[int]:
    """For each packet that arrived, whether it was marked."""
    wires.run()
    return [row[-1] for row in wires.log(Ev.RECEIVE)]


def test_no_packet_is_marked_below_the_lower_threshold() -> None:
    wires = Wires(3, fabric={"links": [SLOW], "switch": {"ecn": {"kmin_bytes": 10**6, "kmax_bytes": 10**6}}})
    incast(wires)
    assert sum(marks(wires)) == 0


def test_with_one_threshold_every_packet_that_finds_so_much_is_marked() -> None:
    ecn = {"kmin_bytes": 3 * 4096, "kmax_bytes": 3 * 4096}
    wires = Wires(2, fabric={"links": [SLOW], "switch": {"ecn": ecn}})
    incast(wires, senders=(2,), count=6)
    assert marks(wires) == [0, 0, 0, 0, 1, 1]
    assert wires.link(1, out=False).ecn_marks == 2


def test_between_the_thresholds_some_are_marked_from_the_upper_one_on_all() -> None:
    full = 100 * 4096
    ecn = {"kmin_bytes": 0, "kmax_bytes": full, "pmax": 0.5}
    wires = Wires(3, fabric={"links": [SLOW], "switch": {"ecn": ecn}})
    incast(wires, count=60)
    wires.run()
    out = wires.link(1, out=False)
    queued = [row[-1] for row in wires.log(Ev.ECN_MARK)]
    below, above = sum(each < full for each in queued), sum(each >= full for each in queued)
    assert out.ecn_marks == below + above
    assert 10 < below < 60  # about a quarter of the first hundred
    assert above > 0
    assert above == sum(row[-1] for row in wires.log(Ev.RECEIVE)[-above:])


def test_marks_depend_on_the_seed() -> None:
    def marked(seed: int) -> list[int]:
        ecn = {"kmin_bytes": 0, "kmax_bytes": 100 * 4096, "pmax": 0.5}
        wires = Wires(3, fabric={"links": [SLOW], "switch": {"ecn": ecn}}, seed=seed)
        incast(wires)
        return marks(wires)

    assert marked(1) == marked(1)
    assert marked(1) != marked(2)


def test_a_cnp_is_not_marked() -> None:
    wires = Wires(2, fabric={"links": [SLOW], "switch": {"ecn": {"kmin_bytes": 0, "kmax_bytes": 1}}})
    wires.send(source_nic=2, dest_nic=1, **BIG)
    wires.send(source_nic=2, dest_nic=1, at=328, **BIG)
    wires.send(source_nic=2, dest_nic=1, at=656, transport=bth.CNP, opcode=1)
    wires.send(source_nic=2, dest_nic=1, at=700)
    assert marks(wires) == [0, 0, 0, 1]


def test_the_switch_copies_a_multicast_packet_to_each_output_with_a_member_in_order_of_the_nics() -> None:
    wires = Wires(5, fabric={"switch": {}})
    for nic in (5, 2, 4, 1):
        joins(wires, nic, 6, low=3)
    wires.send(multicast=1, transport=bth.UD, dgid_high=signed(0xFF0E << 48), dgid_low=3)
    assert [nic for _, nic, _ in wires.arrivals()] == [1, 2, 4, 5]
    assert [int(wires.link(nic, out=nic == 1).packets) for nic in (1, 2, 3)] == [1, 1, 0]
    assert wires.leaked == 0


def test_a_nic_with_its_cable_out_gets_nothing_through_the_switch() -> None:
    wires = Wires(3, fabric={"switch": {}})
    wires.fabric.set_link_up(2, False)
    wires.send(dest_nic=2)
    wires.send(dest_nic=3, at=100)
    assert wires.psns() == [1]
    assert wires.leaked == 0


def test_a_nic_reaches_itself_through_the_switch() -> None:
    wires = Wires(1, fabric={"switch": {}})
    wires.send(dest_nic=1)
    assert wires.psns() == [0]
