"""One run under one schedule: what it is, and what it finds."""

import random

import numpy as np
import pytest

from nicemu.check import explore
from nicemu.check.explore import Outcome, Run
from nicemu.check.hunt import Target, hunt, run
from nicemu.check.invariants import FreedWatch, device_frames
from nicemu.check.policy import DEVICE, Follow, Pct, RandomWalk
from nicemu.check.scenarios import ALL
from nicemu.check.testbed import Testbed
from nicemu.mm.page_table import PFN_SHIFT
from nicemu.tables.records import FrameKind
from tests.check.made import quiet, scenario, spin, step, take, trip, wait

Testbed.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name begins with


def found(*kinds: str, outcome: Outcome) -> bool:
    return [violation.kind for violation in outcome.violations] == list(kinds)


def test_quiet_threads_violate_nothing() -> None:
    outcome = run(Target(scenario(one=(step(quiet),), two=(step(quiet),)), "v6.12"), Follow())
    assert not outcome.violations and outcome.widths and outcome.switches >= 2


def test_a_run_is_what_its_policy_makes_it() -> None:
    for make in (lambda: Pct(random.Random(3), 3, 60), lambda: RandomWalk(random.Random(3))):
        first, second = (run(Target(ALL["two-ranges"], "v6.12"), make(), traced=True) for _ in range(2))
        assert first == second


def test_each_answer_has_as_many_options_as_there_were() -> None:
    outcome = run(Target(ALL["dontneed"], "v6.12"), RandomWalk(random.Random(1)))
    assert len(outcome.answers) == len(outcome.widths) <= outcome.steps
    assert all(answer < width for answer, width in zip(outcome.answers, outcome.widths, strict=True))


def test_option_0_goes_on_with_the_thread_that_runs() -> None:
    asked: list[tuple[list[int], bool]] = []

    class Watch(Follow):
        def choose(self, options: list[int], preempts: bool) -> int:
            asked.append((options, preempts))
            return super().choose(options, preempts)

    run(Target(scenario(one=(step(quiet),), two=(step(quiet),)), "v6.12"), Watch())
    goes_on = [options[0] for options, preempts in asked if preempts]
    assert goes_on and DEVICE not in goes_on and goes_on == sorted(goes_on)


# What is found --------------------------------------------------------------------------------------------------------


def test_a_deadlock_is_found() -> None:
    target = Target(scenario(one=(take("x", "y"),), two=(take("y", "x"),)), "v6.12")
    hunted = hunt(target, 40, 1)
    outcomes = [hunted.outcome, *(run(target, RandomWalk(random.Random(n), 0.6)) for n in range(20))]
    deadlocks = [each for each in outcomes if each is not None and found("deadlock", outcome=each)]
    assert deadlocks and "one is in take x and y; two is in take y and x" in deadlocks[0].violations[0].text


def test_an_order_of_locks_that_can_deadlock_is_found_in_a_run_that_does_not() -> None:
    outcome = run(Target(scenario(one=(take("x", "y"),), two=(take("y", "x"),)), "v6.12"), Follow())
    assert found("lock", outcome=outcome) and "circular" in outcome.violations[0].text


def test_a_completion_that_never_comes_is_found() -> None:
    outcome = run(Target(scenario(one=(step(wait),)), "v6.12"), Follow())
    assert found("lost", outcome=outcome)
    assert "one is in wait" in outcome.violations[0].text and "something nobody does" in outcome.violations[0].text


def test_a_run_without_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "LIMIT", 300)
    outcome = run(Target(scenario(one=(step(spin),)), "v6.12"), Follow())
    assert found("livelock", outcome=outcome) and outcome.steps == 300


def test_a_crash_in_a_thread_is_found() -> None:
    outcome = run(Target(scenario(one=(step(trip),), two=(step(quiet),)), "v6.12"), Follow())
    assert found("crash", outcome=outcome) and "KeyError: 'no such row'" in outcome.violations[0].text


# Frames that the device has a translation of --------------------------------------------------------------------------


def frame_at(bed: Testbed, area: str, page: int = 0) -> int:
    return int(bed.mm.page_table.get(bed.at(area, page) >> 12)) >> PFN_SHIFT


def test_the_device_has_translations_of_pages_that_were_there_when_they_were_registered() -> None:
    bed = Testbed(ALL["register"], "v6.12")
    frames = device_frames(bed.lab)
    assert frame_at(bed, "a") in frames and frame_at(bed, "b") not in frames
    bed.lab.close()


def test_freeing_a_page_that_the_device_has_is_seen() -> None:
    bed = Testbed(ALL["dontneed"], "v6.12")
    watch, frame, other = FreedWatch(bed), frame_at(bed, "a"), bed.lab.frames.allocate(FrameKind.MODEL)
    bed.lab.frames.free(other)
    assert not watch.found
    bed.lab.frames.free_many(np.array([frame]))
    assert [violation.kind for violation in watch.found] == ["freed"] and f"frame {frame} " in watch.found[0].text
    bed.lab.close()


def test_a_run_ends_with_the_step_that_frees_it() -> None:
    outcome = Run(Testbed(ALL["dontneed"], "v6.12", ("zap_not_notified",)), Follow()).go()
    assert {violation.kind for violation in outcome.violations} == {"freed"}
    assert "frame" in outcome.violations[0].text and "dontneed" in outcome.violations[0].text
