"""Retries: RNR, sequence NAK, timeout; what each consumes and what exhausts them."""

from itertools import pairwise

import pytest

from nicemu.abi.verbs import QpState, WcStatus
from nicemu.config import NicProfile
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.image_files import written
from tests.nic.packets import DOUBLE, DROP, Wire
from tests.nic.testbench import Bench

RNR, RETRY = WcStatus.RNR_RETRY_EXC_ERR, WcStatus.RETRY_EXC_ERR
FLUSHED = WcStatus.WR_FLUSH_ERR


def counter(bench, name):
    """A NIC counter."""
    return int(bench.device.row[name])


def test_a_send_without_receive_is_rnr_naked_and_succeeds_later(bench):
    rc = connected(bench, MIN_RNR_TIMER=14)
    data = rc.local.data
    rc.send(1, 100)
    bench.run_for(1_000_000)
    assert counter(bench, "rnr_naks_sent") == 1 and rc.a.statuses() == []
    rc.b.post_recv(5, rc.remote.sge())
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.b.statuses() == [(5, 0)]
    assert rc.remote.data[:100] == data[:100]


@pytest.mark.parametrize("code, ns", [(1, 10_000), (9, 240_000), (14, 1_280_000), (0, 655_360_000)])
def test_the_requester_waits_at_least_the_timer_of_the_nak(bench, code, ns):
    rc = connected(bench, MIN_RNR_TIMER=code)
    bench.log()
    rc.send(1, 8)
    bench.run_for(2 * ns + 50_000)
    sends = [time for kind, time, a, *_ in bench.trace() if kind.name == "SEND" and a == RcOpcode.SEND_ONLY]
    assert len(sends) >= 2
    assert ns <= sends[1] - sends[0] < ns + 10_000


@pytest.mark.parametrize("retries", [0, 1, 6])
def test_rnr_retries_run_out(bench, retries):
    rc = connected(bench, RNR_RETRY=retries)
    rc.send(1, 8)
    rc.write(2, 8)
    bench.run()
    assert rc.a.statuses() == [(1, RNR), (2, FLUSHED)]
    assert counter(bench, "rnr_naks_sent") == retries + 1
    assert rc.a.row().state == QpState.ERR


def test_rnr_retry_7_is_infinite(bench):
    rc = connected(bench, RNR_RETRY=7)
    rc.send(1, 8)
    bench.run_for(3_000_000)
    assert counter(bench, "rnr_naks_sent") > 100 and rc.a.statuses() == []


def test_an_rnr_nak_does_not_consume_a_timeout_retry(bench):
    rc = connected(bench, RNR_RETRY=7, RETRY_CNT=1)
    rc.send(1, 8)
    bench.run_for(1_000_000)
    assert rc.a.row().retries == 1 and counter(bench, "timeouts") == 0


