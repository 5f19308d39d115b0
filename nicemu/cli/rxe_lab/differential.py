"""The whole comparison: results of the jobs, rows, what is left with the profile `rxe`, and what is wrong with it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nicemu.cli.rxe_lab import compare
from nicemu.cli.rxe_lab.compare import Difference, Row
from nicemu.cli.rxe_lab.explanations import Explanation
from nicemu.cli.rxe_lab.records import FAILED, LOST, PASS, JobResult

HERE, THERE, MODEL = "nicemu", "rxe", "nicemu as rxe"
SUITE, VERBS = "suite", "verbs"
GROUPS = (VERBS, SUITE)
TITLES = {VERBS: "tests/verbs", SUITE: "rdma-core's suite"}
FEWEST_PASSES = 109
"""Of rdma-core's suite, release 56, on rxe of Linux 7.3: what our first measurement had."""


def job_name(group: str, side: str) -> str:
    """`suite/rxe` or the like."""
    return f"{group}/{side}"


@dataclass
class Differential:
    """`remaining`: the rows of nicemu with the profile `rxe` against rxe, None if that was not run.

    `whole`: all tests were to be run, so that what is missing means something.
    """

    jobs: dict[str, JobResult]
    rows: list[Row]
    remaining: list[Row] | None
    stale: list[Explanation] = field(default_factory=list)
    modelled_now: list[Explanation] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=dict)
    whole: bool = True

    def of(self, group: str) -> list[Row]:
        """The rows of one group."""
        return [row for row in self.rows if row.group == group]

    def left(self) -> "list[Pair]":
        """The differences that the profile `rxe` leaves."""
        return [(row, each) for row in self.remaining or [] for each in row.differences]

    def is_left(self, row: Row, difference: Difference) -> bool:
        """Whether the profile `rxe` leaves this difference."""
        return any(
            (other.group, other.test, each.what) == (row.group, row.test, difference.what)
            for other, each in self.left()
        )


def build(jobs: Mapping[str, JobResult], explanations: Iterable[Explanation], whole: bool) -> Differential:
    """Compare what the jobs found."""
    known = list(explanations)
    rows = compare.explain(_rows(jobs, HERE), [each for each in known if not each.left])
    with_model = any(name.endswith(f"/{MODEL}") for name in jobs)
    remaining = compare.explain(_rows(jobs, MODEL), known) if with_model else None
    found = Differential(dict(jobs), rows, remaining, whole=whole)
    if whole:
        expected = [each for each in known if remaining is not None or not each.left]
        found.stale = compare.stale([*rows, *(remaining or [])], expected)
        found.modelled_now = _modelled_now(remaining, known, found.stale) if remaining is not None else []
    return found


def _modelled_now(remaining: list[Row], known: list[Explanation], stale: list[Explanation]) -> list[Explanation]:
    """What is listed as not modelled, is a difference, and the profile `rxe` leaves none of it."""
    left = {each.explanation.name for row in remaining for each in row.differences if each.explanation is not None}
    listed = (each for each in known if not each.modelled and not each.sometimes and each not in stale)
    return [each for each in listed if each.name not in left]


def _rows(jobs: Mapping[str, JobResult], side: str) -> list[Row]:
    rows = []
    for group in GROUPS:
        here, there = jobs.get(job_name(group, side)), jobs.get(job_name(group, THERE))
        if here is not None and there is not None:
            rows += compare.compare(group, here.records, there.records)
    return rows


Pair = tuple[Row, Difference]


def together(rows: Iterable[Row]) -> list[list[Pair]]:
    """The differences in groups: of one explanation of the list, or of the same values that tests explain alike."""
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for row in rows:
        for each in row.differences:
            if each.explanation is not None and not each.why:
                key: tuple[str, ...] = (each.explanation.name,)
            else:
                values = compare.as_text(each.here), compare.as_text(each.there)
                key = (row.group, each.what, *values, each.why, each.reason)
            groups.setdefault(key, []).append((row, each))
    return list(groups.values())


def names(tests: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    every = list(tests)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def problems(found: Differential) -> list[str]:
    """What makes the comparison fail, a line each."""
    lines = []
    for name, job in found.jobs.items():
        if job.trouble:
            lines.append(f"{name}: {job.trouble}")
        if job.count(LOST):
            lines.append(f"{name}: {job.count(LOST)} tests lost")
        if name.endswith(f"/{HERE}") and job.count(*FAILED):
            lines.append(f"{name}: {job.count(*FAILED)} failed")
    lines += _said("unexplained", HERE, found.rows, lambda each: not each.explained)
    suite = found.jobs.get(job_name(SUITE, THERE))
    if found.whole and suite is not None and suite.count(PASS) < FEWEST_PASSES:
        lines.append(f"{suite.name}: expected at least {FEWEST_PASSES} passes, given {suite.count(PASS)}")
    lines += _said("not modelled, and not listed so", MODEL, found.remaining or [], lambda each: not is_listed(each))
    return lines


def _said(what: str, here: str, rows: Iterable[Row], wrong: Callable[[Difference], bool]) -> Iterator[str]:
    chosen = [replace(row, differences=tuple(each for each in row.differences if wrong(each))) for row in rows]
    for pairs in together(chosen):
        tests = names(f"{row.group}/{row.test}" for row, _ in pairs)
        yield f"{what}: {len(pairs)} of {describe(pairs[0][1], here)}: {tests}"


def is_listed(difference: Difference) -> bool:
    """Whether the list says that the profile `rxe` does not model this."""
    return difference.explanation is not None and not difference.explanation.modelled


def describe(difference: Difference, here: str = HERE) -> str:
    """Both values in one line."""
    what = "" if difference.what == compare.OUTCOME else f"{difference.what}: "
    both = f"{here} {compare.as_text(difference.here)}, rxe {compare.as_text(difference.there)}"
    return f"{what}{both}" + (f" ({difference.reason})" if difference.reason else "")
