"""How two devices answered the same tests: rows with a verdict, and each difference on its own."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nicemu.cli.rxe_lab.explanations import Explanation
from nicemu.cli.rxe_lab.records import FAILED, FLAKY, LOST, SKIP, Observation, Record

SAME, DIFFERS, ONLY_HERE, ONLY_THERE = "same", "differs", "only here", "only there"
NOT_RUN = "not run"
"""One side has no result, since its run did not have the test."""
IS_LOST = "lost"
VERDICTS = (SAME, DIFFERS, ONLY_HERE, ONLY_THERE, NOT_RUN, IS_LOST)
ABSENT = "not observed"
OUTCOME = "outcome"
LEFT_OPEN = "Both are right: the test accepts either from any device."


@dataclass(frozen=True)
class Difference:
    """One behaviour that differs. `what` is OUTCOME or the name of an observation; `reason`: what the test said of it.

    `why` is the test's own explanation: what it accepts and who is right.
    """

    what: str
    here: Any
    there: Any
    reason: str = ""
    why: str = ""
    explanation: Explanation | None = None

    @property
    def explained(self) -> bool:
        """By the test itself or by the list of differences."""
        return bool(self.why) or self.explanation is not None


@dataclass(frozen=True)
class Row:
    """One test on both sides; a status is empty where there is no result. `group` is `suite` or `verbs`."""

    group: str
    test: str
    here: str
    there: str
    verdict: str
    differences: tuple[Difference, ...] = ()

    @property
    def unexplained(self) -> list[Difference]:
        """What nobody explains; tests that were not run or lost have nothing to explain."""
        return [each for each in self.differences if not each.explained]


def compare(group: str, here: Mapping[str, Record], there: Mapping[str, Record]) -> list[Row]:
    """A row for each test that either side has, in the order of `here`."""
    tests = [*here, *(test for test in there if test not in here)]
    return [_row(group, test, here.get(test), there.get(test)) for test in tests]


def _row(group: str, test: str, here: Record | None, there: Record | None) -> Row:
    verdict, differences = _judge(here, there)
    return Row(group, test, here.status if here else "", there.status if there else "", verdict, tuple(differences))


def _judge(here: Record | None, there: Record | None) -> tuple[str, list[Difference]]:
    if here is None or there is None:
        return NOT_RUN, []
    if LOST in (here.status, there.status):
        return IS_LOST, []
    if here.status == there.status == SKIP:
        return SAME, []
    differences = []
    if _class(here) != _class(there):
        differences.append(Difference(OUTCOME, here.status, there.status, _reason(here, there)))
    if SKIP in (here.status, there.status):
        return ONLY_HERE if there.status == SKIP else ONLY_THERE, differences
    differences += observations(here, there)
    return DIFFERS if differences else SAME, differences


def _class(record: Record) -> str:
    """Different ways to fail are the same here."""
    return FAILED[0] if record.status in FAILED else record.status


def _reason(here: Record, there: Record) -> str:
    """What the side said that did not pass."""
    said = [each.reason for each in (there, here) if each.status in (*FAILED, FLAKY, SKIP) and each.reason]
    return said[0] if said else ""


def observations(here: Record, there: Record) -> Iterator[Difference]:
    """What both observed with different values.

    What only one of them observed counts if both ended alike and nothing differed: otherwise it follows from that.
    """
    ours, theirs = _by_name(here.observations), _by_name(there.observations)
    alike = _class(here) == _class(there) and here.status not in FAILED
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        mine, other = ours.get(name), theirs.get(name)
        if mine is None or other is None:
            if alike:
                yield Difference(name, _value(mine), _value(other), why=_why(mine, other))
        elif as_text(mine.observed) != as_text(other.observed):
            alike = False
            yield Difference(name, mine.observed, other.observed, why=_why(mine, other))


def _by_name(given: Iterable[Observation]) -> dict[str, Observation]:
    """By name; the second of the same name is `NAME (2)`."""
    seen: Counter[str] = Counter()
    found = {}
    for each in given:
        seen[each.what] += 1
        found[each.what if seen[each.what] == 1 else f"{each.what} ({seen[each.what]})"] = each
    return found


def _value(observation: Observation | None) -> Any:
    return ABSENT if observation is None else observation.observed


def as_text(value: Any) -> str:
    """A value in one form, whatever process it came from."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _why(mine: Observation | None, other: Observation | None) -> str:
    """The test's own explanation: what it says of rxe, or that the specification leaves it open."""
    said = next((each.why for each in (other, mine) if each is not None and each.why), "")
    if (
        not said
        and mine is not None
        and other is not None
        and mine.allows(mine.observed)
        and mine.allows(other.observed)
    ):
        return LEFT_OPEN
    return said


def explain(rows: Iterable[Row], explanations: Iterable[Explanation]) -> list[Row]:
    """The rows with an explanation at each difference that has one: the first of the list that fits."""
    known = list(explanations)
    return [replace(row, differences=tuple(_explained(row, each, known) for each in row.differences)) for row in rows]


def _explained(row: Row, difference: Difference, known: list[Explanation]) -> Difference:
    name = f"{row.group}/{row.test}"
    found = next((each for each in known if fits(each, name, difference)), None)
    return replace(difference, explanation=found)


def fits(explanation: Explanation, name: str, difference: Difference) -> bool:
    """Whether an explanation is about this difference of the test `suite/ID` or `verbs/ID`."""
    if not explanation.tests.search(name) or not explanation.what.search(difference.what):
        return False
    if explanation.reason is not None and not explanation.reason.search(difference.reason):
        return False
    wanted = (explanation.here, difference.here), (explanation.there, difference.there)
    return all(not values or value in values for values, value in wanted)


def stale(rows: Iterable[Row], explanations: Iterable[Explanation]) -> list[Explanation]:
    """Explanations that were not needed, those apart that say that the difference comes and goes."""
    used = {each.explanation.name for row in rows for each in row.differences if each.explanation is not None}
    return [each for each in explanations if each.name not in used and not each.sometimes]
