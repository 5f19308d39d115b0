"""`nicemu bench`: what the emulator costs, beside limits measured in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nicemu.bench.measure import Case, Effort, Row
    from nicemu.bench.results import Ratios

from nicemu.config.errors import ConfigError


def bench(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every reading into FILE.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Compare ratios with those of an earlier --json; fail if one fell by over 25 %."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only rows with WORD in name or topic; may be repeated.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="A few rows, a minute: what CI runs.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Other simulators and soft RoCE as well.")] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Count seconds of CPU time, not of wall-clock time: for a busy machine.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail if a gate is not met.")] = False,
    list_rows: Annotated[bool, typer.Option("--list", help="Name the rows and stop.")] = False,
) -> None:
    """Measure what the emulator costs in wall-clock time.

    Each row is the median of several runs and stands beside limits measured in turn with it: a bare event loop, memcpy,
    an empty Python call. The ratio to those says more than the rate: it is the same on a slow machine or a busy one.
    At the end each promise of docs/performance.md is a gate: required, measured, met or not.

    Examples: nicemu bench --only "WRITE 64 KiB" measures a few rows. nicemu bench --json before.json, then after a
    change nicemu bench --against before.json.
    """
    from nicemu.bench import rows

    chosen = [case for case in rows.cases(peers) if _wanted(case, only or [], short)]
    if not chosen:
        raise ConfigError(f"--only: expected a word of a row's name or topic, given {only} (nicemu bench --list)")
    if list_rows:
        for case in chosen:
            typer.echo(f"{case.topic:<8} {case.name}")
        return
    _measure(chosen, json, against, short, cpu, check)


def _wanted(case: Case, words: list[str], short: bool) -> bool:
    text = f"{case.topic} {case.name}".lower()
    return (not words or any(word.lower() in text for word in words)) and (case.short or not short)


def _measure(chosen: list[Case], json: Path | None, against: Path | None, short: bool, cpu: bool, check: bool) -> None:
    from nicemu.bench import gates, machine, table
    from nicemu.bench.measure import FULL, SHORT
    from nicemu.bench.results import Results, load_ratios
    from nicemu.bench.units import Clock

    clock: Clock = "cpu" if cpu else "wall"
    stored = load_ratios(against) if against else {}
    results = Results(machine.described(), short)
    falls = []
    for number, case in enumerate(chosen, 1):
        row, fell = _row(case, SHORT if short else FULL, stored)
        results.rows.append(row)
        falls += fell
        name, first, *_, ratios = table.cells(row, clock)
        typer.echo(f"nicemu bench: {number}/{len(chosen)} {name}: {first}{ratios and f', {ratios}'}", err=True)
        if json:
            results.save(json)
    for line in (*table.text(results, clock), *table.gate_text(results, clock)):
        typer.echo(line)
    for fall in falls:
        typer.echo(f"nicemu: error: {fall}", err=True)
    missed = [gate.name for gate, amount in gates.judged(results, clock) if amount is not None and not gate.met(amount)]
    if falls or (check and missed):
        raise typer.Exit(1)


def _row(case: Case, effort: Effort, stored: Ratios) -> tuple[Row, list[object]]:
    """A row, and what fell; a row that fell is measured once more, and counts if it fell again."""
    from nicemu.bench import against
    from nicemu.bench.measure import measure

    row = measure(case, effort)
    if against.falls(row, stored):
        row = measure(case, effort)
    return row, list(against.falls(row, stored))
