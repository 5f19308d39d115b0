"""Who waits for whom, as the watchdog says it."""

from __future__ import annotations

import pytest

from nicemu.mm.locks import Mutex, RwSemaphore, Srcu
from nicemu.timeline import Completion, Scheduler
from nicemu.timeline.hung_task import call_trace, chain, deadlock_lines, deadlocks, report


@pytest.fixture
def host():
    """A scheduler whose time stands still."""
    return Scheduler(lambda: 0)


def run(host):
    """Everything that can run does."""
    while host.next_time() == 0:
        host.step(0)


def user(host, *locks, then=None):
    """Takes locks, a moment between them, and waits for something."""
    thread = host.current
    for lock in locks:
        yield from lock.acquire(thread)
        yield 0
    if then is not None:
        yield from then


def test_the_chain_leads_to_what_the_last_one_waits_for(host):
    a, b = Mutex(host, "a"), Mutex(host, "b")
    device = Completion(host, "ZAP_MTT of nicemu0")
    host.spawn(user(host, b, then=iter([device])), "one")
    run(host)
    host.spawn(user(host, a, b), "two")
    run(host)
    last = host.spawn(user(host, a), "three")
    run(host)
    assert chain(last) == "a, held by two, which waits for b, held by one, which waits for ZAP_MTT of nicemu0"
    assert deadlocks(host) == []


def test_a_circle_is_a_deadlock_reported_once(host):
    a, b, c = (Mutex(host, name) for name in "abc")
    for name, locks in (("one", (a, b)), ("two", (b, c)), ("three", (c, a)), ("outside", (a,))):
        host.spawn(user(host, *locks), name)
    run(host)
    assert deadlock_lines(host) == ["deadlock: one waits for b; two waits for c; three waits for a"]
    outside = next(thread for thread in host.blocked.values() if thread.name == "outside")
    assert chain(outside).endswith("held by one: a deadlock")


def test_readers_hold_a_semaphore(host):
    lock = RwSemaphore(host, "mmap_lock")
    never = Completion(host, "never")

    def reader():
        yield from lock.acquire_read(host.current)
        yield never

    def writer():
        yield from lock.acquire_write(host.current)

    host.spawn(reader(), "first")
    host.spawn(reader(), "second")
    waiting = host.spawn(writer(), "writer")
    run(host)
    assert chain(waiting) == "mmap_lock, held by first, second, which waits for never"


def test_a_grace_period_waits_for_its_readers(host):
    srcu = Srcu(host)
    never = Completion(host, "never")

    def reader():
        srcu.enter(host.current)
        yield never

    def waiter():
        yield from srcu.synchronize(host.current)

    host.spawn(reader(), "reader")
    run(host)
    waiting = host.spawn(waiter(), "waiter")
    run(host)
    assert chain(waiting) == "srcu, held by reader, which waits for never"


def test_a_report_has_the_traces_of_all_in_the_chain(host):
    a = Mutex(host, "a")

    def ioctl(then):
        host.current.context.append("reg_mr")
        yield from user(host, a, then=then)

    def wait_for_device():
        yield Completion(host, "device")

    host.spawn(ioctl(wait_for_device()), "one")
    run(host)
    two = host.spawn(ioctl(None), "two")
    run(host)
    assert report(two) == [
        "task two, reg_mr; call trace:", "  lock_slowpath", "  user", "  ioctl",
        "task one, reg_mr; call trace:", "  wait_for_device", "  user", "  ioctl",
    ]  # fmt: skip


def test_a_running_thread_has_the_trace_from_here_to_the_scheduler(host):
    seen = []

    def inner():
        seen.append(call_trace(host.current))
        yield 0

    def outer():
        yield from inner()

    host.spawn(outer(), "thread")
    run(host)
    assert seen == [("inner", "outer")]
