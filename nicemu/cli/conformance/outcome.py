"""What became of one test."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

FAILED = ("FAIL", "ERROR", "TIMEOUT")
SKIP = "SKIP"
EXPECTED = "EXPECTED"
"""It failed or skipped itself, and `expected/` says why it has to under the options of this run."""
STATUSES = ("PASS", SKIP, EXPECTED, *FAILED)


@dataclass(frozen=True)
class Outcome:
    """What became of one test; `status` is one of STATUSES."""

    test: str
    status: str
    reason: str
    seconds: float
    detail: str = ""  # a traceback, or what the process said before it died

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


def summary(outcomes: Iterable[Outcome]) -> str:
    """`N passed, N failed, N skipped`."""
    statuses = [outcome.status for outcome in outcomes]
    failed = sum(statuses.count(status) for status in FAILED)
    return f"{statuses.count('PASS')} passed, {failed} failed, {statuses.count('SKIP')} skipped"


def one_line(text: str) -> str:
    """At most 200 characters of a text, as one line."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
