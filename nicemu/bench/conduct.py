"""A run of the bench: case after case, with a line for each as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nicemu.bench import profile, table
from nicemu.bench.against import Fall, fall
from nicemu.bench.measure import FULL, SHORT, Absent, Case, Effort, Row, measure
from nicemu.bench.results import Ratios, Results
from nicemu.bench.units import Clock

Say = Callable[[str], None]
TRIES = 3
"""A row that is slow only while others are busy is not slow each time."""


def run(cases: Sequence[Case], results: Results, stored: Ratios, clock: Clock, say: Say) -> Iterator[Fall]:
    """Measure case after case into ``results``; what fell below the stored ratios."""
    for number, case in enumerate(cases, 1):
        row = _row(case, SHORT if results.short else FULL, stored)
        results.rows.append(row)
        name, first, others, ratios = table.cells(row, clock)
        say(f"{number}/{len(cases)} {name}: {f'{first}, {ratios}'.strip(', ') if row.readings else others}")
        if found := fall(row, stored):
            yield found


def _row(case: Case, effort: Effort, stored: Ratios) -> Row:
    """A row; one that fell is measured again, and counts as it is at the last try."""
    try:
        row = measure(case, effort)
        for _ in range(TRIES - 1):
            row = measure(case, effort) if fall(row, stored) else row
        return row
    except Exception as error:  # the other rows are worth having
        text = " ".join(str(error).split())
        return Row(case.name, case.topic, case.unit, case.also, case.note, failed=f"{type(error).__name__}: {text}")


def take_profile(results: Results, say: Say) -> None:
    """Where the time goes, if perf is there."""
    try:
        results.profile = profile.sampled()
    except Absent as error:
        say(f"no profile: {error}")
