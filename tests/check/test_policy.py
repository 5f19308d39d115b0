"""Ways to choose schedules: from a seed, fair, and to be followed again."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from nicemu.check.explore import Outcome
from nicemu.check.hunt import Target, run
from nicemu.check.policy import (
    DEVICE,
    PATIENCE,
    SYSTEMATIC,
    Follow,
    NonPreemptive,
    Pct,
    Policy,
    RandomWalk,
    policy_of,
    single_deviations,
)
from nicemu.check.scenarios import ALL
from nicemu.check.shrink import deviations

RANDOM: dict[str, Callable[[random.Random], Policy]] = {
    "pct": lambda draw: Pct(draw, 3, 50),
    "walk": RandomWalk,
    "walk, rarely": lambda draw: RandomWalk(draw, 0.05),
    "not preemptive": NonPreemptive,
}
each_policy = pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)


def answers(policy: Policy, count: int = 200) -> list[int]:
    """Of three threads and the device, that can always go on."""
    given, last = [], 1
    for _ in range(count):
        options = [last, *(each for each in (1, 2, 3, DEVICE) if each != last)]
        given.append(policy.choose(options, last != DEVICE))
        last = options[given[-1]]
    return given


@each_policy
def test_the_same_seed_is_the_same_schedule(make: Callable[[random.Random], Policy]) -> None:
    assert answers(make(random.Random(7))) == answers(make(random.Random(7)))


@pytest.mark.parametrize("name", ["pct", "walk"])
def test_another_seed_is_another_schedule(name: str) -> None:
    assert len({tuple(answers(RANDOM[name](random.Random(seed)))) for seed in range(10)}) > 5


@pytest.mark.parametrize("seed", range(20))
def test_under_pct_nobody_starves(seed: int) -> None:
    policy, waits = Pct(random.Random(seed), 3, 50), dict.fromkeys((1, 2, 3, DEVICE), 0)
    for _ in range(3000):
        options = list(waits)
        chosen = options[policy.choose(options, False)]
        waits = {option: 0 if option == chosen else count + 1 for option, count in waits.items()}
        assert max(waits.values()) <= PATIENCE + len(waits)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_reaches_everybody(seed: int) -> None:
    policy = RandomWalk(random.Random(seed))
    assert {policy.choose([1, 2, 3, DEVICE], False) for _ in range(20_000)} == {0, 1, 2, 3}


def test_without_preemption_a_thread_goes_on_until_it_sleeps() -> None:
    policy = NonPreemptive(random.Random(1))
    assert {policy.choose([2, 1, DEVICE], True) for _ in range(100)} == {0}
    assert {policy.choose([2, 1, DEVICE], False) for _ in range(100)} == {0, 1, 2}


def test_follow_answers_what_is_not_there_with_the_plain_order() -> None:
    policy = Follow({0: 1, 2: 5})
    assert [policy.choose([1, 2], True) for _ in range(4)] == [1, 0, 0, 0]


def test_single_deviations_are_all_other_answers() -> None:
    assert single_deviations([2, 3]) == [(0, 1), (1, 1), (1, 2)]


def test_a_small_scenario_is_deviated_from_once_everywhere_before_chance_has_a_say() -> None:
    policies = [policy_of(number, random.Random(1), [2, 3]) for number in range(6)]
    assert [each.deviations for each in policies[:4] if isinstance(each, Follow)] == [{}, {0: 1}, {1: 1}, {1: 2}]
    assert not any(isinstance(each, Follow) for each in policies[4:])


def test_a_large_scenario_is_left_to_chance_after_the_plain_schedule() -> None:
    widths = [2] * (SYSTEMATIC + 1)
    assert isinstance(policy_of(0, random.Random(1), widths), Follow)
    assert {type(policy_of(n, random.Random(1), widths)) for n in range(1, 9)} == {Pct, RandomWalk}


# Runs -----------------------------------------------------------------------------------------------------------------


def facts(outcome: Outcome) -> list[object]:
    return json.loads(json.dumps([outcome.answers, outcome.widths, outcome.violations, outcome.reports, outcome.sites,
                                  outcome.steps, outcome.switches, outcome.trace]))  # fmt: skip


def recorded(scenario: str, era: str, seed: int) -> list[object]:
    return facts(run(Target(ALL[scenario], era), Pct(random.Random(seed), 3, 60), traced=True))


@pytest.mark.parametrize("scenario", ["cold-dontneed", "fork", "two-ranges", "mremap"])
@pytest.mark.parametrize("era", ["v3.6", "v6.12"])
def test_follow_replays_a_recorded_run_exactly(scenario: str, era: str) -> None:
    target = Target(ALL[scenario], era)
    first = run(target, Pct(random.Random(5), 3, 60), traced=True)
    assert deviations(first)
    assert facts(run(target, Follow(deviations(first)), traced=True)) == facts(first)


def test_another_process_has_the_same_run_whatever_its_hash_seed() -> None:
    program = (
        "import json; from tests.check.test_policy import recorded; print(json.dumps(recorded('fork', 'v6.12', 9)))"
    )
    for seed in ("1", "12345"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == recorded("fork", "v6.12", 9)
