"""Ingress port: ICRC, ECN marks and CNPs, port down; and RC over links that lose, double and damage packets."""

import pytest

from nicemu.config import NicProfile
from nicemu.config.fabric_profile import Impairment
from nicemu.fabric.fabric import Fabric
from nicemu.tables.trace import Ev
from nicemu.wire import opcode as bth
from tests.nic.conftest import Rc, connected
from tests.nic.packets import inject
from tests.nic.testbench import Bench

INTERVAL_NS = 4000
SEND_ONLY = dict(opcode=bth.ONLY, payload=0)


@pytest.fixture
def rc(bench: Bench) -> Rc:
    """Connected, with receives posted and the event log on."""
    rc = connected(bench)
    for k in range(8):
        rc.b.post_recv(k, rc.remote.sge())
    bench.log()
    return rc


def impair(rc: Rc, *rules: dict) -> Fabric:
    """Plant impairments on the NIC's own link."""
    return Fabric(rc.bench.world, None, [Impairment(**rule) for rule in rules])


def cnps(bench: Bench) -> list[tuple[int, int, int]]:
    """(sent, own qpn, peer's qpn) of each CNP in the log."""
    return [(a, b, c) for kind, _, a, b, c, _ in bench.trace() if kind == Ev.CNP]


def test_a_corrupt_packet_is_dropped_and_counted(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, corrupt=1, **SEND_ONLY)
    rc.bench.run()
    assert rc.bench.device.counters()["icrc_errors"] == 1
    assert rc.b.statuses() == []
    assert rc.bench.sent() == []


def test_a_corrupt_request_is_sent_again(rc: Rc) -> None:
    fabric = impair(rc, {"kind": "corrupt", "operations": ["WRITE_ONLY"], "packets": [1]})
    rc.write(1, 100)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]
    assert rc.remote.data[:100] == rc.local.data[:100]
    assert (fabric.fired, rc.bench.device.counters()["icrc_errors"]) == (1, 1)


def test_a_marked_packet_is_answered_with_a_cnp_to_its_sender(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, ecn=1, **SEND_ONLY)
    rc.bench.run()
    counters = rc.bench.device.counters()
    assert cnps(rc.bench) == [(1, rc.b.number, rc.a.number), (0, rc.a.number, rc.b.number)]
    assert (counters["ecn_marked_packets"], counters["cnps_sent"], counters["cnps_received"]) == (1, 1, 1)
    assert rc.b.statuses() == [(0, 0)]


def test_a_cnp_is_transport_4_operation_1(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, ecn=1, **SEND_ONLY)
    while not rc.bench.device.row.cnps_sent:
        assert rc.bench.engine_step()
    row = next(row for row in rc.bench.world.packet if row.transport == bth.CNP)
    assert row.transport << 5 | row.opcode == 0x81


def test_a_qp_sends_at_most_one_cnp_in_the_interval(rc: Rc) -> None:
    for k in range(4):
        inject(rc.bench, rc.a, rc.b, psn=k, ecn=1, delay=100 + k * (INTERVAL_NS // 2), **SEND_ONLY)
    rc.bench.run()
    assert rc.bench.device.counters()["ecn_marked_packets"] == 4
    assert rc.bench.device.counters()["cnps_sent"] == 2


def test_the_interval_comes_from_the_profile() -> None:
    bench = Bench(NicProfile(cnp_interval_ns=0))
    rc = connected(bench)
    for k in range(3):
        inject(bench, rc.a, rc.b, psn=k, ecn=1, **SEND_ONLY)
    bench.run()
    assert bench.device.counters()["cnps_sent"] == 3


def test_a_marked_packet_for_no_qp_gets_no_cnp(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, ecn=1, dest_qpn=99, **SEND_ONLY)
    rc.bench.run()
    assert rc.bench.device.counters()["ecn_marked_packets"] == 1
    assert rc.bench.device.counters()["cnps_sent"] == 0


def test_a_cnp_reaches_no_queue_pair(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, transport=bth.CNP, opcode=1)
    rc.bench.run()
    assert rc.bench.device.counters()["cnps_received"] == 1
    assert rc.bench.sent() == []


def test_a_marked_cnp_is_not_answered(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, transport=bth.CNP, opcode=1, ecn=1)
    rc.bench.run()
    assert rc.bench.device.counters()["cnps_sent"] == 0


def test_a_port_that_is_down_takes_nothing_in(rc: Rc) -> None:
    inject(rc.bench, rc.a, rc.b, **SEND_ONLY)
    Fabric(rc.bench.world).set_link_up(1, False)
    rc.bench.run()
    assert rc.bench.device.counters()["port_down_drops"] == 1
    assert rc.b.statuses() == []


def test_a_transfer_survives_everything_that_a_link_does() -> None:
    rc = connected(Bench(), pages=16)
    rules = (
        {"kind": "loss", "probability": 0.02}, {"kind": "corrupt", "probability": 0.02},
        {"kind": "duplicate", "probability": 0.05, "delay_ns": 700},
        {"kind": "reorder", "probability": 0.03, "delay_ns": 900}, {"kind": "delay", "jitter_ns": 300},
    )  # fmt: skip
    fabric = impair(rc, *rules)
    rc.write(1, 65536)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]
    assert rc.remote.data == rc.local.data
    assert all(count for _, count in fabric.firings())


def test_a_nak_that_no_honest_peer_sends_is_reached_on_purpose(rc: Rc) -> None:
    impair(rc, {"kind": "rewrite", "operations": ["ACKNOWLEDGE"], "field": "syndrome", "value": 0x62})
    rc.write(1, 100)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 10)]  # REM_ACCESS_ERR, which the responder never meant
