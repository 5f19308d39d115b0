"""Rows and gates as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nicemu.bench.gates import GATES, judged
from nicemu.bench.measure import Row
from nicemu.bench.results import Results
from nicemu.bench.units import UNITS, Clock, median, number, ratio, shown

MISSING = "-"


def cells(row: Row, clock: Clock) -> list[str]:
    """Name, what it is about, the rest, ratios to limits."""
    if not row.readings:
        return [row.name, MISSING, (row.failed and f"FAILED: {row.failed}") or f"not measured: {row.absent}", ""]
    first, *rest = (shown(median(row.readings, unit, clock), unit) for unit in (row.unit, *row.also))
    return [row.name, first, ", ".join(rest), ", ".join(ratios(row))]


def line(row: Row, clock: Clock) -> str:
    """A row in short, for progress."""
    name, first, others, shares = cells(row, clock)
    return f"{name}: {', '.join(filter(None, (first, shares))) if row.readings else others}"


def ratios(row: Row) -> Iterator[str]:
    """``0.41 of memcpy``."""
    for limit in row.limits:
        if not limit.readings:
            yield f"{limit.name}: {limit.absent}"
        elif UNITS[limit.unit].kind == "rate":
            yield f"{number(ratio(row, limit))} of {limit.name}"
        else:
            yield f"{number(1 / ratio(row, limit))} x {limit.name}"


def text(results: Results, clock: Clock) -> Iterator[str]:
    """The table for a terminal, by topic."""
    topics = dict.fromkeys(row.topic for row in results.rows)
    lines = {topic: [cells(row, clock) for row in results.rows if row.topic == topic] for topic in topics}
    widths = [max((len(each[at]) for group in lines.values() for each in group), default=0) for at in range(3)]
    for topic, group in lines.items():
        yield topic
        yield from (f"  {_padded(each, widths)}" for each in group)
        yield ""


def gate_text(results: Results, clock: Clock) -> Iterator[str]:
    """A line for each gate that was measured, and how many were not."""
    lines = [line for line in gate_cells(results, clock) if line[2] != MISSING]
    widths = [max((len(line[at]) for line in lines), default=0) for at in range(3)]
    yield f"gates, {len(lines)} of {len(GATES)} measured"
    for line in lines:
        yield "  " + _padded(line, widths)


def gate_cells(results: Results, clock: Clock) -> Iterator[list[str]]:
    """Name, required, measured, verdict."""
    for gate, amount in judged(results, clock):
        measured = MISSING if amount is None else number(amount)
        verdict = "not measured" if amount is None else "met" if gate.met(amount) else "NOT MET"
        yield [gate.name, gate.required, measured, verdict]


def _padded(line: Iterable[str], widths: list[int]) -> str:
    *padded, last = line
    return "  ".join([f"{cell:<{width}}" for cell, width in zip(padded, widths, strict=True)] + [last]).rstrip()
