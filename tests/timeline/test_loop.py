"""The one loop: device and host in time order, interrupts, traps, quiescence, deadlines."""

import threading

import pytest

from nicemu.tables.records import INFINITY, Stop
from nicemu.timeline import Completion, Quiescent, Scheduler, Sleep, SteppedClock, Timeline
from nicemu.timeline.loop import IDLE_POLLS


class FakeEngine:
    """Device events as a list of (time, what): "event", "interrupt", "cqe", "trap"."""

    def __init__(self, *events) -> None:
        self.events, self.now, self.log, self.entered = sorted(events), 0, [], 0

    def enter(self):
        """Count."""
        self.entered += 1

    def run(self, until):
        """As the engine does."""
        while self.events:
            time, what = self.events[0]
            if time > until:
                return Stop.DEADLINE
            self.events.pop(0)
            self.now = max(self.now, time)
            self.log.append((self.now, what))
            if what in ("interrupt", "cqe", "trap"):
                return Stop[what.upper()]
        return Stop.IDLE

    def idle(self):
        """No events."""
        return not self.events

    def interrupts(self):
        """One."""
        return [(0, 1)]

    def error(self, stop):
        """As an exception."""
        return RuntimeError(stop.name)

    def set_time(self, time):
        """Forward only."""
        self.now = max(self.now, time)


def build(*events, deliver=None, clock=None):
    """(timeline, engine, scheduler)."""
    engine = FakeEngine(*events)
    host = Scheduler(lambda: engine.now)
    return Timeline(engine, host, deliver or (lambda messages: None), clock), engine, host


def steps(engine, *waits):
    """A host thread that logs."""
    for wait in waits:
        yield wait
        engine.log.append((engine.now, "host"))
    return "result"


def test_device_events_and_host_threads_alternate_in_time_order():
    timeline, engine, _host = build((5, "event"), (15, "event"), (25, "event"))
    assert timeline.call(steps(engine, 10, Sleep(10)), "call") == "result"
    assert engine.log == [(5, "event"), (10, "host"), (15, "event"), (20, "host")]


def test_at_one_moment_the_device_goes_first():
    timeline, engine, _host = build((10, "event"))
    timeline.call(steps(engine, 10), "call")
    assert engine.log == [(10, "event"), (10, "host")]


def test_an_interrupt_is_delivered_before_time_goes_on():
    delivered = []
    timeline, engine, _host = build(
        (5, "interrupt"), (6, "event"), deliver=lambda m: delivered.append((engine.now, list(m)))
    )
    timeline.call(steps(engine, 10), "call")
    assert delivered == [(5, [(0, 1)])]


def test_an_interrupt_handler_wakes_a_thread_that_waits():
    timeline, engine, host = build((5, "interrupt"))
    done = Completion(host)
    timeline.deliver = lambda messages: done.complete()
    timeline.call(steps(engine, done), "call")
    assert engine.log[-1] == (5, "host")


def test_a_trap_is_raised():
    timeline, engine, _host = build((5, "trap"))
    with pytest.raises(RuntimeError, match="TRAP"):
        timeline.call(steps(engine, 10), "call")


def test_a_cqe_stop_asks_again_whether_it_is_done():
    timeline, engine, _host = build((5, "cqe"), (9, "event"))
    assert timeline.advance(lambda: bool(engine.log))
    assert engine.log == [(5, "cqe")]


def test_quiescent_with_nothing_left():
    timeline, _engine, host = build()
    with pytest.raises(Quiescent, match="stuck waits for an answer"):
        timeline.call(steps(None, Completion(host, "an answer")), "stuck")
    assert not host.blocked


def test_an_error_of_the_call_is_the_callers():
    timeline, _engine, _host = build()

    def fail():
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        timeline.call(fail(), "call")


def test_a_deadline_ends_the_run_at_its_time():
    timeline, engine, _host = build((50, "event"), (150, "event"))
    assert not timeline.advance(lambda: False, 100)
    assert engine.now == 100 and engine.log == [(50, "event")]


def test_passing_time_moves_the_clock_even_when_nothing_happens():
    timeline, engine, _host = build()
    timeline.pass_time(1000)
    timeline.pass_time(500)
    assert engine.now == 1500


def test_a_stepped_clock_holds_everything_back():
    clock = SteppedClock()
    timeline, engine, host = build((50, "event"), clock=clock)
    thread = host.spawn(steps(engine, 80), "thread")
    clock.step(60)
    assert not timeline.advance(lambda: thread.finished)
    assert engine.now == 60 and engine.log == [(50, "event")]
    clock.step(60)
    assert timeline.advance(lambda: thread.finished)
    assert engine.log[-1] == (80, "host")


