"""RESIZE_CQ, MODIFY_CQ, CREATE_CQ flags: what a program of ibv_resize_cq and ibv_modify_cq relies on."""

import pytest

from nicemu.abi import rings
from nicemu.abi.command import Command, CqFlag, Status
from nicemu.abi.rings import Doorbell, EqeType, Eqn, doorbell_offset
from nicemu.abi.verbs import AsyncEvent, QpState, SendFlag
from tests.nic.conftest import connected
from tests.nic.testbench import Cq, Qp, Ring

NEXT, SOLICITED = 1, 2


def resize(cq, slots, entries=None, expect=Status.OK):
    """RESIZE_CQ into a fresh ring; the consumer goes on there."""
    ring = Ring(slots * rings.CQE_BYTES)
    entries = slots if entries is None else entries
    cq.bench.command(Command.RESIZE_CQ, cq.number, ring.address, slots, entries, expect=expect)
    if expect == Status.OK:
        cq.ring, cq.slots = ring, slots


def moderate(cq, count, period_us):
    cq.bench.command(Command.MODIFY_CQ, cq.number, count, period_us)


def arm(cq, kind=NEXT):
    cq.bench.device.write_doorbell(doorbell_offset(Doorbell.CQ_ARM, cq.number), kind)
    cq.bench.run_for(1000)


def events(bench):
    """cqn of each completion event."""
    return [words[2] for words in bench.events(Eqn.COMPLETION) if words[0] == EqeType.COMP]


@pytest.fixture
def small(bench):
    """Connected, CQs of 4 slots."""
    return connected(bench, slots=4)


def writes(rc, wr_ids):
    for wr_id in wr_ids:
        rc.write(wr_id, 8)
    rc.bench.run()


# Resize


@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("slots", [4, 8, 16])
def test_completions_that_wait_survive_a_resize_in_order(small, consumed, slots):
    for wr_id in range(consumed):
        writes(small, [wr_id])
        assert small.a.statuses() == [(wr_id, 0)]
    writes(small, [100, 101, 102])
    resize(small.a.cq, slots)
    assert small.a.statuses() == [(100, 0), (101, 0), (102, 0)]
    for wr_id in range(3 * slots):
        writes(small, [wr_id])
        assert small.a.statuses() == [(wr_id, 0)]
        assert small.a.cq.poll() == [], "free slots of the new ring are empty"


def test_a_cq_shrinks_to_what_waits(bench):
    rc = connected(bench, slots=16)
    writes(rc, range(7))
    rc.a.statuses()
    writes(rc, [7, 8])
    resize(rc.a.cq, 2)
    assert rc.a.statuses() == [(7, 0), (8, 0)]


@pytest.mark.parametrize("slots, entries", [(2, 2), (4, 2), (1, 1), (3, 3), (0, 0)])
def test_a_resize_below_what_waits_or_to_no_ring_is_refused_and_changes_nothing(small, slots, entries):
    writes(small, [1, 2, 3])
    resize(small.a.cq, slots, entries, expect=Status.BAD_PARAM)
    assert small.a.statuses() == [(1, 0), (2, 0), (3, 0)]
    writes(small, [4])
    assert small.a.statuses() == [(4, 0)]


def test_a_resize_of_no_cq_is_refused(bench):
    for number in (0, 9, 1 << 30):
        bench.command(Command.RESIZE_CQ, number, 0, 4, 4, expect=Status.BAD_RESOURCE)
        bench.command(Command.MODIFY_CQ, number, 0, 0, expect=Status.BAD_RESOURCE)


def test_a_resized_cq_stays_armed_and_keeps_its_number(small):
    arm(small.a.cq)
    resize(small.a.cq, 16)
    writes(small, [1])
    assert events(small.bench) == [small.a.cq.number]


def test_room_made_by_a_resize_is_room(small):
    writes(small, range(4))
    resize(small.a.cq, 8)
    writes(small, range(4, 8))
    assert small.bench.asyncs() == []
    assert [wr_id for wr_id, _ in small.a.statuses()] == list(range(8))


