"""Stored runs: written as JSON, read back from that, from a text of results, or from what is shipped in `runs/`.

A line of a text is `OUTCOME [SECONDS] [tests.]MODULE.CLASS.METHOD [# REASON]`, or one of `unittest -v`:
`METHOD (tests.MODULE.CLASS[.METHOD]) ... ok`. Lines of other forms are left alone.
"""

import json
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nicemu
from nicemu.cli.conformance.outcome import FAILED, STATUSES, Outcome, summary
from nicemu.config.errors import ConfigError

SHIPPED = Path(__file__).parent / "runs"
MAX_BYTES = 64 << 20
_NAME = r"(?:tests\.)?(?P<test>\w+\.\w+\.\w+)"
_LINE = re.compile(rf"(?P<word>[A-Z]+)\s+(?:[\d.]+\s?s\s+)?{_NAME}\s*(?:#.*)?$")
_UNITTEST = re.compile(r"(?P<method>\w+) \((?:tests\.)?(?P<case>\w+\.\w+)(?:\.\w+)?\) \.\.\. (?P<word>\w+)")
_WORDS = {"ok": "PASS", "FAIL": "FAIL", "ERROR": "ERROR", "skipped": "SKIP"}


@dataclass(frozen=True)
class Stored:
    """The outcomes of a run by test. `own`: it was ours, so what got worse since is a regression."""

    title: str
    statuses: dict[str, str]
    own: bool


def write(path: Path, outcomes: Iterable[Outcome], facts: dict[str, Any]) -> None:
    """Store a run. Raises ConfigError."""
    outcomes = list(outcomes)
    document = {
        "summary": summary(outcomes),
        "versions": versions(),
        **facts,
        "tests": [outcome.to_dict() for outcome in outcomes],
    }
    write_text(path, "w", json.dumps(document, indent=1) + "\n")


def check(path: Path) -> None:
    """A file that cannot be written is said so before the run, not after it. Raises ConfigError."""
    write_text(path, "a", "")


def write_text(path: Path, mode: str, text: str) -> None:
    """Write, or with mode "a" add to, a file that a user has named. Raises ConfigError."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"expected a file that can be written, given {str(path)!r}: {error.strerror}") from None


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("numpy", "numba", "llvmlite")}
    return {"nicemu": nicemu.__version__, "python": platform.python_version(), "system": platform.platform(), **found}


def read(name: str, release: str) -> Stored:
    """A stored run: a file, or a name of a shipped one; `rxe` is the one that is nearest to `release`.

    Raises ConfigError.
    """
    path = _shipped(name, release) or Path(name)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode(errors="replace")
    except OSError as error:
        known = ", ".join(["rxe", *sorted(file.stem for file in SHIPPED.glob("*.txt"))])
        raise ConfigError(f"--against: expected a file or {known}, given {name!r}: {error.strerror}") from None
    if text.lstrip().startswith("{"):
        return Stored(path.name, _from_json(text, name), own=True)
    statuses = dict(_from_text(text))
    if not statuses:
        raise ConfigError(f"--against: expected lines with outcomes of tests, given none in {name!r}")
    return Stored(path.stem if path.parent == SHIPPED else path.name, statuses, own=False)


def _shipped(name: str, release: str) -> Path | None:
    by_release = {int(path.stem.rpartition("-")[2]): path for path in SHIPPED.glob("rxe-*.txt")}
    if name == "rxe":
        return by_release[min(by_release, key=lambda number: abs(number - int(release)))]
    return next((path for path in by_release.values() if path.stem == name), None)


def _from_json(text: str, name: str) -> dict[str, str]:
    try:
        found = {str(each["test"]): str(each["status"]) for each in json.loads(text)["tests"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"--against: expected what --json wrote, given {name!r}") from None
    wrong = sorted(set(found.values()) - set(STATUSES))
    if wrong:
        raise ConfigError(f"--against: expected a status of {', '.join(STATUSES)}, given {wrong[0]!r} in {name!r}")
    return found


def _from_text(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if (found := _LINE.match(line)) and found["word"] in STATUSES:
            yield found["test"], found["word"]
        elif (found := _UNITTEST.match(line)) and found["word"] in _WORDS:
            yield f"{found['case']}.{found['method']}", _WORDS[found["word"]]


@dataclass(frozen=True)
class Difference:
    """A test that came out differently. `now` or `then` is empty where it does not exist."""

    test: str
    now: str
    then: str

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if not self.now or not self.then:
            return "only here" if self.now else "only there"
        if self.now in FAILED:
            return "newly failing"
        return "newly passing" if self.now == "PASS" else "no longer passing" if self.then == "PASS" else "otherwise"


KINDS = ("newly failing", "no longer passing", "newly passing", "otherwise", "only here", "only there")
REGRESSIONS = KINDS[:2]


def compare(now: dict[str, str], then: dict[str, str], pattern: str = "") -> list[Difference]:
    """What differs, by test, among those that `pattern` finds. Different ways to fail are the same here."""
    wanted = re.compile(pattern)
    tests = sorted(test for test in now.keys() | then.keys() if wanted.search(test))
    differences = (Difference(test, now.get(test, ""), then.get(test, "")) for test in tests)
    return [each for each in differences if _class(each.now) != _class(each.then)]


def _class(status: str) -> str:
    return "FAIL" if status in FAILED else status
