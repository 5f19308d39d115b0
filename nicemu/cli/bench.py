"""`nicemu bench`: what the emulator costs, beside limits measured in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.bench.measure import Case
    from nicemu.bench.results import Results
    from nicemu.bench.units import Clock


def bench(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every reading into FILE.")] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fail if a ratio fell by over 25 % from FILE, of --json.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only rows with WORD in name or topic; again for others.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="A few rows, about a minute: what CI runs.")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="ns-3, SimPy, htsim and soft RoCE as well, where they are installed.")
    ] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Rates by CPU time, not by wall-clock time: for a busy machine.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail if a gate is not met.")] = False,
    list_rows: Annotated[bool, typer.Option("--list", help="Name the rows and stop.")] = False,
    docs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write docs/performance.md from FILE, of --json; measure nothing."),
    ] = None,
) -> None:
    """Measure what the emulator costs in wall-clock time.

    Each row is the median of several runs and stands beside limits measured in turn with it: a bare event loop, memcpy,
    an empty Python call. The ratio to those says more than the rate: it is the same on a slow machine or a busy one. At
    the end each promise of docs/performance.md is a gate: required, measured, met or not. All of it takes some minutes.

    Examples: nicemu bench --only "WRITE 64 KiB" measures a few rows. nicemu bench --json before.json, then after a
    change nicemu bench --against before.json.

    Status 1: a ratio fell, a row failed, or with --check a gate is not met.
    """
    from nicemu.bench import rows

    clock: Clock = "cpu" if cpu else "wall"
    if docs:
        _write_docs(docs, clock)
        return
    chosen = [case for case in rows.cases(peers) if _is_wanted(case, only or [], short)]
    if not chosen:
        given = ", ".join(only or [])
        raise ConfigError(f"--only: expected a word of a row's name or topic (nicemu bench --list), given {given}")
    if list_rows:
        for case in chosen:
            typer.echo(f"{case.topic:<8} {case.name}")
        return
    whole = not (only or short)
    raise typer.Exit(_measure(chosen, json, against, clock, whole=whole, short=short, check=check))


def _is_wanted(case: Case, words: list[str], short: bool) -> bool:
    text = f"{case.topic} {case.name}".lower()
    return (not words or any(word.lower() in text for word in words)) and (case.short or not short)


def _measure(
    chosen: list[Case], json: Path | None, against: Path | None, clock: Clock, *, whole: bool, short: bool, check: bool
) -> int:
    from nicemu.bench import conduct, machine, table
    from nicemu.bench.against import falls
    from nicemu.bench.results import Results, load_ratios

    stored = load_ratios(against) if against else {}
    results = Results(machine.described(), short)
    if json:
        results.save(json)  # before minutes are spent
    for number, row in enumerate(conduct.run(chosen, results, stored), 1):
        place = f"{number}/{len(chosen)}" if number <= len(chosen) else "again, its ratio fell:"
        _say(f"{place} {table.line(row, clock)}")
        if json:
            results.save(json)
    if whole:
        _take_profile(results)
        if json:
            results.save(json)
    for line in (*table.text(results, clock), *table.gate_text(results, clock)):
        typer.echo(line)
    failed = [f"{row.name}: {row.failed}" for row in results.rows if row.failed]
    fallen = falls(results.rows, stored)
    for text in (*map(str, fallen), *failed):
        typer.echo(f"nicemu: error: {text}", err=True)
    return int(bool(fallen or failed or (check and _misses(results, clock))))


def _take_profile(results: Results) -> None:
    """Where the time goes, if perf is there."""
    from nicemu.bench import profile
    from nicemu.bench.measure import Absent

    try:
        results.profile = profile.sampled()
    except Absent as error:
        _say(f"no profile: {error}")


def _misses(results: Results, clock: Clock) -> bool:
    from nicemu.bench.gates import judged

    return any(amount is not None and not gate.met(amount) for gate, amount in judged(results, clock))


def _write_docs(file: Path, clock: Clock) -> None:
    from nicemu.bench import document
    from nicemu.bench.results import load

    typer.echo(f"{document.write(load(file), clock, Path('docs'))} written", err=True)


def _say(text: str) -> None:
    typer.echo(f"nicemu bench: {text}", err=True)
