"""SQD: what was started is finished, nothing new is sent, SQ_DRAINED says when (verbs, IBA SQD state)."""

from nicemu.abi.verbs import AsyncEvent, QpAttrMask, QpState
from tests.nic.conftest import connected
from tests.nic.packets import DROP, Wire

DRAINED = AsyncEvent.SQ_DRAINED


def drain(qp, notify=1):
    """RTS to SQD."""
    mask = QpAttrMask.STATE | (QpAttrMask.EN_SQD_ASYNC_NOTIFY if notify else 0)
    qp.modify(mask, STATE=QpState.SQD, EN_SQD_ASYNC_NOTIFY=notify)


def test_an_idle_queue_is_drained_at_once(rc):
    drain(rc.a)
    assert rc.bench.asyncs() == [(DRAINED, rc.a.number)] and rc.a.row().sq_draining == 0


def test_without_being_asked_nothing_is_said(rc):
    drain(rc.a, notify=0)
    assert rc.bench.asyncs() == []


def test_a_message_in_progress_is_finished_and_those_behind_it_wait(rc):
    for wr_id in range(3):
        rc.write(wr_id, 16384)
    rc.bench.step_until(lambda: rc.a.row().sq_offset > 2)
    assert rc.bench.asyncs() == []
    rc.a.row().state = QpState.SQD
    rc.a.row().sq_draining = rc.a.row().sqd_notify = 1
    rc.bench.run()
    assert rc.a.statuses() == [(0, 0)]
    assert rc.bench.asyncs() == [(DRAINED, rc.a.number)]
    rc.a.modify(1, STATE=QpState.RTS)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]


def test_losses_are_repaired_in_sqd(rc):
    lost = []

    def decide(row):
        if row.psn == rc.a.psn + 5 and not lost:
            lost.append(1)
            return DROP
        return None

    rc.write(0, 16384)
    wire = Wire(rc.bench, decide)
    for _ in range(1000):
        wire.step()
        if rc.a.row().sq_offset > 2:
            break
    rc.a.row().state = QpState.SQD
    rc.a.row().sq_draining = rc.a.row().sqd_notify = 1
    wire.run()
    assert lost and rc.a.statuses() == [(0, 0)] and rc.bench.asyncs() == [(DRAINED, rc.a.number)]


def test_a_read_drains_when_its_data_has_landed(rc):
    rc.read(0, 16384)
    rc.bench.step_until(lambda: rc.a.row().rd_atomic)
    rc.a.row().state = QpState.SQD
    rc.a.row().sq_draining = rc.a.row().sqd_notify = 1
    rc.bench.run()
    assert rc.a.statuses() == [(0, 0)] and rc.bench.asyncs() == [(DRAINED, rc.a.number)]
    assert rc.local.data == rc.remote.data


def test_receives_go_on_in_sqd(rc):
    drain(rc.b)
    rc.b.post_recv(1, rc.remote.sge(4096))
    rc.send(1, 100)
    rc.bench.run()
    assert rc.b.statuses() == [(1, 0)]


def test_posts_wait_until_rts(rc):
    drain(rc.a)
    rc.write(1, 8)
    rc.bench.run()
    assert rc.a.statuses() == []
    rc.a.modify(1, STATE=QpState.RTS)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]


def test_a_page_fault_in_sqd_is_waited_for(bench):
    rc = connected(bench, remote=False)
    rc.write(1, 16384)
    fault = bench.fault()
    drain(rc.a)
    assert bench.asyncs() == []
    rc.remote.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and bench.asyncs() == [(DRAINED, rc.a.number)]


def test_a_message_whose_first_page_is_missing_was_not_started(bench):
    rc = connected(bench, local=False)
    rc.write(1, 16384)
    fault = bench.fault()
    drain(rc.a)
    assert bench.asyncs() == [(DRAINED, rc.a.number)]
    rc.local.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == []
    rc.a.modify(1, STATE=QpState.RTS)
    bench.run()
    assert rc.a.statuses() == [(1, 0)]
