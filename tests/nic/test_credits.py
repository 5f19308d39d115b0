"""End-to-end credits, coalesced ACKs, outstanding READs at the responder, the limit of faults outstanding."""

import pytest

from nicemu.abi.rings import FaultType
from nicemu.abi.verbs import AsyncEvent, WcStatus
from nicemu.config import NicProfile
from nicemu.nic.reply import credit_count
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.packets import inject
from tests.nic.testbench import Bench, WrOpcode

CODES = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
         6144, 8192, 12288, 16384, 24576, 32768]  # fmt: skip


def test_credit_codes():
    from nicemu import _jit

    count = credit_count.py_func if _jit.JIT else credit_count
    assert [count(code) for code in range(31)] == CODES


@pytest.fixture
def thrifty():
    """A NIC with end-to-end credits, two connected QPs."""
    return connected(Bench(NicProfile(end_to_end_credits=True)))


def test_acks_tell_how_many_receives_are_posted(thrifty):
    for wr_id in range(7):
        thrifty.b.post_recv(wr_id, thrifty.remote.sge(4096))
    syndromes = []
    thrifty.write(1, 8)
    packets = thrifty.bench.world.packet
    thrifty.bench.step_until(
        lambda: (
            syndromes.extend(int(p.syndrome) for p in packets[1:4] if p.opcode == RcOpcode.ACKNOWLEDGE)
            or thrifty.a.cq.poll()
        )
    )
    assert CODES[syndromes[-1]] == 6


def test_without_credits_a_sender_waits_instead_of_running_into_rnr(thrifty):
    thrifty.b.post_recv(0, thrifty.remote.sge(4096))
    thrifty.write(1, 8)
    thrifty.bench.run()
    thrifty.b.post_recv(1, thrifty.remote.sge(4096))
    for wr_id in range(2, 6):
        thrifty.send(wr_id, 100)
    thrifty.bench.run_for(5_000)
    for wr_id in range(2, 6):
        thrifty.b.post_recv(wr_id, thrifty.remote.sge(4096))
    thrifty.bench.run()
    assert [s for _, s in thrifty.a.statuses()] == [0] * 5
    assert thrifty.bench.device.row.out_of_sequence == 0


def test_with_nothing_outstanding_one_packet_may_ask(thrifty):
    thrifty.write(1, 8)
    thrifty.bench.run()
    thrifty.bench.log()
    thrifty.send(2, 3000)
    thrifty.bench.run_for(5_000)
    assert thrifty.bench.sent().count(RcOpcode.SEND_FIRST) == 1
    assert RcOpcode.SEND_MIDDLE not in thrifty.bench.sent()
    thrifty.b.post_recv(5, thrifty.remote.sge(4096))
    thrifty.bench.run()
    assert thrifty.a.statuses() == [(1, 0), (2, 0)]


def test_a_device_without_credits_says_unlimited(rc):
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.row().lsn == -1


def test_acks_that_are_due_within_the_time_become_one():
    rc = connected(Bench(NicProfile(ack_coalescing_ns=20_000)))
    rc.bench.log()
    for wr_id in range(10):
        rc.write(wr_id, 8)
    rc.bench.run()
    assert rc.bench.sent().count(RcOpcode.ACKNOWLEDGE) == 1
    assert rc.a.statuses() == [(n, 0) for n in range(10)]


def test_more_reads_than_agreed_are_an_invalid_request(bench):
    rc = connected(bench, MAX_DEST_RD_ATOMIC=2)
    for n in range(4):
        inject(bench, rc.a, rc.b, psn=16 * n, opcode=RcOpcode.READ_REQUEST, va=rc.remote.va, rkey=rc.remote.key,
               length=16384)  # fmt: skip
    bench.run()
    assert (AsyncEvent.QP_REQ_ERR, rc.b.number) in bench.asyncs()


def test_as_many_as_agreed_are_served(bench):
    rc = connected(bench, MAX_DEST_RD_ATOMIC=2, MAX_RD_ATOMIC=2)
    for wr_id in range(8):
        rc.read(wr_id, 16384)
    bench.run()
    assert [s for _, s in rc.a.statuses()] == [0] * 8


def test_a_requester_that_agreed_on_less_than_it_uses_fails(bench):
    rc = connected(bench, MAX_DEST_RD_ATOMIC=1, MAX_RD_ATOMIC=4)
    for wr_id in range(4):
        rc.read(wr_id, 16384)
    bench.run()
    assert WcStatus.REM_INV_REQ_ERR in [s for _, s in rc.a.statuses()]


def test_at_most_n_faults_of_a_qp_are_reported_the_next_when_one_is_resumed():
    bench = Bench(NicProfile(max_fault_per_qp=1))
    rc = connected(bench, local=False, remote=False)
    rc.write(1, 100)
    rc.b.post_send(2, WrOpcode.RDMA_WRITE, rc.remote.sge(100), remote=rc.local.va, rkey=rc.local.key)
    rc.b.post_recv(3, rc.remote.sge(100))
    bench.run_for(400_000)
    first = bench.faults()
    assert [(f["qpn"], f["type"]) for f in first] == [(2, FaultType.REQUESTER_SEND), (3, FaultType.REQUESTER_SEND)]
    rc.local.map()
    bench.resume(first[0]["token"])
    bench.run_for(400_000)
    assert bench.faults() == []  # QP 3's responder fault waits: its requester fault is open
    rc.remote.map()
    bench.resume(first[1]["token"])
    bench.step_until(lambda: rc.a.row().sq_una == 1 and rc.b.row().sq_una == 1)
    assert rc.a.statuses() == [(1, 0)]


def test_a_read_of_half_the_psn_space_keeps_its_timer(bench):
    """2^31 bytes at MTU 256 take 2^23 PSNs; the peer is gone, so the timer must end it."""
    rc = connected(bench, PATH_MTU=1, TIMEOUT=8, RETRY_CNT=1, DEST_NIC=0)
    rc.a.bench.world.sq_entry[0].length = 0
    row = rc.a.row()
    row.next_psn = row.una_psn = row.sent_psn = 0
    rc.read(1, 16384)
    bench.step_until(lambda: row.sq_fetched == 1)
    entry = bench.world.sq_entry[int(row.sq_entry)]
    entry.last_psn, row.next_psn = (1 << 23) - 1, 1 << 23
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.RETRY_EXC_ERR)]


@pytest.mark.parametrize("delay", range(2400, 4400, 100))
def test_credits_that_go_down_inside_a_message_do_not_hold_it_till_a_timeout(delay):
    """The first ACK tells of fewer receives than messages are on their way, when a SEND has begun without asking."""
    rc = connected(Bench(NicProfile(end_to_end_credits=True)), pages=8)
    rc.b.post_recv(0, rc.remote.sge(16384))
    rc.write(1, 8)
    rc.read(2, 8)
    rc.bench.run_for(delay)
    rc.send(3, 16384)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0), (3, 0)]
    assert rc.bench.device.row.timeouts == 0
