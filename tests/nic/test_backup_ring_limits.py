"""The backup ring: how much it holds, and what becomes of its packets when their QP or region ends."""

from __future__ import annotations

import pytest

from nicemu.abi.command import Command
from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from tests.nic.backup_ends import QKEY, Ud, free_packets, in_ring, ring, ring_bench, serve


@pytest.fixture
def ud() -> Ud:
    """UD QPs on a NIC with a backup ring."""
    return Ud(ring_bench())


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [dict(entries=3), dict(bytes=3 * (100 + 64)), dict(bytes=4 * (100 + 64) - 1)])
def test_what_finds_the_ring_full_is_dropped_and_counted(size):
    ud = Ud(ring_bench(**size))
    for wr_id in range(6):
        ud.b.post_recv(wr_id, ud.cold.sge(400, 400 * wr_id))
        ud.send(wr_id, 100, offset=wr_id)
    fault = ud.bench.fault()
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=0, drops=3)
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    ud.send(6, 50)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(0, 140), (1, 140), (2, 140), (3, 90)]
    assert ring(ud.bench) == dict(packets=3, delivered=3, discards=0, drops=3)


@pytest.mark.parametrize("size", [dict(entries=0), dict(bytes=0), dict(bytes=163)])
def test_a_packet_that_never_fits_is_dropped_and_its_page_still_faulted_in(size):
    ud = Ud(ring_bench(**size))
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1, 100)
    serve(ud.bench, ud.cold)
    assert ud.b.statuses() == [] and ring(ud.bench) == dict(packets=0, delivered=0, discards=0, drops=1)
    ud.send(2, 200)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(1, 240)]


def test_the_ring_is_the_nic_s_and_one_qp_can_fill_it():
    ud = Ud(ring_bench(entries=2))
    c = ud.qp(4)
    for qp, offset in ((ud.b, 0), (ud.b, 400), (c, 4096)):
        qp.post_recv(1, ud.cold.sge(400, offset))
    for qpn in (3, 3, 4):
        ud.send(1, qpn=qpn)
    serve(ud.bench, ud.cold)
    assert ud.b.statuses() == [(1, 0), (1, 0)] and c.statuses() == []
    assert ring(ud.bench) == dict(packets=2, delivered=2, discards=0, drops=1)


def test_after_a_drop_for_want_of_room_the_open_fault_serves_the_next_packet():
    """The fault of the first packet, dropped, is open still: the second one merges into it and waits for its resume."""
    ud = Ud(ring_bench(bytes=100))
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1, 100)
    ud.send(2, 30)
    assert serve(ud.bench, ud.cold) == 1
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(1, 70)]
    assert ring(ud.bench) == dict(packets=1, delivered=1, discards=0, drops=1)
    assert ud.bench.device.row.page_faults_merged == 1


def test_the_requests_in_the_ring_leave_the_room_of_those_that_wait_for_a_read(ud):
    """MOST_WAITING_OF_ALL counts requests behind READs only."""
    ud.b.post_recv(1, ud.cold.sge(4096))
    ud.send(1)
    ud.bench.fault()
    row = ud.bench.device.row
    assert (row.rx_waiting, row.backup_packets) == (1, 1)


# Away with the QP -----------------------------------------------------------------------------------------------------


def held(ud: Ud) -> dict[str, int]:
    """Three datagrams in the ring, two more receives posted; the open fault."""
    for wr_id in range(5):
        ud.b.post_recv(wr_id, ud.cold.sge(400, 400 * wr_id))
    for wr_id in range(3):
        ud.send(wr_id)
    fault = ud.bench.fault()
    assert in_ring(ud.bench) == 3
    return fault


@pytest.mark.parametrize("end", ["reset", "err", "destroy"])
def test_a_qp_that_ends_takes_its_packets_along(ud, end):
    fault = held(ud)
    if end == "destroy":
        ud.bench.command(Command.DESTROY_QP, ud.b.number)
    else:
        ud.b.modify(1, STATE=QpState.RESET if end == "reset" else QpState.ERR)
    ud.bench.run()
    flushed = [(n, WcStatus.WR_FLUSH_ERR) for n in range(5)]
    assert ud.b.statuses() == (flushed if end == "err" else [])
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0)
    ud.cold.map()
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [] and free_packets(ud.bench) == 0
    assert ud.bench.device.row.rx_waiting == 0


def test_the_next_life_of_a_qp_receives_as_the_first(ud):
    fault = held(ud)
    ud.b.modify(1, STATE=QpState.RESET)
    ud.b.record.word(8, 0)
    ud.b.ready(QKEY)
    ud.b.post_recv(7, ud.warm.sge(4096))
    ud.send(3, 50)
    ud.bench.run()
    assert [(c["wr_id"], c["byte_len"]) for c in ud.b.cq.poll()] == [(7, 90)]
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [] and ud.b.row().state == QpState.RTS


def test_a_resume_for_the_last_life_does_not_release_this_one_s_packets(ud):
    fault = held(ud)
    ud.b.modify(1, STATE=QpState.RESET)
    ud.b.record.word(8, 0)
    ud.b.ready(QKEY)
    ud.b.post_recv(7, ud.cold.sge(4096, 4096))
    ud.bench.resume(fault["token"])
    ud.send(3, 50)
    second = ud.bench.fault()
    assert in_ring(ud.bench) == 1
    ud.cold.map()
    ud.bench.resume(second["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(7, 0)]


def test_a_dead_device_discards(ud):
    held(ud)
    ud.bench.device.raise_event(AsyncEvent.DEVICE_FATAL)
    ud.bench.run()
    assert ud.b.statuses() == [(n, WcStatus.WR_FLUSH_ERR) for n in range(5)]
    assert ring(ud.bench)["discards"] == 3 and free_packets(ud.bench) == 0


def test_a_region_deregistered_meanwhile_is_an_error_of_the_receiver_and_the_rest_is_discarded(ud):
    fault = held(ud)
    ud.bench.command(Command.DESTROY_MKEY, ud.cold.index)
    ud.bench.resume(fault["token"])
    ud.bench.run()
    assert ud.b.statuses() == [(0, WcStatus.LOC_PROT_ERR)] + [(n, WcStatus.WR_FLUSH_ERR) for n in range(1, 5)]
    assert ud.b.row().state == QpState.ERR
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0) and free_packets(ud.bench) == 0


def test_a_fault_that_cannot_be_resolved_is_an_error_of_the_receiver_and_the_rest_is_discarded(ud):
    fault = held(ud)
    ud.bench.resume(fault["token"], error=1)
    ud.bench.run()
    assert ud.b.statuses() == [(0, WcStatus.LOC_PROT_ERR)] + [(n, WcStatus.WR_FLUSH_ERR) for n in range(1, 5)]
    assert ring(ud.bench) == dict(packets=3, delivered=0, discards=3, drops=0)
