"""Host threads: order, waiting, waking, who sleeps where it must not."""

import pytest

from nicemu.tables.records import INFINITY
from nicemu.timeline import Chooser, Completion, Scheduler, Sleep


class Clock:
    """Time as a number."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock():
    """A clock at 0."""
    return Clock()


@pytest.fixture
def host(clock):
    """A scheduler on the clock."""
    return Scheduler(clock)


def run(host, clock, limit=1000):
    """Run everything."""
    for _ in range(limit):
        if host.next_time() == INFINITY:
            return
        clock.now = max(clock.now, host.next_time())
        host.step(clock.now)
    raise AssertionError("does not end")


def worker(log, name, *waits):
    """Logs its name after each wait."""
    for wait in waits:
        got = yield wait
        log.append((name, got))
    return name


def test_threads_of_one_moment_run_in_the_order_they_became_ready(host, clock):
    log = []
    for name in "abc":
        host.spawn(worker(log, name, 0, 0), name)
    run(host, clock)
    assert [name for name, _ in log] == list("abcabc")


def test_time_orders_threads(host, clock):
    log = []
    host.spawn(worker(log, "late", 100), "late")
    host.spawn(worker(log, "early", Sleep(10)), "early")
    host.spawn(worker(log, "later", 5), "later", delay=200)
    run(host, clock)
    assert [name for name, _ in log] == ["early", "late", "later"] and clock.now == 205


def test_a_completion_wakes_its_waiters_with_its_value(host, clock):
    log, done = [], Completion(host)

    def finish():
        yield 50
        done.complete("value")

    host.spawn(worker(log, "a", done), "a")
    host.spawn(worker(log, "b", done), "b")
    host.spawn(finish(), "finish")
    run(host, clock)
    assert log == [("a", "value"), ("b", "value")] and clock.now == 50


def test_a_completion_that_is_done_does_not_block(host, clock):
    log, done = [], Completion(host)
    done.complete(3)
    host.spawn(worker(log, "a", done), "a")
    run(host, clock)
    assert log == [("a", 3)] and not host.blocked


def test_a_thread_has_its_result(host, clock):
    thread = host.spawn(worker([], "a", 1), "a")
    run(host, clock)
    assert thread.finished and thread.result == "a" and thread.error is None


def test_the_error_of_a_joined_thread_is_kept_and_of_another_is_raised(host, clock):
    def fail():
        yield 1
        raise ValueError("no")

    joined = host.spawn(fail(), "joined")
    joined.joined = True
    run(host, clock)
    assert isinstance(joined.error, ValueError)
    host.spawn(fail(), "alone")
    with pytest.raises(ValueError, match="no"):
        run(host, clock)


@pytest.mark.parametrize("wait, reported", [(5, False), (Sleep(5), True), ("completion", True)])
def test_sleeping_while_atomic_is_reported_and_goes_on(host, clock, wait, reported):
    seen, log = [], []
    host.on_atomic_sleep = lambda thread, wait: seen.append(thread.name)
    done = Completion(host)
    thread = host.spawn(worker(log, "a", done if wait == "completion" else wait), "a")
    thread.atomic.append("page_table_lock")
    host.step(0)
    done.complete()
    run(host, clock)
    assert seen == (["a"] if reported else []) and len(log) == 1


def test_spinning_while_atomic_is_not(host, clock):
    seen = []
    host.on_atomic_sleep = lambda thread, wait: seen.append(thread.name)
    lock = type("SpinLock", (), {"spins": True, "subscribe": lambda self, thread: True})()
    thread = host.spawn(worker([], "a", lock), "a")
    thread.atomic.append("outer")
    run(host, clock)
    assert seen == [] and thread.finished


class Backwards(Chooser):
    """The last ready thread first; everything takes 7 ns longer."""

    steers = True

    def pick(self, ready):
        """The last."""
        return len(ready) - 1

    def stretch(self, kind):
        """7 ns."""
        return 7


def test_a_chooser_decides_who_runs_and_how_long_things_take(clock):
    host, log = Scheduler(clock, Backwards()), []
    for name in "abc":
        host.spawn(worker(log, name, 3), name)
    run(host, clock)
    assert sorted(name for name, _ in log) == list("abc")
    assert clock.now == 10


def test_only_threads_that_are_ready_by_then_are_offered(clock):
    offered = []

    class Watch(Chooser):
        steers = True

        def pick(self, ready):
            offered.append([thread.name for thread in ready])
            return 0

    host = Scheduler(clock, Watch())
    host.spawn(worker([], "a"), "a")
    host.spawn(worker([], "b"), "b")
    host.spawn(worker([], "c"), "c", delay=100)
    run(host, clock)
    assert offered == [["a", "b"]]


def test_an_idle_pause_keeps_nothing_running(host, clock):
    host.spawn(worker([], "kswapd", Sleep(100, idle=True)), "kswapd", daemon=True)
    assert host.active
    host.step(0)
    assert not host.active and host.next_time() == 100
    host.spawn(worker([], "call", 1), "call")
    assert host.active


def test_an_abandoned_thread_is_closed_where_it_stands(host, clock):
    closed = []

    def waits():
        try:
            yield Completion(host)
        finally:
            closed.append(True)

    thread = host.spawn(waits(), "a")
    host.step(0)
    assert thread.number in host.blocked
    host.abandon(thread)
    assert closed and thread.finished and not host.blocked
