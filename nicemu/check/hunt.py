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

SLEEPLESS = ("v3.6", "v3.6+srcu", "v3.7-seed")
"""Eras whose normal state it is that a subscriber sleeps under a lock: reports are compared, not counted as bugs."""


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
    found, widths = Hunt(target, seed), run(target, Follow()).widths
    for number in range(first, first + schedules):
        draw = random.Random(f"{seed}/{target.scenario.name}/{number}")
        outcome = run(target, policy_of(number, draw, widths) if preemptive else NonPreemptive(draw))
        found.schedules += 1
        found.steps += outcome.steps
        found.reports.update(outcome.reports)
        found.sites.update(outcome.sites)
        if outcome.violations:
            found.number, found.outcome = number, outcome
            break
    return found
