"""A run of the bench: case after case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nicemu.bench.against import Fall, fall
from nicemu.bench.measure import FULL, SHORT, Case, Effort, Row, measure
from nicemu.bench.results import Ratios, Results

TRIES = 3
"""A row that is slow only while others are busy is not slow each time."""


def run(cases: Iterable[Case], results: Results, stored: Ratios) -> Iterator[tuple[Row, Fall | None]]:
    """Measure case after case into ``results``: each row as it is done, and how it fell below the stored ratios."""
    for case in cases:
        row = _row(case, SHORT if results.short else FULL, stored)
        results.rows.append(row)
        yield row, fall(row, stored)


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
