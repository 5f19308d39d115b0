"""Flush: every WQE exactly once, each queue in post order, success before flush (Linux qp_state_table)."""

import pytest

from nicemu.abi.command import Status
from nicemu.abi.verbs import QpState, WcStatus
from tests.nic.conftest import connected
from tests.nic.testbench import WrOpcode

FLUSHED = WcStatus.WR_FLUSH_ERR


def to_error(qp):
    """modify_qp(ERR)."""
    qp.modify(1, STATE=QpState.ERR)


def test_everything_posted_is_flushed_in_post_order(bench):
    rc = connected(bench, DEST_NIC=0)
    for wr_id in range(5):
        rc.write(wr_id, 8)
        rc.a.post_recv(100 + wr_id, rc.local.sge(8))
    bench.run_for(20_000)
    to_error(rc.a)
    bench.run()
    found = rc.a.statuses()
    assert [f for f in found if f[0] < 100] == [(n, FLUSHED) for n in range(5)]
    assert [f for f in found if f[0] >= 100] == [(100 + n, FLUSHED) for n in range(5)]


def test_unsignaled_requests_are_flushed_with_a_completion(bench):
    rc = connected(bench, DEST_NIC=0)
    rc.write(1, 8, flags=0)
    rc.write(2, 8, flags=0)
    bench.run_for(20_000)
    to_error(rc.a)
    assert rc.a.statuses() == [(1, FLUSHED), (2, FLUSHED)]


def test_an_unsignaled_request_that_fails_completes_with_its_status(rc):
    rc.a.post_send(1, WrOpcode.RDMA_WRITE, (rc.local.va, 8, 5), remote=rc.remote.va, rkey=rc.remote.key, flags=0)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR)]


@pytest.mark.parametrize("queue", ["send", "recv"])
def test_what_is_posted_in_error_is_flushed(rc, queue):
    to_error(rc.a)
    if queue == "send":
        rc.write(1, 8)
    else:
        rc.a.post_recv(1, rc.local.sge(8))
    rc.bench.run()
    assert rc.a.statuses() == [(1, FLUSHED)]
    assert rc.bench.device.row.packets_sent == 0


def test_the_failed_request_comes_first_then_the_flushed_ones(rc):
    rc.write(1, 8)
    rc.a.post_send(2, WrOpcode.RDMA_WRITE, (rc.local.va, 8, 5), remote=rc.remote.va, rkey=rc.remote.key)
    rc.write(3, 8)
    rc.read(4, 8)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, WcStatus.LOC_PROT_ERR), (3, FLUSHED), (4, FLUSHED)]


def test_requests_before_the_failed_one_succeed(bench):
    """It fails when its turn comes, not when it is fetched."""
    rc = connected(bench)
    rc.read(1, 16384)
    rc.a.post_send(2, 99)
    rc.write(3, 8)
    bench.run()
    assert rc.a.statuses() == [(1, 0), (2, WcStatus.LOC_QP_OP_ERR), (3, FLUSHED)]
    assert rc.local.data == rc.remote.data


def test_a_receive_taken_by_an_unfinished_message_is_flushed_first(bench):
    rc = connected(bench, pages=16, MIN_RNR_TIMER=20)
    half = bench.region(16)
    half.frames = rc.remote.frames
    half.map(0, 1)
    rc.b.post_recv(1, half.sge())
    rc.b.post_recv(2, half.sge())
    rc.send(9, 16 * 4096)
    bench.run_for(100_000)
    assert rc.b.row().recv_taken == 1
    to_error(rc.b)
    assert rc.b.statuses() == [(1, FLUSHED), (2, FLUSHED)]


@pytest.mark.parametrize("after", range(0, 4000, 150))
def test_no_receive_completes_after_one_behind_it_was_flushed(after):
    """A message accepted just before ERR lands and completes first."""
    from tests.nic.testbench import Bench

    rc = connected(Bench())
    for wr_id in range(8):
        rc.b.post_recv(wr_id, rc.remote.sge(64))
    for wr_id in range(6):
        rc.send(wr_id, 64)
    rc.bench.run_for(after)
    to_error(rc.b)
    rc.bench.run_for(100_000)
    found = rc.b.statuses()
    assert [wr_id for wr_id, _ in found] == list(range(8)), f"after {after} ns: {found}"
    assert [status for _, status in found] == sorted(status for _, status in found)


