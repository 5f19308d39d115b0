"""What became of a test on one device, with what it observed there, and of a job: many tests on one device."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PASS, SKIP = "PASS", "SKIP"
FLAKY = "FLAKY"
"""It failed and, run again, passed."""
LOST = "LOST"
"""The machine or process that ran it died before it had ended."""
FAILED = ("FAIL", "ERROR", "TIMEOUT")
STATUSES = (PASS, SKIP, *FAILED, FLAKY, LOST)


@dataclass(frozen=True)
class Observation:
    """A behaviour that a test saw: what it looked at, the value, the values that the specification allows.

    `why`: who is right by which clause, where rxe is known to depart from that. A `spec` of several values is
    {"one of": [...]}, as tests/verbs/accept.py writes it.
    """

    what: str
    observed: Any
    spec: Any = None
    why: str = ""

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Observation":
        """From what a test recorded; what is not needed to compare is left out. Raises KeyError, TypeError."""
        spec = given.get("spec")
        if isinstance(spec, dict) and not isinstance(spec.get("one of", []), list):
            raise TypeError(f"expected a list of allowed values, given {spec!r}")
        return cls(str(given["what"]), given["observed"], spec, str(given.get("why") or ""))

    def allows(self, value: Any) -> bool:
        """Whether the specification allows this value too."""
        return value in self.spec["one of"] if isinstance(self.spec, dict) and "one of" in self.spec else False


@dataclass(frozen=True)
class Record:
    """One test. `status` is one of STATUSES; `tries` the status of each try if it was run more than once."""

    test: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    detail: str = ""
    tries: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Record":
        """From what `to_dict` made, or a process that ran tests wrote. Raises KeyError, TypeError, ValueError."""
        statuses = tuple(given.get("tries") or ())
        status = FLAKY if given["status"] == PASS and len(statuses) > 1 else given["status"]
        if status not in STATUSES:
            raise ValueError(f"expected a status of {', '.join(STATUSES)}, given {status!r}")
        return cls(
            test=str(given["test"]),
            status=status,
            reason=str(given.get("reason") or ""),
            seconds=float(given.get("seconds") or 0),
            detail=str(given.get("detail") or ""),
            tries=statuses if len(statuses) > 1 else (),
            observations=tuple(Observation.from_dict(each) for each in given.get("observations") or ()),
        )

    @classmethod
    def of_verbs(cls, given: Mapping[str, Any]) -> "Record":
        """From a line of the file that `pytest tests/verbs --observations` writes. Raises KeyError, ValueError."""
        status = {"passed": PASS, "skipped": SKIP, "failed": FAILED[0]}[given["outcome"]]
        return cls.from_dict({**given, "test": given["id"], "status": status})

    def to_dict(self) -> dict[str, Any]:
        """As it is stored: fields that say nothing are left out."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), None)}


@dataclass
class JobResult:
    """The tests of one job: `name` is `suite/rxe` or the like, `trouble` one line if it did not end well."""

    name: str
    records: dict[str, Record] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    retries: int = 0
    trouble: str = ""

    def add(self, record: Record) -> Record:
        """A test has ended; how it stands now, which is flaky if it failed before and passes."""
        before = self.records.get(record.test)
        if before is not None and before.status in FAILED:
            tries = *(before.tries or (before.status,)), record.status
            record = replace(record, tries=tries)
            if record.status == PASS:
                record = replace(record, status=FLAKY, reason=before.reason)
        self.records[record.test] = record
        return record

    def lose(self, expected: Iterable[str]) -> list[str]:
        """Record what should have run and left no result as lost; the names."""
        lost = [test for test in expected if test not in self.records]
        for test in lost:
            self.add(Record(test, LOST, self.trouble or "left no result"))
        return lost

    def count(self, *statuses: str) -> int:
        """How many tests came out so."""
        return sum(record.status in statuses for record in self.records.values())

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "retries": self.retries,
            "trouble": self.trouble,
            "facts": self.facts,
            "tests": [record.to_dict() for record in self.records.values()],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "JobResult":
        """From what `to_dict` made. Raises KeyError, TypeError, ValueError."""
        records = [Record.from_dict(each) for each in given["tests"]]
        return cls(
            name=str(given["name"]),
            records={record.test: record for record in records},
            facts=dict(given["facts"]),
            seconds=float(given["seconds"]),
            retries=int(given["retries"]),
            trouble=str(given["trouble"]),
        )
