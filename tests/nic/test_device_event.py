"""Port and device events: what they raise, and what they do to traffic and commands."""

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.rings import Eqn
from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from tests.nic.testbench import Ring

DOWN, UP, FATAL = AsyncEvent.PORT_ERR, AsyncEvent.PORT_ACTIVE, AsyncEvent.DEVICE_FATAL


def raise_(bench, *events):
    for event in events:
        bench.device.raise_event(event)
    bench.run_for(10)


def test_a_port_that_goes_down_raises_port_err_once(bench):
    raise_(bench, DOWN, DOWN)
    assert bench.asyncs() == [(DOWN, 1)] and not bench.device.port_active


def test_a_port_that_comes_up_raises_port_active_once(bench):
    raise_(bench, UP)
    assert bench.asyncs() == []
    raise_(bench, DOWN, UP, UP)
    assert bench.asyncs() == [(DOWN, 1), (UP, 1)] and bench.device.port_active


def test_packets_are_lost_while_the_port_is_down_and_a_retry_after_it_is_up_arrives(rc):
    raise_(rc.bench, DOWN)
    rc.write(1, 100)
    rc.bench.run_for(50_000)
    assert rc.a.statuses() == [] and rc.bench.device.row.packets_dropped > 0
    raise_(rc.bench, UP)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:100] == rc.local.data[:100]


def test_a_port_that_stays_down_ends_in_retry_exceeded(rc):
    raise_(rc.bench, DOWN)
    rc.write(1, 100)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.RETRY_EXC_ERR)]


def test_a_fatal_error_flushes_every_qp_and_raises_one_event(rc):
    rc.b.post_recv(7, rc.remote.sge(64))
    rc.write(1, 4096)
    rc.write(2, 4096)
    rc.bench.run_for(300)
    raise_(rc.bench, FATAL, FATAL)
    rc.bench.run()
    assert rc.bench.asyncs() == [(FATAL, 0)]
    assert rc.a.row().state == rc.b.row().state == QpState.ERR
    flushed = WcStatus.WR_FLUSH_ERR
    assert rc.a.statuses() == [(1, flushed), (2, flushed)] and rc.b.statuses() == [(7, flushed)]


def test_a_dead_device_moves_nothing_and_flushes_what_is_posted(rc):
    raise_(rc.bench, FATAL)
    rc.bench.run()
    before = rc.remote.data
    rc.bench.log()
    rc.write(1, 100)
    rc.bench.run()
    assert rc.a.statuses() == [(1, WcStatus.WR_FLUSH_ERR)]
    assert rc.bench.dmas() == [] and rc.remote.data == before


@pytest.mark.parametrize("opcode", [Command.NOP, Command.CREATE_CQ, Command.CREATE_QP, Command.CREATE_MKEY])
def test_commands_of_a_dead_device_fail(bench, opcode):
    raise_(bench, FATAL)
    bench.command(opcode, 9, expect=Status.INTERNAL_ERROR)


def test_what_gives_something_back_works_on_a_dead_device(rc):
    raise_(rc.bench, FATAL)
    rc.bench.run()
    rc.local.zap(0, 1)
    for opcode, number in ((Command.DESTROY_QP, rc.a.number), (Command.DESTROY_MKEY, rc.local.index)):
        rc.bench.command(opcode, number)
    rc.bench.command(Command.DESTROY_CQ, rc.a.cq.number)


def test_a_fatal_error_that_finds_the_async_queue_full_is_told_later(bench):
    ring, record = Ring(64), Ring(16)
    bench.device.attach_eq(Eqn.ASYNC, ring.address, 1, record.address)
    bench.eqs[Eqn.ASYNC] = ring, record
    raise_(bench, DOWN, FATAL)
    assert int.from_bytes(ring.view[4:8], "little") == DOWN
    record.word(0, 1)
    bench.device.write_doorbell(2 << 24 | Eqn.ASYNC << 3, 0)
    bench.run_for(10_000)
    assert int.from_bytes(ring.view[4:8], "little") == FATAL
