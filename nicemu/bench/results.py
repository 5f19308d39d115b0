"""Results of one run: machine and rows, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nicemu.bench.measure import Against, Reading, Row
from nicemu.bench.units import ratio
from nicemu.config.errors import ConfigError

FORMAT = 1
Ratios = dict[str, dict[str, float]]
"""What each row reached of each of its limits, by the names of both."""


@dataclass
class Results:
    """``machine``: what it is, in words. ``short``: measured by the short form."""

    machine: dict[str, str]
    short: bool = False
    rows: list[Row] = field(default_factory=list)
    profile: dict[str, float] = field(default_factory=dict)
    """Shares of samples by frames (``profile.Shares``)."""

    def row(self, name: str) -> Row | None:
        """The row of that name, if it was measured."""
        return next((row for row in self.rows if row.name == name and row.readings), None)

    @property
    def ratios(self) -> Ratios:
        """Of all rows that have limits."""
        found = {row.name: {limit.name: round(ratio(row, limit), 4) for limit in row.limits if limit.readings}
                 for row in self.rows if row.readings}  # fmt: skip
        return {name: of for name, of in found.items() if of}

    def save(self, file: Path) -> None:
        """Write JSON. ConfigError: it cannot be written."""
        text = json.dumps({"format": FORMAT, "ratios": self.ratios} | dataclasses.asdict(self), indent=1)
        try:
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"--json: expected a file that can be written, given {str(file)!r}: {error.strerror}"
            ) from None


def load(file: Path) -> Results:
    """What ``save`` wrote. ConfigError: it is something else."""
    content = _content(file)
    try:
        return Results(
            content["machine"], content["short"], [_row(each) for each in content["rows"]], content["profile"]
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: expected results of nicemu bench --json; its rows are not complete ({error})"
        ) from None


def load_ratios(file: Path) -> Ratios:
    """The ratios of a results file, or of one that has nothing else."""
    found = _content(file).get("ratios")
    if not isinstance(found, dict) or not all(isinstance(of, dict) for of in found.values()):
        raise ConfigError(f"{file}: expected ratios, as nicemu bench --json writes them")
    return found


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: expected a file that can be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: expected results of nicemu bench --json: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"{file}: expected results of nicemu bench --json, format {FORMAT}")
    return content


def _row(content: dict[str, Any]) -> Row:
    limits = [Against(**each | {"readings": _readings(each)}) for each in content["limits"]]
    return Row(**content | {"also": tuple(content["also"]), "readings": _readings(content), "limits": limits})


def _readings(content: dict[str, Any]) -> list[Reading]:
    return [Reading(*each) for each in content["readings"]]
