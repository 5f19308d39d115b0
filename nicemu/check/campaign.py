"""Hunts in all scenarios, eras and mutants, in parallel processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nicemu.check.hunt import Hunt, Target, hunt
from nicemu.check.mutants import target_of
from nicemu.mm.discipline import DISCIPLINES

CHUNK = 25
"""Schedules that a process runs before it takes something else."""
BUDGET = 600
"""Schedules in which a mutant must be caught."""
NON_PREEMPTIVE = 1000
"""Schedules without preemption that a mutant may escape."""


@dataclass(frozen=True, slots=True)
class Task:
    """Schedules ``first`` .. ``first + count`` - 1 of a target."""

    target: Target
    first: int
    count: int
    seed: int
    preemptive: bool = True


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of a mutant: the hunt that caught it (or not), and the one without preemption (if asked for)."""

    name: str
    hunt: Hunt
    plain: Hunt | None = None

    @property
    def caught(self) -> bool:
        """It showed."""
        return self.hunt.number >= 0

    @property
    def escapes(self) -> bool:
        """No schedule without preemption shows it."""
        return self.plain is not None and self.plain.number < 0


def work(task: Task) -> Hunt:
    """One chunk."""
    return hunt(task.target, task.count, task.seed, task.preemptive, task.first)


def work_mutant(task: tuple[str, int, bool]) -> Caught:
    """One mutant."""
    name, seed, escapes = task
    target = target_of(name)
    found = hunt(target, BUDGET, seed)
    return Caught(name, found, hunt(target, NON_PREEMPTIVE, seed, False) if escapes else None)


def parallel(function: Callable[[Any], Any], inputs: list[Any], workers: int) -> Iterator[Any]:
    """Results in the order of the inputs, computed by ``workers`` processes (1: here)."""
    if workers == 1 or len(inputs) == 1:
        yield from map(function, inputs)
        return
    from nicemu.nic.cold_start import compile_cold

    compile_cold()
    context = multiprocessing.get_context("fork")
    with context.Pool(workers) as pool:
        yield from pool.imap(function, inputs)


def merged(hunts: Iterable[Hunt]) -> dict[tuple[str, str], Hunt]:
    """The chunks of each (scenario, era) as one hunt; of several violations the first."""
    together: dict[tuple[str, str], Hunt] = {}
    for part in hunts:
        key = part.target.scenario.name, part.target.era
        whole = together.setdefault(key, Hunt(part.target, part.seed))
        whole.schedules += part.schedules
        whole.steps += part.steps
        whole.reports |= part.reports
        whole.sites |= part.sites
        if part.outcome is not None and whole.outcome is None:
            whole.number, whole.outcome = part.number, part.outcome
    return together


def unexpected_reports(found: Hunt) -> list[str]:
    """How the reports of a hunt differ from the lock that each site holds in its era (odp.md 1.3)."""
    lock_held = DISCIPLINES[found.target.era].lock_held
    expected = {(operation, lock_held(site)) for operation, site in found.sites}
    given = {(operation, lock) for operation, lock, _ in found.reports}
    lines = [f"{operation} sleeps under {lock}" for operation, lock in sorted(given - expected)]
    main = {(operation, lock_held(site)) for operation, site in found.sites if site in found.target.scenario.sites}
    lines += [f"{operation} does not report {lock}" for operation, lock in sorted(main - given) if lock]
    lines += [f"call site {site} is not reached" for site in found.target.scenario.sites
              if site not in {site for _, site in found.sites}]  # fmt: skip
    return lines
