"""Requests that come twice: re-ACK, replay of READs and atomics (Linux rxe_resp.c)."""

import pytest

from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.packets import DROP, Wire, inject

RESPONSES = (RcOpcode.READ_RESP_FIRST, RcOpcode.READ_RESP_ONLY, RcOpcode.ATOMIC_ACK)


def lose_first(*opcodes):
    """A wire decision: lose the first packet with one of these opcodes."""
    lost = []

    def decide(row):
        if row.opcode in opcodes and not lost:
            lost.append(int(row.opcode))
            return DROP
        return None

    decide.lost = lost
    return decide


@pytest.fixture
def quick(bench):
    """RC pair with a short ACK timeout."""
    return connected(bench, TIMEOUT=3)


def test_a_lost_atomic_ack_is_replayed_and_the_atomic_happens_once(quick):
    old = int.from_bytes(quick.remote.data[:8], "little")
    wire = lose_first(RcOpcode.ATOMIC_ACK)
    quick.add(1, 5)
    Wire(quick.bench, wire).run()
    assert wire.lost and quick.a.statuses() == [(1, 0)]
    assert int.from_bytes(quick.remote.data[:8], "little") == (old + 5) % 2**64
    assert int.from_bytes(quick.local.data[:8], "little") == old


def test_a_lost_read_response_is_read_again_from_memory_now(quick):
    wire = lose_first(RcOpcode.READ_RESP_ONLY)
    quick.read(1, 64)
    runner = Wire(quick.bench, wire)
    while not wire.lost:
        runner.run(quick.bench.world.now + 500)
    quick.bench.frames.bytes_of(quick.remote.frames[0])[:64] = 0xEE
    runner.run()
    assert quick.a.statuses() == [(1, 0)] and quick.local.data[:64] == b"\xee" * 64


def test_a_read_whose_first_response_is_lost_is_read_again(quick):
    wire = lose_first(RcOpcode.READ_RESP_FIRST)
    quick.read(1, 9000)
    Wire(quick.bench, wire).run()
    assert quick.a.statuses() == [(1, 0)] and quick.local.data[:9000] == quick.remote.data[:9000]


def test_a_duplicate_write_is_acknowledged_and_dropped(quick):
    quick.write(1, 8)
    quick.bench.run()
    before = quick.remote.data
    quick.bench.log()
    inject(
        quick.bench,
        quick.a,
        quick.b,
        psn=0,
        opcode=RcOpcode.WRITE_ONLY,
        payload=8,
        length=8,
        va=quick.remote.va + 100,
        rkey=quick.remote.key,
    )
    quick.bench.run()
    assert quick.bench.sent() == [RcOpcode.ACKNOWLEDGE] and quick.remote.data == before
    assert quick.bench.device.row.duplicates == 1


def test_a_duplicate_atomic_that_nobody_remembers_is_dropped(quick):
    for wr_id in range(20):
        quick.add(wr_id, 1)
        quick.bench.run()
    before = quick.remote.data
    quick.bench.log()
    where = dict(opcode=RcOpcode.FETCH_ADD, length=8, va=quick.remote.va, rkey=quick.remote.key, compare_add=1)
    inject(quick.bench, quick.a, quick.b, psn=0, **where)
    quick.bench.run()
    assert quick.bench.sent() == []
    inject(quick.bench, quick.a, quick.b, psn=19, **where)
    quick.bench.run()
    assert quick.bench.sent() == [RcOpcode.ATOMIC_ACK] and quick.remote.data == before


@pytest.mark.parametrize("psn, length", [(0, 1000), (1, 4096), (0, 3 * 1024), (0, 9 * 1024)])
def test_a_duplicate_read_that_is_not_the_rest_of_a_remembered_one_is_dropped(quick, psn, length):
    quick.read(1, 4096)
    quick.bench.run()
    quick.bench.log()
    inject(
        quick.bench,
        quick.a,
        quick.b,
        psn=psn,
        opcode=RcOpcode.READ_REQUEST,
        length=length,
        va=quick.remote.va,
        rkey=quick.remote.key,
    )
    quick.bench.run()
    assert quick.bench.sent() == []


@pytest.mark.parametrize("psn, at, length", [(3, 0, -4096), (0, 1, 4096), (2, 3 * 1024, 2048)])
def test_a_duplicate_read_of_other_bytes_than_the_remembered_ones_is_dropped(quick, psn, at, length):
    quick.read(1, 4096)
    quick.bench.run()
    quick.bench.log()
    where = dict(va=quick.remote.va + at, rkey=quick.remote.key)
    inject(quick.bench, quick.a, quick.b, psn=psn, opcode=RcOpcode.READ_REQUEST, length=length, **where)
    quick.bench.run()
    assert quick.bench.sent() == []


def test_the_rest_of_a_remembered_read_is_sent_again(quick):
    quick.read(1, 4096)
    quick.bench.run()
    quick.bench.log()
    inject(
        quick.bench,
        quick.a,
        quick.b,
        psn=2,
        opcode=RcOpcode.READ_REQUEST,
        length=2048,
        va=quick.remote.va + 2048,
        rkey=quick.remote.key,
    )
    quick.bench.run()
    assert quick.bench.sent() == [RcOpcode.READ_RESP_FIRST, RcOpcode.READ_RESP_LAST]


def test_a_duplicate_is_acknowledged_only_for_what_came_before_it(quick):
    """What was accepted after it has not landed yet and may still fail."""
    quick.write(1, 8)
    quick.bench.run()
    quick.bench.log()
    where = dict(opcode=RcOpcode.WRITE_ONLY, payload=8, length=8, va=quick.remote.va, rkey=quick.remote.key)
    inject(quick.bench, quick.a, quick.b, psn=0, delay=100, **where)
    inject(quick.bench, quick.a, quick.b, psn=1, delay=110, **where)
    quick.bench.run()
    acks = [b for kind, _, a, b, *_ in quick.bench.trace() if kind.name == "SEND"]
    assert acks == [quick.a.psn, quick.a.psn + 1]


def test_a_replayed_read_leaves_room_for_as_many_others_as_agreed(bench):
    """Its requester has all responses already and has gone on; only READs seen for the first time count."""
    rc = connected(bench)
    rc.read(1, 16384)
    bench.run()
    count = 4  # MAX_DEST_RD_ATOMIC
    for wr_id in range(count):
        rc.add(2 + wr_id, 1, at=8 * wr_id)
    late = {"psn": 0, "opcode": RcOpcode.READ_REQUEST, "length": 16384, "va": rc.remote.va, "rkey": rc.remote.key}
    inject(bench, rc.a, rc.b, delay=1900, **late)
    bench.run()
    assert bench.device.row.duplicates == 1
    assert rc.a.statuses() == [(wr_id, 0) for wr_id in range(1, count + 2)]
