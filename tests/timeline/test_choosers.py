"""Choices of the scheduler can be steered by a seed, recorded, and replayed."""

import pytest

from nicemu.timeline import ReplayChooser, Scheduler, SeededChooser


def order(chooser):
    """The order in which five threads of three steps each run."""
    now, seen = [0], []
    host = Scheduler(lambda: now[0], chooser)

    def steps(name):
        for i in range(3):
            seen.append((name, i))
            yield 10

    for name in "abcde":
        host.spawn(steps(name), name)
    while host.active:
        now[0] = host.next_time()
        host.step(now[0])
    return seen


def test_default_is_first_in_first_out():
    assert [name for name, _ in order(None)] == list("abcde" * 3)


def test_a_seed_gives_one_schedule_and_another_seed_another():
    assert order(SeededChooser(7)) == order(SeededChooser(7))
    assert order(SeededChooser(7)) != order(SeededChooser(8))


def test_a_recorded_schedule_replays():
    chooser = SeededChooser(3, longest_ns=50)
    seen = order(chooser)
    assert order(ReplayChooser(chooser.answers, stretches=True)) == seen


def test_a_schedule_of_another_run_is_refused():
    chooser = SeededChooser(3)
    order(chooser)
    with pytest.raises(ValueError, match="recorded choices"):
        order(ReplayChooser(chooser.answers[:-3]))


@pytest.mark.parametrize("chooser", [None, SeededChooser(5), SeededChooser(6, longest_ns=9)])
def test_a_delay_is_a_first_step_of_cpu_time(chooser):
    """A thread that begins after its CPU time runs when one would that yields that time first."""
    times = []
    for delayed in (True, False):
        now, seen = [0], []
        twin = SeededChooser(6, longest_ns=9) if chooser is not None and chooser.longest_ns else chooser
        host = Scheduler(lambda now=now: now[0], twin)

        def work(yields, now=now, seen=seen):
            if yields:
                yield 70
            seen.append(now[0])
            yield 5
            seen.append(now[0])

        host.spawn(work(not delayed), "work", delay=70 if delayed else 0)
        while host.active:
            now[0] = host.next_time()
            host.step(now[0])
        times.append(seen)
    assert times[0] == times[1]
