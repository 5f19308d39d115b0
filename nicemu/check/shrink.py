"""The shortest schedule that still violates: deviations are taken away as long as the violation stays."""

from __future__ import annotations

import time

from nicemu.check.explore import Outcome
from nicemu.check.hunt import Target, run
from nicemu.check.policy import Follow

SECONDS = 20.0
"""Wall time that making one schedule shorter may take."""


def deviations(outcome: Outcome) -> dict[int, int]:
    """The answers of a run that a kernel without preemption would not have given."""
    return {number: answer for number, answer in enumerate(outcome.answers) if answer}


def shrink(target: Target, outcome: Outcome, seconds: float = SECONDS) -> tuple[dict[int, int], Outcome]:
    """The fewest deviations found (Zeller and Hildebrandt's ddmin, recalled) that violate in the same way, and their
    run."""
    kind, deadline = outcome.violations[0].kind, time.monotonic() + seconds

    def violates(some: dict[int, int]) -> Outcome | None:
        found = run(target, Follow(some))
        return found if found.violations and found.violations[0].kind == kind else None

    best, kept = _cut(deviations(outcome), outcome), outcome
    parts = 2
    while best and time.monotonic() < deadline:
        numbers = sorted(best)
        size = -(-len(numbers) // parts)
        for at in range(0, len(numbers), size):
            gone = set(numbers[at : at + size])
            smaller = {number: answer for number, answer in best.items() if number not in gone}
            found = violates(smaller)
            if found is not None:
                best, kept, parts = _cut(smaller, found), found, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(numbers))
    return best, kept


def _cut(some: dict[int, int], found: Outcome) -> dict[int, int]:
    """Without what lies behind the violation."""
    return {number: answer for number, answer in some.items() if number < len(found.answers)}
