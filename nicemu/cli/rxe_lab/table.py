"""What `nicemu lab rxe test` prints at the end: how the tests came out, each difference, and the verdict."""

from collections.abc import Iterator

from nicemu.cli.rxe_lab import compare
from nicemu.cli.rxe_lab.compare import VERDICTS, Difference, Row
from nicemu.cli.rxe_lab.differential import (
    GROUPS,
    HERE,
    MODEL,
    THERE,
    TITLES,
    Differential,
    describe,
    is_listed,
    job_name,
    names,
    problems,
    together,
)
from nicemu.cli.rxe_lab.records import FAILED, FLAKY, LOST, PASS, SKIP, JobResult

OUTCOMES = (("passed", (PASS,)), ("failed", FAILED), ("skipped", (SKIP,)), ("flaky", (FLAKY,)), ("lost", (LOST,)))


def lines(found: Differential) -> Iterator[str]:
    """The whole text."""
    for group in GROUPS:
        if found.of(group):
            yield from _group(found, group)
    if found.remaining is not None:
        yield from _remaining(found)
    for each in found.stale:
        yield f"stale: the explanation {each.name} fits no difference any more"
    for each in found.modelled_now:
        yield f"stale: {each.name} is listed as not modelled, and the profile rxe leaves no difference of it"
    yield from _end(found)


def totals(found: Differential, group: str) -> list[tuple[str, list[int]]]:
    """How many tests came out how, on each side that was run; outcomes that nobody had are left out."""
    jobs = [job for _, job in sides(found, group)]
    counted = [(name, [job.count(*statuses) for job in jobs]) for name, statuses in OUTCOMES]
    return [(name, counts) for name, counts in counted if any(counts)]


def sides(found: Differential, group: str) -> list[tuple[str, JobResult]]:
    """The sides that were run, in order."""
    named = [(side, found.jobs.get(job_name(group, side))) for side in (HERE, THERE, MODEL)]
    return [(side, job) for side, job in named if job is not None]


def by_verdict(rows: list[Row]) -> str:
    """`103 same, 1 differs, ...`."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def _group(found: Differential, group: str) -> Iterator[str]:
    rows = found.of(group)
    yield ""
    yield f"{TITLES[group]}: {len(rows)} tests, {by_verdict(rows)}"
    yield " " * 12 + "".join(f"{side:>15}" for side, _ in sides(found, group))
    for name, counts in totals(found, group):
        yield f"  {name:10}" + "".join(f"{count:15}" for count in counts)
    for verdict in VERDICTS[1:]:
        chosen = [row for row in rows if row.verdict == verdict]
        if chosen:
            yield f"{verdict} ({len(chosen)})"
            yield from _rows(found, chosen)


def _rows(found: Differential, rows: list[Row]) -> Iterator[str]:
    for pairs in together(rows):
        first = pairs[0][1]
        if first.explanation is None or first.why:
            yield f"  {len(pairs)} of {describe(first)}"
            yield f"      {first.why.removesuffix('.') or 'NOT EXPLAINED'}.{_modelled(found, pairs)}"
        else:
            yield f"  {first.explanation.name}: {len(pairs)} of {describe(first)}"
            yield f"      {first.explanation.text} Right: {first.explanation.right}.{_modelled(found, pairs)}"
        yield f"      {names(row.test for row, _ in pairs)}"
    for statuses in sorted({(row.here, row.there) for row in rows if not row.differences}):
        yield "  nicemu {}, rxe {}".format(*(status or "-" for status in statuses))
        yield f"      {names(row.test for row in rows if (row.here, row.there) == statuses)}"


def _modelled(found: Differential, pairs: list[tuple[Row, Difference]]) -> str:
    if found.remaining is None:
        return ""
    left = sum(found.is_left(row, each) for row, each in pairs)
    return " Profile rxe: " + ("as rxe." if not left else "not modelled." if left == len(pairs) else f"{left} left.")


def _remaining(found: Differential) -> Iterator[str]:
    before = sum(len(row.differences) for row in found.rows)
    left = found.left()
    listed = sum(is_listed(each) for _, each in left)
    yield ""
    yield f"with the profile rxe: {len(left)} of {before} differences are left, {listed} of them listed as not modelled"
    for pairs in together(found.remaining or []):
        first = pairs[0][1]
        name = f"{first.explanation.name}: " if first.explanation is not None else ""
        mark = "" if is_listed(first) else "NOT LISTED "
        yield f"  {mark}{name}{len(pairs)} of {describe(first, MODEL)}"
        yield f"      {names(f'{row.group}/{row.test}' for row, _ in pairs)}"


def _end(found: Differential) -> Iterator[str]:
    wrong = problems(found)
    yield ""
    if wrong:
        yield f"{len(wrong)} problems:"
        yield from (f"  {line}" for line in wrong)
    differences = [each for row in found.rows for each in row.differences]
    unexplained = sum(not each.explained for each in differences)
    count = sum(row.verdict == compare.SAME for row in found.rows)
    yield f"{len(found.rows)} tests, {count} same; {len(differences)} differences, {unexplained} unexplained"