def test_only_later_requests_of_the_same_qp_are_held(bench):
    rc = connected(bench)
    other = type(rc.a)(bench, 7, type(rc.a.cq)(bench, 7))
    peer = type(rc.a)(bench, 8, other.cq)
    other.connect(peer)
    peer.connect(other)
    rc.send(1, 8)
    rc.write(2, 8)
    other.post_send(9, 0, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    bench.run_for(500_000)
    assert rc.a.statuses() == [] and other.statuses() == [(9, 0)]


@pytest.mark.parametrize("retries", [0, 1, 3, 7])
def test_a_lost_peer_exhausts_the_retries(bench, retries):
    rc = connected(bench, RETRY_CNT=retries, TIMEOUT=5)
    rc.b.modify(1, STATE=QpState.RESET)
    start = bench.world.now
    rc.write(1, 3000)
    rc.write(2, 8)
    bench.run()
    assert rc.a.statuses() == [(1, RETRY), (2, FLUSHED)]
    assert counter(bench, "timeouts") == retries + 1
    assert bench.world.now - start >= (retries + 1) * 131_072


def test_a_peer_that_does_not_exist_exhausts_the_retries(bench):
    rc = connected(bench, DEST_NIC=0, TIMEOUT=1)
    rc.write(1, 8)
    bench.run()
    assert rc.a.statuses() == [(1, RETRY)]


def test_retry_cnt_7_is_infinite_where_the_profile_says_so():
    bench = Bench(NicProfile(retry_cnt_7_infinite=True))
    rc = connected(bench, TIMEOUT=1)
    rc.b.modify(1, STATE=QpState.RESET)
    rc.write(1, 8)
    bench.run_for(2_000_000)
    assert counter(bench, "timeouts") > 100 and rc.a.statuses() == []


def test_timeout_0_never_expires(bench):
    rc = connected(bench, TIMEOUT=0)
    rc.b.modify(1, STATE=QpState.RESET)
    rc.write(1, 8)
    bench.run()
    assert counter(bench, "timeouts") == 0 and rc.a.statuses() == []


@pytest.mark.parametrize("code", [1, 5, 10, 14])
def test_the_ack_timer_expires_between_t_and_4_t(bench, code):
    rc = connected(bench, TIMEOUT=code)
    rc.b.modify(1, STATE=QpState.RESET)
    bench.log()
    rc.write(1, 8)
    bench.run_for(10 * (4096 << code))
    trace = bench.trace()
    sent = next(time for kind, time, *_ in trace if kind.name == "SEND")
    expired = next(time for kind, time, *_ in trace if kind.name == "TIMEOUT")
    assert 4096 << code <= expired - sent + 1000 and expired - sent <= 4 * (4096 << code)


def test_the_firmware_floor_holds_the_timer_back():
    bench = Bench(NicProfile(ack_timeout_floor_ns=500_000_000))
    rc = connected(bench, TIMEOUT=1)
    rc.b.modify(1, STATE=QpState.RESET)
    rc.write(1, 8)
    bench.run_for(499_000_000)
    assert counter(bench, "timeouts") == 0
    bench.run_for(2_000_000)
    assert counter(bench, "timeouts") == 1


def test_a_timer_that_firmware_shortens_expires_at_its_new_time():
    """An event for the longer one is in the wheel already; it is nobody's."""
    bench = Bench(firmware_image=written(
        "mine = qp_state('starts')\n\n\ndef ack_timeout(world, row, arg):\n    mine(world, row).starts += 1\n"
        "    return 10_000_000 if mine(world, row).starts < 2 else 20_000\n"))  # fmt: skip
    rc = connected(bench)
    rc.write(1, 8)
    bench.run_for(100_000)
    rc.b.modify(1, STATE=QpState.RESET)
    bench.log()
    begun = bench.world.now
    rc.write(2, 8)
    bench.run_for(30_000_000)
    expired = [time for kind, time, *_ in bench.trace() if kind.name == "TIMEOUT"]
    assert [round((after - before) / 1000) for before, after in pairwise([begun, *expired])] == [20] * 8
    assert bench.world.control[0].pending == bench.world.control[0].stale


def test_progress_reloads_both_counters(bench):
    rc = connected(bench, RETRY_CNT=2, RNR_RETRY=2, TIMEOUT=3)
    losses = []

    def lose_two_of_three(row):
        losses.append(1)
        return DROP if row.opcode < RcOpcode.ACKNOWLEDGE and len(losses) % 3 else None

    for wr_id in range(6):
        rc.write(wr_id, 8)
        Wire(bench, lose_two_of_three).run()
    assert rc.a.statuses() == [(n, 0) for n in range(6)]
    assert counter(bench, "timeouts") > 2
    assert (rc.a.row().retries, rc.a.row().rnr_retries) == (2, 2)


def test_a_sequence_nak_goes_back_to_the_gap_and_costs_a_retry(bench):
    rc = connected(bench, RETRY_CNT=3)
    lost = []

    def lose_the_second(row):
        if row.opcode == RcOpcode.WRITE_MIDDLE and not lost:
            lost.append(int(row.psn))
            return DROP
        return None

    bench.log()
    rc.write(1, 5000)
    Wire(bench, lose_the_second).run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:5000] == rc.local.data[:5000]
    resent = [b for kind, _, a, b, *_ in bench.trace() if kind.name == "RETRANSMIT"]
    assert resent == lost and counter(bench, "sequence_naks_sent") == 1 and counter(bench, "timeouts") == 0


def test_the_timer_does_not_run_while_nothing_is_outstanding(rc):
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]
    rc.bench.run_for(10_000_000_000)
    assert counter(rc.bench, "timeouts") == 0


def test_a_lost_ack_costs_a_timeout_and_the_write_is_not_done_twice(bench):
    rc = connected(bench, TIMEOUT=3)
    lost = []

    def lose_the_ack(row):
        if row.opcode == RcOpcode.ACKNOWLEDGE and not lost:
            lost.append(1)
            return DROP
        return None

    rc.add(1, 0)
    rc.write(2, 8)
    bench.log()
    Wire(bench, lose_the_ack).run()
    writes = [rest for rest in bench.dmas() if rest[0] == rc.remote.index and rest[3]]
    assert rc.a.statuses() == [(1, 0), (2, 0)] and counter(bench, "timeouts") == 1
    assert len(writes) == 2 and counter(bench, "duplicates") >= 1


def test_a_copy_of_a_sequence_nak_costs_nothing(bench):
    """One retry is enough for one lost packet, however often the wire repeats the NAK."""
    rc = connected(bench, RETRY_CNT=1)
    lost = []

    def lose_the_first_and_double_naks(row):
        if row.opcode == RcOpcode.ACKNOWLEDGE and row.syndrome == 0x60:
            return DOUBLE
        if not lost:
            return lost.append(int(row.psn)) or DROP
        return None

    rc.write(1, 8)
    rc.write(2, 8)
    Wire(bench, lose_the_first_and_double_naks).run()
    assert rc.a.statuses() == [(1, 0), (2, 0)] and rc.a.row().state == QpState.RTS


def test_a_copy_of_an_rnr_nak_costs_nothing(bench):
    rc = connected(bench, RNR_RETRY=1, MIN_RNR_TIMER=5)
    wire = Wire(bench, lambda row: DOUBLE if row.opcode == RcOpcode.ACKNOWLEDGE and row.syndrome >= 0x20 else None)
    rc.send(1, 8)
    while wire.step() and not wire.done:
        pass
    rc.b.post_recv(7, rc.remote.sge(64))
    wire.run()
    assert wire.done == [DOUBLE] and rc.a.statuses() == [(1, 0)] and rc.a.row().rnr_retries == 1
