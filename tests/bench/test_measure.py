"""Readings are taken in turn; what cannot be had is said and stops nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nicemu.bench.measure import Absent, Batch, Case, Counts, Effort, Limit, Opener, Watch, measure

TWICE = Effort(runs=2, seconds=0)


def noting(order: list[str], name: str) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        def batch(watch: Watch) -> Counts:
            with watch:
                order.append(name)
            return {"calls": 1}

        order.append(f"open {name}")
        yield batch
        order.append(f"close {name}")

    return opener


def absent(text: str) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        raise Absent(text)
        yield

    return opener


def test_a_case_and_its_limits_are_read_in_turn() -> None:
    order: list[str] = []
    case = Case("a", "t", "calls/s", noting(order, "a"), (Limit("b", "calls/s", noting(order, "b")),))
    row = measure(case, TWICE)
    assert order == ["open a", "open b", "a", "b", "a", "b", "close b", "close a"]
    assert len(row.readings) == len(row.limits[0].readings) == 2


def test_the_first_batch_of_a_timed_run_does_not_count() -> None:
    order: list[str] = []
    row = measure(Case("a", "t", "calls/s", noting(order, "a")), Effort(runs=1, seconds=1e-9))
    assert order.count("a") == 2
    assert row.readings[0].done == {"calls": 1}


def test_a_limit_that_cannot_be_had_leaves_the_row() -> None:
    row = measure(Case("a", "t", "calls/s", noting([], "a"), (Limit("b", "calls/s", absent("no compiler")),)), TWICE)
    assert len(row.readings) == 2
    assert (row.limits[0].readings, row.limits[0].absent) == ([], "no compiler")


def test_a_row_that_cannot_be_had_says_why() -> None:
    row = measure(Case("a", "t", "calls/s", absent("no such device")), TWICE)
    assert (row.readings, row.absent) == ([], "no such device")


def test_a_run_goes_on_for_the_seconds_asked_for() -> None:
    row = measure(Case("a", "t", "calls/s", noting([], "a"), seconds=0.01), TWICE)
    assert all(reading.wall >= 0.01 and reading.done["calls"] > 1 for reading in row.readings)


def test_a_watch_adds_up() -> None:
    watch = Watch()
    with watch:
        sum(range(10_000))
    first = watch.wall
    with watch:
        sum(range(10_000))
    assert watch.wall > first > 0
    assert watch.cpu == pytest.approx(watch.wall, rel=1, abs=1)
