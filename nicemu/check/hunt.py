"""Many schedules of a scenario, each on a lab of its own. Schedule ``n`` of a seed and scenario is always the same."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from nicemu.check.explore import Outcome, Run
from nicemu.check.invariants import Violation
from nicemu.check.policy import Follow, NonPreemptive, Policy, policy_of
from nicemu.check.scenario import Scenario
from nicemu.check.testbed import Testbed
from nicemu.mm.discipline import DISCIPLINES, ERAS

SLEEPLESS = tuple(era for era in ERAS if any(map(DISCIPLINES[era].lock_held, DISCIPLINES[era].sites)))
"""Eras whose normal state it is that a subscriber sleeps under a lock: reports are compared, not counted as bugs."""

CLEAN = tuple(era for era in reversed(ERAS) if era not in SLEEPLESS)
"""The others, the newest first: nothing may be reported."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is hunted in: a scenario in an era with deliberate bugs."""

    scenario: Scenario
    era: str
    mutants: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        """Scenarios hold functions: another process looks its own up by the name."""
        return named, (self.scenario.name, self.era, self.mutants)


def named(scenario: str, era: str, mutants: tuple[str, ...] = ()) -> Target:
    """The target with the shipped scenario of this name."""
    from nicemu.check.scenarios import ALL

    return Target(ALL[scenario], era, mutants)


@dataclass(slots=True)
class Hunt:
    """What a hunt found. ``number``: of the schedule that violates, -1: none does."""

    target: Target
    seed: int
    schedules: int = 0
    steps: int = 0
    number: int = -1
    outcome: Outcome | None = None
    reports: set[tuple[str, str, str]] = field(default_factory=set)
    sites: set[tuple[str, str]] = field(default_factory=set)


def run(target: Target, policy: Policy, traced: bool = False) -> Outcome:
    """One run on a testbed of its own."""
    try:
        bed = Testbed(target.scenario, target.era, target.mutants)
    except AssertionError as error:
        return Outcome(violations=[Violation("crash", f"the set-up: {error}")])
    try:
        return Run(bed, policy, target.era in SLEEPLESS, traced).go()
    finally:
        bed.lab.close()


def hunt(target: Target, schedules: int, seed: int, preemptive: bool = True, first: int = 0) -> Hunt:
    """Run schedules ``first``, ``first`` + 1, ... until one violates something."""
    found, plain = Hunt(target, seed), run(target, Follow())
    for number in range(first, first + schedules):
        draw = random.Random(f"{seed}/{target.scenario.name}/{number}")
        policy = policy_of(number, draw, plain.widths) if preemptive else NonPreemptive(draw)
        outcome = plain if isinstance(policy, Follow) and not policy.deviations else run(target, policy)
        found.schedules += 1
        found.steps += outcome.steps
        found.reports.update(outcome.reports)
        found.sites.update(outcome.sites)
        if outcome.violations:
            found.number, found.outcome = number, outcome
            break
    return found
