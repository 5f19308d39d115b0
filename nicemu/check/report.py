"""What `nicemu check` says: tables of hunts and mutants, and a violation with its shortest schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from nicemu.check.campaign import Caught, unexpected_reports
from nicemu.check.explore import Outcome
from nicemu.check.hunt import Hunt, run
from nicemu.check.policy import Follow
from nicemu.check.shrink import shrink
from nicemu.config.mutants import MUTANTS

WIDTH = 150


def hunt_line(found: Hunt) -> str:
    """One scenario and era."""
    state = "ok"
    if found.outcome is not None:
        state = f"{found.outcome.violations[0].kind.upper()} in schedule {found.number}"
    elif wrong := unexpected_reports(found):
        state = "; ".join(wrong)
    locks = ", ".join(sorted({f"{operation}: {lock}" for operation, lock, _ in found.reports}))
    name, era = found.target.scenario.name, found.target.era
    return f"  {name:<22} {era:<10} {found.schedules:>6} schedules {found.steps:>9} steps  {state}" + (
        f"  [{locks}]" if locks else ""
    )


def violation_lines(found: Hunt) -> Iterator[str]:
    """What was violated, the shortest schedule that does it, and how to see it again."""
    assert found.outcome is not None
    target = found.target
    planted = f", mutant {' '.join(target.mutants)}" if target.mutants else ""
    first = found.outcome.violations[0]
    yield (f"{first.kind.upper()} in {target.scenario.name} ({target.era}{planted}), schedule {found.number} of seed "
           f"{found.seed}: {target.scenario.what}")  # fmt: skip
    for violation in found.outcome.violations[:3]:
        yield f"  {violation.text}"
    some, outcome = shrink(target, found.outcome)
    again = run(target, Follow(some), traced=True)
    yield f"  shortest schedule found: {len(some)} deviations from the plain order, {outcome.steps} steps"
    yield from schedule_lines(again)
    options = f"--discipline {target.era} " + "".join(f"--mutant {name} " for name in target.mutants)
    yield f"  again: nicemu check {target.scenario.name} {options}--seed {found.seed} --only {found.number}"


def schedule_lines(outcome: Outcome) -> Iterator[str]:
    """Who ran, and where it stopped, one line a turn."""
    for thread, turns in groupby(outcome.trace, key=lambda step: step[0]):
        stops = [stop for _, stop in turns]
        yield f"    {thread:<28} {len(stops):>3} steps  {stops[-1]}"[:WIDTH]


def mutant_line(found: Caught) -> str:
    """One mutant."""
    target, what = found.hunt.target, MUTANTS[found.name].what
    if found.caught and found.hunt.outcome is not None:
        state = f"caught: {found.hunt.outcome.violations[0].kind} in schedule {found.hunt.number}"
    else:
        state = f"ESCAPED {found.hunt.schedules} schedules"
    if found.plain is not None:
        escapes = f"escapes {found.plain.schedules} non-preemptive ones"
        state += f"; {escapes}" if found.escapes else f"; non-preemptive schedule {found.plain.number} shows it too"
    return f"  {found.name:<30} {target.scenario.name:<18} {target.era:<10} {state}  ({what})"


def mutant_summary(all_found: Iterable[Caught]) -> list[str]:
    """How many mutants there are, and how many were caught."""
    together = list(all_found)
    lines = [f"{len(together)} mutants, {sum(found.caught for found in together)} caught"]
    if any(found.plain is not None for found in together):
        escaped = [found.name for found in together if found.escapes]
        lines.append(f"{len(escaped)} of them escape all non-preemptive schedules: {', '.join(escaped) or 'none'}")
    return lines


def as_data(hunts: Iterable[Hunt], mutants: Iterable[Caught]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "hunts": [
            {"scenario": h.target.scenario.name, "era": h.target.era, "schedules": h.schedules, "steps": h.steps,
             "violation": h.outcome.violations[0]._asdict() if h.outcome else None, "schedule": h.number,
             "reports": sorted(h.reports), "sites": sorted(h.sites), "unexpected": unexpected_reports(h)}
            for h in hunts
        ],
        "mutants": [
            {"name": c.name, "scenario": c.hunt.target.scenario.name, "era": c.hunt.target.era, "caught": c.caught,
             "kind": c.hunt.outcome.violations[0].kind if c.hunt.outcome else None, "schedule": c.hunt.number,
             "escapes_non_preemptive": c.escapes if c.plain is not None else None}
            for c in mutants
        ],
    }  # fmt: skip
