"""Completion queues: ring, arming, solicited events, overrun."""

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import Doorbell, EqeType, Eqn, doorbell_offset
from nicemu.abi.verbs import AsyncEvent, QpState, SendFlag, WcStatus
from nicemu.tables.records import Stop
from tests.nic.conftest import connected

NEXT, SOLICITED = 1, 2
SIGNALED = SendFlag.SIGNALED


def arm(rc, cq, kind):
    """Ring the CQ's arm doorbell and let it arrive."""
    rc.bench.device.write_doorbell(doorbell_offset(Doorbell.CQ_ARM, cq.number), kind)
    rc.bench.run_for(1000)


def completions_events(rc):
    """cqn of each completion event."""
    return [words[2] for words in rc.bench.events(Eqn.COMPLETION) if words[0] == EqeType.COMP]


def test_a_zeroed_ring_is_empty_and_fills_in_order(rc):
    assert rc.a.cq.poll() == []
    for wr_id in range(5):
        rc.write(wr_id, 8)
    rc.bench.run()
    assert [c["wr_id"] for c in rc.a.cq.poll()] == list(range(5))


def test_the_ring_wraps_and_the_owner_word_tells_passes_apart(bench):
    rc = connected(bench, slots=4)
    for wr_id in range(23):
        rc.write(wr_id, 8)
        bench.run()
        assert rc.a.statuses() == [(wr_id, 0)]
        assert rc.a.cq.poll() == []


def test_an_armed_cq_gives_one_event_for_the_next_completion(rc):
    arm(rc, rc.a.cq, NEXT)
    rc.write(1, 8)
    rc.write(2, 8)
    rc.bench.run()
    assert completions_events(rc) == [rc.a.cq.number]


def test_an_unarmed_cq_gives_none(rc):
    rc.write(1, 8)
    rc.bench.run()
    assert completions_events(rc) == []


def test_a_completion_that_is_there_already_does_not_fire_an_arm(rc):
    rc.write(1, 8)
    rc.bench.run()
    arm(rc, rc.a.cq, NEXT)
    rc.bench.run()
    assert completions_events(rc) == []
    rc.write(2, 8)
    rc.bench.run()
    assert completions_events(rc) == [rc.a.cq.number]


@pytest.mark.parametrize("flags, events", [(SIGNALED, 0), (SIGNALED | SendFlag.SOLICITED, 1)])
def test_solicited_arming_fires_for_solicited_receives_only(rc, flags, events):
    arm(rc, rc.b.cq, SOLICITED)
    rc.b.post_recv(1, rc.remote.sge(64))
    rc.send(1, 8, flags=flags)
    rc.bench.run()
    assert len(completions_events(rc)) == events


def test_solicited_arming_fires_for_a_failed_completion(rc):
    arm(rc, rc.a.cq, SOLICITED)
    rc.a.post_send(1, 99)
    rc.bench.run()
    assert completions_events(rc) == [rc.a.cq.number]


@pytest.mark.parametrize("first, second", [(NEXT, SOLICITED), (SOLICITED, NEXT)])
def test_arming_for_the_next_is_stronger_than_for_solicited(rc, first, second):
    arm(rc, rc.b.cq, first)
    arm(rc, rc.b.cq, second)
    rc.b.post_recv(1, rc.remote.sge(64))
    rc.send(1, 8)
    rc.bench.run()
    assert len(completions_events(rc)) == 1


def test_overrun_raises_one_cq_error_and_takes_the_qp_to_error(bench):
    rc = connected(bench, slots=4)
    for wr_id in range(7):
        rc.write(wr_id, 8)
    bench.run()
    assert bench.asyncs() == [(AsyncEvent.CQ_ERR, rc.a.cq.number), (AsyncEvent.QP_FATAL, rc.a.number)]
    assert rc.a.row().state == QpState.ERR
    assert rc.a.statuses() == [(n, 0) for n in range(4)]


def test_an_overrun_cq_takes_nothing_more(bench):
    rc = connected(bench, slots=4)
    for wr_id in range(7):
        rc.write(wr_id, 8)
    bench.run()
    rc.a.cq.poll()
    rc.write(9, 8)
    bench.run()
    assert rc.a.cq.poll() == []
    assert bench.asyncs().count((AsyncEvent.CQ_ERR, rc.a.cq.number)) == 1


def test_a_full_ring_is_not_an_overrun(bench):
    rc = connected(bench, slots=4)
    for wr_id in range(4):
        rc.write(wr_id, 8)
    bench.run()
    assert bench.asyncs() == [] and rc.a.row().state == QpState.RTS
    assert len(rc.a.cq.poll()) == 4


def test_overrun_of_a_receive_cq_takes_the_receiver_to_error(bench):
    rc = connected(bench, slots=2)
    for wr_id in range(4):
        rc.b.post_recv(wr_id, rc.remote.sge(64))
        rc.send(wr_id, 8, flags=0)
    bench.run_for(1_000_000)
    assert (AsyncEvent.CQ_ERR, rc.b.cq.number) in bench.asyncs()
    assert rc.b.row().state == QpState.ERR


def test_a_watched_cq_stops_the_engine_at_its_completion(rc):
    rc.bench.device.watch(rc.a.cq.number, True)
    rc.write(1, 8)
    stops = []
    while (stop := rc.bench.engine.run(1 << 62)) not in (Stop.IDLE, Stop.TRAP):
        stops.append(stop)
        list(rc.bench.engine.interrupts())
        if stop == Stop.CQE:
            assert rc.a.statuses() == [(1, WcStatus.SUCCESS)]
    assert stops.count(Stop.CQE) == 1


def test_cqes_carry_the_time_the_wqe_counter_and_the_qp(rc):
    rc.write(1, 8, flags=0)
    rc.write(2, 8)
    rc.bench.run()
    (cqe,) = rc.a.cq.poll()
    assert (cqe["wqe"], cqe["qp_num"]) == (1, rc.a.number)
    assert 0 < cqe["time"] <= rc.bench.world.now
    assert cqe["owner"] == rings.owner(0, 256)
