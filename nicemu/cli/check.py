"""`nicemu check`: the race hunter."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.check.hunt import Hunt, Target


def check(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIO]...", help="Scenarios to run; default: all.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List scenarios and mutants, and stop.")] = False,
    discipline: Annotated[
        list[str] | None, typer.Option(help="Kernel eras; default: v3.7 and v6.12, and the reports of those before.")
    ] = None,
    schedules: Annotated[
        int, typer.Option(min=1, help="Schedules of each scenario and era; the eras of reports get 25.")
    ] = 220,
    seed: Annotated[int, typer.Option(help="Same seed, same schedules.")] = 1,
    only: Annotated[int | None, typer.Option(min=0, help="Run this one schedule, to see a violation again.")] = None,
    mutant: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Plant a deliberate bug.")] = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Plant each deliberate bug (or those named) and catch it.")
    ] = False,
    escapes: Annotated[
        bool, typer.Option("--escapes", help="With --mutants: which escape 1,000 schedules without preemption.")
    ] = False,
    non_preemptive: Annotated[
        bool, typer.Option("--non-preemptive", help="One CPU, no preemption: threads run until they sleep.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop after so many seconds, between chunks.")] = None,
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a scenario as a pyverbs program.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
) -> None:
    """Run scenarios under many interleavings of host threads and device, and check what must hold in each.

    What must hold: no DMA through a translation after its invalidation returned; no page freed before the device let
    go; no lost fault or completion; no deadlock; no lockdep report; memory as in some sequential order. A violation
    prints the shortest schedule found and how to see it again; the exit status is then 1.
    """
    from nicemu.check.scenarios import ALL
    from nicemu.config.mutants import MUTANTS

    for field, given, known in (("SCENARIO", scenarios, ALL), ("--mutant", mutant, MUTANTS)):
        _check_names(field, given, known)
    chosen, planted = scenarios or list(ALL), tuple(mutant or ())
    if listing:
        _list()
        return
    if export is not None:
        _export(chosen, export)
        return
    hunter = Hunter(seed, workers or os.cpu_count() or 1, seconds)
    if mutants or escapes:
        for field, given in (("SCENARIO", scenarios), ("--discipline", discipline)):
            if given:
                what = "expected none with --mutants, which hunts each where it shows"
                raise ConfigError(f"command line: field {field}: {what}, given {', '.join(given)}")
        hunter.mutants(list(planted or MUTANTS), escapes)
    elif only is not None:
        hunter.once(_targets(chosen, discipline or ["v6.12"], planted), only, not non_preemptive)
    else:
        hunter.all(_targets(chosen, discipline or _eras(planted), planted), schedules, not non_preemptive)
    if json_file is not None:
        json_file.write_text(json.dumps(hunter.data(), indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(1 if hunter.failed else 0)


def _check_names(field: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    for name in given or ():
        if name not in known:
            raise ConfigError(f"command line: field {field}: expected one of {', '.join(known)}, given {name!r}")


def _export(chosen: list[str], file: Path) -> None:
    from nicemu.check.export import export
    from nicemu.check.scenarios import ALL

    if len(chosen) != 1:
        raise ConfigError(f"command line: field --export: expected one SCENARIO, given {len(chosen)}")
    file.write_text(export(ALL[chosen[0]]), encoding="utf-8")


def _eras(planted: tuple[str, ...]) -> list[str]:
    """The newest first; those whose reports are compared last, and not with a bug in them."""
    from nicemu.check.hunt import CLEAN, SLEEPLESS

    return ["v6.12"] if planted else [*CLEAN, *SLEEPLESS]


def _list() -> None:
    from nicemu.check.mutants import WHERE
    from nicemu.check.scenarios import ALL
    from nicemu.config.mutants import MUTANTS

    typer.echo("scenarios:")
    for name, scenario in ALL.items():
        sites = ", ".join(scenario.sites) or "no call site of its own"
        typer.echo(f"  {name:<22} {scenario.what} ({sites}; {', '.join(scenario.eras())})")
    typer.echo("mutants:")
    for name, bug in MUTANTS.items():
        typer.echo(f"  {name:<30} {bug.layer}: {bug.what} (in {' under '.join(WHERE[name])})")


def _targets(names: list[str], eras: list[str], planted: tuple[str, ...]) -> list["Target"]:
    """Every scenario in every era that has it."""
    from nicemu.check.hunt import CLEAN, SLEEPLESS, Target
    from nicemu.check.scenarios import ALL

    _check_names("--discipline", eras, (*SLEEPLESS, *CLEAN))
    found = [Target(ALL[name], era, planted) for era in eras for name in names if era in ALL[name].eras()]
    if not found:
        given = ", ".join(eras)
        raise ConfigError(f"command line: field --discipline: expected an era of {', '.join(names)}, given {given}")
    return found


class Hunter:
    """One call of the command: what it found so far."""

    def __init__(self, seed: int, workers: int, seconds: float | None) -> None:
        self.seed, self.workers = seed, workers
        self.started = time.monotonic()
        self.deadline = None if seconds is None else self.started + seconds
        self.hunts: list[Hunt] = []
        self.caught: list[Any] = []
        self.failed = False

    def all(self, targets: list["Target"], schedules: int, preemptive: bool) -> None:
        """Many schedules of every target."""
        from nicemu.check import report
        from nicemu.check.campaign import CHUNK, Task, merged, parallel, unexpected_reports, work
        from nicemu.check.hunt import SLEEPLESS

        todo = [Task(target, first, min(CHUNK, schedules - first), self.seed, preemptive)
                for first in range(0, schedules, CHUNK) for target in targets
                if first == 0 or target.era not in SLEEPLESS]  # fmt: skip
        parts = []
        say = self._progress(len(todo), f"chunks of {CHUNK} schedules")
        for part in parallel(work, todo, self.workers):
            parts.append(part)
            say(len(parts))
            if self.deadline is not None and time.monotonic() > self.deadline:
                break
        self.hunts = list(merged(parts).values())
        for found in self.hunts:
            typer.echo(report.hunt_line(found))
            self.failed |= found.outcome is not None or bool(unexpected_reports(found))
        for found in self.hunts:
            if found.outcome is not None:
                for line in report.violation_lines(found):
                    typer.echo(line)
        total, steps = sum(h.schedules for h in self.hunts), sum(h.steps for h in self.hunts)
        bad = sum(h.outcome is not None or bool(unexpected_reports(h)) for h in self.hunts)
        state = f"{bad} of {len(self.hunts)} not as they must be" if bad else "nothing violated"
        typer.echo(f"{total:,} schedules, {steps:,} steps of {len(self.hunts)} scenarios and eras in "
                   f"{time.monotonic() - self.started:.0f} s, seed {self.seed}: {state}")  # fmt: skip

    def once(self, targets: list["Target"], number: int, preemptive: bool) -> None:
        """One schedule, in full."""
        from nicemu.check import report
        from nicemu.check.hunt import hunt

        for target in targets:
            found = hunt(target, 1, self.seed, preemptive, number)
            self.hunts.append(found)
            lines = report.violation_lines(found) if found.outcome is not None else [report.hunt_line(found)]
            for line in lines:
                typer.echo(line)
            self.failed |= found.outcome is not None

    def mutants(self, names: list[str], escapes: bool) -> None:
        """Each deliberate bug."""
        from nicemu.check import report
        from nicemu.check.campaign import parallel, work_mutant

        say = self._progress(len(names), "mutants")
        for found in parallel(work_mutant, [(name, self.seed, escapes) for name in names], self.workers):
            self.caught.append(found)
            typer.echo(report.mutant_line(found))
            say(len(self.caught))
        for line in report.mutant_summary(self.caught):
            typer.echo(line)
        self.failed |= not all(found.caught for found in self.caught)

    def data(self) -> dict[str, Any]:
        """For JSON."""
        from nicemu.check.report import as_data

        return {"seed": self.seed, **as_data(self.hunts, self.caught)}

    def _progress(self, total: int, what: str) -> Callable[[int], None]:
        last = [self.started]

        def say(done: int) -> None:
            if time.monotonic() - last[0] >= 10:
                last[0] = time.monotonic()
                print(f"nicemu check: {done} of {total} {what}, {last[0] - self.started:.0f} s", file=sys.stderr)

        return say
