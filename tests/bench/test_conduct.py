"""A run goes from case to case; what fell below its stored ratio is tried again when the others are done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nicemu.bench import against, conduct
from nicemu.bench.measure import Batch, Case, Counts, Limit, Opener, Watch
from nicemu.bench.results import Results

STORED = {"slow": {"limit": 1.0}}


def case(name: str, opener: Opener) -> Case:
    return Case(name, "t", "MB", opener, (Limit("limit", "MB", sizes(1)),), seconds=0, runs=1)


def sizes(*each: int) -> Opener:
    """Of so many bytes, one after the other: of an opening each, the last one from then on."""
    left = list(each)

    @contextmanager
    def opener() -> Iterator[Batch]:
        size = left.pop(0) if len(left) > 1 else left[0]

        def batch(watch: Watch) -> Counts:
            return {"bytes": size}

        yield batch

    return opener


@contextmanager
def broken() -> Iterator[Batch]:
    raise RuntimeError("it broke\nin two lines")
    yield


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "PAUSE", 0)


def names(cases: list[Case], results: Results) -> list[str]:
    return [row.name for row in conduct.run(cases, results, STORED)]


def test_rows_come_in_the_order_of_the_cases() -> None:
    results = Results({})
    assert names([case("a", sizes(1)), case("b", sizes(1))], results) == ["a", "b"]
    assert [row.name for row in results.rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("bytes_", "after", "fallen"), [((2, 1), ["slow"], 0), ((2, 2, 1), ["slow"] * 2, 0), ((2,), ["slow"] * 2, 1)]
)
def test_a_row_that_fell_is_tried_again_after_all_others(
    bytes_: tuple[int, ...], after: list[str], fallen: int
) -> None:
    results = Results({})
    assert names([case("slow", sizes(*bytes_)), case("other", sizes(1))], results) == ["slow", "other", *after]
    assert len(against.falls(results.rows, STORED)) == fallen
    assert [row.name for row in results.rows] == ["slow", "other"]


def test_a_row_that_breaks_says_why_and_stops_nothing() -> None:
    results = Results({})
    assert names([case("slow", broken), case("other", sizes(1))], results) == ["slow", "other"]
    assert results.rows[0].failed == "RuntimeError: it broke in two lines"
    assert results.rows[1].readings
