"""A run of the bench: case after case."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from nicemu.bench.against import fall
from nicemu.bench.measure import FULL, SHORT, Case, Effort, Row, measure
from nicemu.bench.results import Ratios, Results

TRIES, PAUSE = 3, 20.0
"""A row that is slow only while others are busy is not slow each time: it is tried again when all others are done, and
so many seconds later."""


def run(cases: Sequence[Case], results: Results, stored: Ratios) -> Iterator[Row]:
    """Measure case after case into ``results``: each row as it is done. Those that fell below the stored ratios are
    measured again at the end, and count as they are at the last try."""
    effort = SHORT if results.short else FULL
    for case in cases:
        results.rows.append(_row(case, effort))
        yield results.rows[-1]
    for _ in range(TRIES - 1):
        fallen = [at for at, row in enumerate(results.rows) if fall(row, stored)]
        if fallen:
            time.sleep(PAUSE)
        for at in fallen:
            results.rows[at] = _row(cases[at], effort)
            yield results.rows[at]


def _row(case: Case, effort: Effort) -> Row:
    try:
        return measure(case, effort)
    except Exception as error:  # the other rows are worth having
        text = " ".join(str(error).split())
        return Row(case.name, case.topic, case.unit, case.also, case.note, failed=f"{type(error).__name__}: {text}")