@pytest.mark.parametrize("after", range(0, 6000, 300))
def test_no_byte_of_a_read_moves_after_it_was_flushed(after):
    from tests.nic.testbench import Bench

    rc = connected(Bench())
    rc.bench.log()
    rc.read(1, 16384)
    rc.bench.run_for(after)
    to_error(rc.a)
    rc.bench.run()
    trace = rc.bench.trace()
    flushed = [i for i, (kind, _, a, b, c, d) in enumerate(trace) if kind.name == "CQE" and c == FLUSHED]
    moved = [i for i, (kind, _, a, b, c, d) in enumerate(trace) if kind.name == "DMA" and (a, d) == (rc.local.index, 1)]
    assert len(rc.a.cq.poll()) == 1
    assert not flushed or not moved or moved[-1] < flushed[0]


@pytest.mark.parametrize("operation", ["write", "read", "send", "recv"])
@pytest.mark.parametrize("when", ["before the report", "before the resume", "after the resume"])
def test_a_faulted_request_is_flushed_exactly_once(bench, operation, when):
    rc = connected(bench, local=operation == "recv", remote=operation != "recv")
    rc.b.post_recv(7, rc.remote.sge())
    if operation == "recv":
        rc.send(1, 64)
        victim, mine = rc.b, 7
    else:
        getattr(rc, operation)(1, 64)
        victim, mine = rc.a, 1
    bench.step_until(lambda: bench.device.row.page_faults)
    token = None
    if when != "before the report":
        token = bench.fault()["token"]
    if when == "after the resume":
        bench.submit(11, token, 0, slot=5)
        bench.run_for(3_000)
    to_error(victim)
    bench.run_for(1_000_000)
    if when == "before the resume":
        bench.resume(token, error=1)
    bench.run()
    assert [found for found in victim.statuses() if found[0] == mine] == [(mine, FLUSHED)]
    assert victim.row().state == QpState.ERR


def test_reset_forgets_everything_without_a_completion(bench):
    rc = connected(bench, DEST_NIC=0)
    rc.write(1, 8)
    rc.a.post_recv(2, rc.local.sge(8))
    bench.run_for(3000)
    rc.a.modify(1, STATE=QpState.RESET)
    bench.run()
    assert rc.a.cq.poll() == []


def test_a_qp_works_again_after_reset(rc):
    to_error(rc.a)
    to_error(rc.b)
    for qp in (rc.a, rc.b):
        qp.modify(1, STATE=QpState.RESET)
        qp.record.word(0, 0)
        qp.record.word(8, 0)
    rc.a.connect(rc.b)
    rc.b.connect(rc.a)
    rc.write(1, 5000)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:5000] == rc.local.data[:5000]


def test_packets_of_an_earlier_life_do_not_reach_the_new_one(rc):
    rc.write(1, 16384)
    rc.bench.run_for(1500)
    rc.a.modify(1, STATE=QpState.RESET)
    rc.a.record.word(0, 0)
    rc.a.connect(rc.b, SQ_PSN=100)
    rc.bench.run()
    assert rc.a.cq.poll() == [] and rc.a.row().state == QpState.RTS
    assert (rc.a.row().una_psn, rc.a.row().sq_una) == (100, 0)


def test_sends_wait_in_sqd_and_go_on_in_rts(rc):
    rc.a.modify(1, STATE=QpState.SQD)
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.statuses() == []
    rc.a.modify(1, STATE=QpState.RTS)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]


@pytest.mark.parametrize("state", [QpState.INIT, QpState.RTR, QpState.RTS, QpState.SQD])
def test_a_qp_in_error_goes_to_reset_or_stays_whatever_the_driver_believes(rc, state):
    """The device goes to ERR by itself; a driver that has not heard of it may not revive the QP."""
    to_error(rc.a)
    rc.a.modify(1, expect=Status.BAD_STATE, STATE=state)
    assert rc.a.row().state == QpState.ERR
    rc.a.modify(1, STATE=QpState.RESET)
    assert rc.a.row().state == QpState.RESET