def test_a_resized_cq_overruns_at_its_new_size(small):
    resize(small.a.cq, 2)
    writes(small, range(4))
    assert (AsyncEvent.CQ_ERR, small.a.cq.number) in small.bench.asyncs()
    assert len(small.a.statuses()) == 2


def test_an_overrun_cq_stays_dead_after_a_resize(small):
    writes(small, range(6))
    resize(small.a.cq, 16)
    assert len(small.a.statuses()) == 4
    small.write(9, 8)
    small.bench.run()
    assert small.a.statuses() == []


def test_completions_during_a_resize_land_in_one_of_the_rings(small):
    for wr_id in range(3):
        small.write(wr_id, 8)
    resize(small.a.cq, 16)
    small.bench.run()
    assert [wr_id for wr_id, _ in small.a.statuses()] == [0, 1, 2]


def test_a_wild_consumer_counter_makes_a_resize_fail(small):
    for counter in (5, -(1 << 63), (1 << 63) - 1):
        small.a.cq.record.word(0, counter)
        resize(small.a.cq, 8, expect=Status.BAD_PARAM)
    small.a.cq.record.word(0, 0)


# Overrun


def test_a_cq_that_ignores_overrun_is_overwritten(bench):
    rc = connected(bench, slots=4)
    cq = Cq(bench, 9, 4, CqFlag.IGNORE_OVERRUN)
    a, b = Qp(bench, 12, cq), Qp(bench, 13, Cq(bench, 10))
    a.connect(b), b.connect(a)
    rc.a = a
    writes(rc, range(6))
    assert bench.asyncs() == [] and a.row().state == QpState.RTS
    newest = [rings.CQE.unpack_from(cq.ring.view, slot * rings.CQE_BYTES)[0] for slot in range(4)]
    assert newest == [4, 5, 2, 3]


def shared_cq(bench, slots):
    """Two connected pairs whose four QPs complete into one CQ each side: ``a`` and ``c`` share the first."""
    first, second = Cq(bench, 20, slots), Cq(bench, 21, 64)
    a, b, c, d = Qp(bench, 12, first), Qp(bench, 13, second), Qp(bench, 14, first), Qp(bench, 15, second)
    for x, y in ((a, b), (c, d)):
        x.connect(y)
        y.connect(x)
    return a, b, c, d


def test_every_qp_of_an_overrun_cq_goes_to_error_at_its_next_completion(rc):
    bench = rc.bench
    a, _, c, _ = shared_cq(bench, 2)
    rc.a = a
    writes(rc, range(4))
    assert a.row().state == QpState.ERR and c.row().state == QpState.RTS
    rc.a = c
    writes(rc, [9])
    assert c.row().state == QpState.ERR
    assert bench.asyncs() == [
        (AsyncEvent.CQ_ERR, 20), (AsyncEvent.QP_FATAL, a.number), (AsyncEvent.QP_FATAL, c.number)
    ]  # fmt: skip
    assert int(bench.device.row.cq_overruns) == 1


def test_overrun_by_receives_and_by_sends_of_one_cq_is_the_same_overrun(rc):
    bench = rc.bench
    a, _, c, d = shared_cq(bench, 1)
    c.post_recv(1, rc.local.sge(64))
    d.post_send(1, 2, rc.remote.sge(8), flags=0)
    bench.run()
    rc.a = a
    writes(rc, [1])
    c.post_recv(2, rc.local.sge(64))
    d.post_send(2, 2, rc.remote.sge(8), flags=0)
    bench.run_for(10_000_000)
    assert [kind for kind, _ in bench.asyncs()] == [AsyncEvent.CQ_ERR, AsyncEvent.QP_FATAL, AsyncEvent.QP_FATAL]
    assert a.row().state == c.row().state == QpState.ERR


# Moderation


def test_an_armed_cq_waits_for_the_count(rc):
    moderate(rc.a.cq, 3, 0)
    arm(rc.a.cq)
    writes(rc, [1, 2])
    assert events(rc.bench) == []
    writes(rc, [3, 4])
    assert len(events(rc.bench)) == 1