def test_the_program_is_announced_before_anything_runs():
    timeline, engine, _host = build()
    timeline.call(steps(engine, 1), "one")
    timeline.call(steps(engine, 1), "two")
    assert engine.entered >= 2


def test_idle_daemons_do_not_keep_a_call_waiting():
    """kswapd's pause is not something to wait for."""
    timeline, _engine, host = build()

    def kswapd():
        while True:
            yield Sleep(100, idle=True)

    host.spawn(kswapd(), "kswapd", daemon=True)
    with pytest.raises(Quiescent):
        timeline.call(steps(None, Completion(host, "nothing")), "stuck")


def test_another_program_thread_may_end_the_wait():
    timeline, engine, host = build()
    done = Completion(host, "the other thread")

    def finish():
        yield 5
        done.complete()

    ready = threading.Event()
    other = threading.Thread(target=lambda: (ready.wait(10), timeline.call(finish(), "finish")))
    other.start()
    threading.Timer(0.02, ready.set).start()
    timeline.call(steps(engine, done), "waits")
    other.join(10)
    assert not other.is_alive() and host.next_time() == INFINITY


# Stalls


def test_a_report_says_since_when_each_thread_waits():
    timeline, engine, host = build((70, "event"))
    host.spawn(steps(engine, 50, Completion(host, "a reply")), "worker")
    timeline._others_may_act = lambda: False
    heard = []
    timeline.alarm, timeline.explain = heard.append, lambda: ["vector 4: masked"]
    with pytest.raises(Quiescent) as caught:
        timeline.wait(lambda: False, "an event")
    assert str(caught.value) == (
        "nothing left to run at 70 ns: worker waits for a reply since 50 ns; an event since 0 ns\n  vector 4: masked"
    )
    assert heard == [str(caught.value)]


def test_a_poll_in_vain_is_reported_only_if_somebody_is_stuck():
    timeline, _, _ = build()
    heard = []
    timeline.alarm = heard.append
    for _ in range(IDLE_POLLS + 1):
        assert timeline.poll(lambda: False, 1000) is False
    timeline.stuck = lambda: True
    for _ in range(IDLE_POLLS - 1):
        assert timeline.poll(lambda: False, 1000) is False
    assert len(set(heard)) == 1
    with pytest.raises(Quiescent):
        timeline.poll(lambda: False, 1000)


def test_polls_in_vain_take_the_short_way_until_something_runs():
    timeline, engine, host = build()
    assert not timeline.polls_in_vain(), "nobody has looked yet"
    timeline.poll(lambda: False, 1000)
    entered = engine.entered
    assert timeline.polls_in_vain() and timeline._idle_polls == 2 and engine.entered == entered
    engine.events = [(5, "event")]
    assert not timeline.polls_in_vain(), "a doorbell was rung"
    timeline.poll(lambda: False, 1000)
    host.spawn(steps(engine, 10), "thread")
    assert not timeline.polls_in_vain(), "a host thread can run"


def test_each_thousandth_poll_in_vain_asks_who_is_stuck():
    timeline, _, _ = build()
    timeline.poll(lambda: False, 1000)
    short = 0
    while timeline.polls_in_vain():
        short += 1
    assert short == IDLE_POLLS - 2
    timeline.stuck = lambda: True
    timeline.poll(lambda: False, 1000)
    assert timeline._stuck_polls == 1 and not timeline.polls_in_vain(), "the watchdog counts from here"


def test_a_stepped_clock_has_no_short_way():
    clock = SteppedClock(100)
    timeline, _, _ = build(clock=clock)
    timeline.poll(lambda: False, 50)
    assert not timeline.polls_in_vain()


def test_a_poll_that_found_something_or_ran_out_of_time_is_no_stall():
    timeline, _, _ = build(*((at, "event") for at in range(0, 10_000, 10)))
    timeline.stuck = lambda: True
    for _ in range(900):
        assert timeline.poll(lambda: False, 10) is False
    assert timeline._idle_polls == 0
    assert timeline.poll(lambda: True, 10) is True


def test_a_stuck_wait_is_reported_while_another_program_thread_is_still_alive():
    timeline, _, _ = build()
    heard, acts = [], iter((True, True, False))
    timeline.alarm, timeline.stuck = heard.append, lambda: True
    timeline._others_may_act = lambda: next(acts)
    with pytest.raises(Quiescent):
        timeline.wait(lambda: False, "an event")
    assert len(heard) == 3 and len(set(heard)) == 1