def test_or_for_the_time_since_the_first_cqe(rc):
    moderate(rc.a.cq, 3, 50)
    arm(rc.a.cq)
    rc.bench.log()
    writes(rc, [1, 2])
    cqes = [time for kind, time, *_ in rc.bench.trace() if kind.name == "CQE"]
    (event,) = [time for kind, time, *_ in rc.bench.trace() if kind.name == "EQE"]
    assert event == cqes[0] + 50_000


def test_the_timer_alone_moderates_too(rc):
    moderate(rc.a.cq, 0, 20)
    arm(rc.a.cq)
    rc.bench.log()
    writes(rc, [1])
    times = {kind.name: time for kind, time, *_ in rc.bench.trace() if kind.name in ("CQE", "EQE")}
    assert times["EQE"] - times["CQE"] == 20_000
    assert len(events(rc.bench)) == 1


def test_counting_begins_when_the_cq_is_armed(rc):
    moderate(rc.a.cq, 2, 0)
    writes(rc, [1, 2, 3])
    arm(rc.a.cq)
    writes(rc, [4])
    assert events(rc.bench) == []
    writes(rc, [5])
    assert len(events(rc.bench)) == 1


def test_a_timer_of_an_event_that_came_by_count_is_off(rc):
    moderate(rc.a.cq, 2, 1000)
    arm(rc.a.cq)
    writes(rc, [1, 2])
    assert len(events(rc.bench)) == 1
    arm(rc.a.cq)
    rc.bench.run_for(3_000_000)
    assert events(rc.bench) == []
    writes(rc, [3])
    assert len(events(rc.bench)) == 1, "by time"


def test_a_solicited_arming_counts_solicited_and_failed_completions_only(rc):
    moderate(rc.b.cq, 2, 0)
    arm(rc.b.cq, SOLICITED)
    for wr_id, flags in enumerate((0, SendFlag.SOLICITED, 0)):
        rc.b.post_recv(wr_id, rc.remote.sge(64))
        rc.send(wr_id, 8, flags=flags)
    rc.bench.run()
    assert events(rc.bench) == []
    rc.b.post_recv(9, rc.remote.sge(64))
    rc.b.post_send(9, 99)
    rc.bench.run()
    assert len(events(rc.bench)) == 1


def test_moderation_off_again_is_an_event_for_each_completion(rc):
    moderate(rc.a.cq, 5, 100)
    arm(rc.a.cq)
    writes(rc, [1])
    events(rc.bench)
    moderate(rc.a.cq, 0, 0)
    arm(rc.a.cq)
    writes(rc, [2])
    assert len(events(rc.bench)) == 1


def test_a_cq_destroyed_with_its_timer_running_raises_nothing(bench):
    cq = Cq(bench, 9, 8)
    a, b = Qp(bench, 12, cq), Qp(bench, 13, Cq(bench, 10))
    a.connect(b), b.connect(a)
    moderate(cq, 0, 100)
    arm(cq)
    a.post_send(1, 99)
    bench.run_for(10_000)
    for number in (12, 13):
        bench.command(Command.DESTROY_QP, number)
    bench.command(Command.DESTROY_CQ, 9)
    assert bench.world.control[0].stale == 1
    bench.run_for(1_000_000)
    assert events(bench) == []
    again = Cq(bench, 9, 8)
    moderate(again, 0, 100)
    assert bench.world.control[0].stale == 0


# Fields


def test_failed_completions_carry_a_vendor_syndrome(rc):
    rc.a.post_send(1, 99)
    rc.write(2, 8)
    rc.bench.run()
    for cqe in rc.a.cq.poll():
        assert cqe["status"] != 0 and cqe["vendor"] == rings.VENDOR_SYNDROME + cqe["status"]


def test_good_completions_carry_none(rc):
    writes(rc, [1])
    assert rc.a.cq.poll()[0]["vendor"] == 0
