"""The list of known differences between nicemu and rxe, `differences.yaml`, checked when it is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicemu.config.errors import ConfigError

SHIPPED = Path(__file__).with_name("differences.yaml")
RIGHT = ("nicemu", "rxe", "both", "neither", "lab")
"""Who does as the specification says; `lab`: it is about the guest or the emulation around the device, not about it."""
REQUIRED = ("name", "tests", "explanation", "right", "source", "modelled")
OPTIONAL = ("what", "reason", "here", "there", "sometimes", "left")


@dataclass(frozen=True)
class Explanation:
    """Why some tests differ.

    It is about the differences whose test, `suite/ID` or `verbs/ID`, `tests` finds, whose name `what` finds (`outcome`
    or an observation), whose reason `reason` finds, and whose values are among `here` and `there`, if those are given.
    `modelled`: the profile `rxe` makes nicemu behave as rxe in this. `sometimes`: the difference comes and goes.
    `left`: it says why the profile leaves a difference, and explains none between nicemu and rxe: tests do that.
    """

    name: str
    tests: re.Pattern[str]
    text: str
    right: str
    source: str
    modelled: bool
    what: re.Pattern[str]
    reason: re.Pattern[str] | None = None
    here: tuple[Any, ...] = ()
    there: tuple[Any, ...] = ()
    sometimes: bool = False
    left: bool = False


def read(path: Path = SHIPPED) -> list[Explanation]:
    """The list in a file. Raises ConfigError with the entry and what was expected."""
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name}: {' '.join(str(error).split())}") from None
    if not isinstance(given, list):
        raise ConfigError(f"{path.name}: expected a list of differences")
    found = [_entry(each, f"{path.name}: entry {number}") for number, each in enumerate(given, 1)]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path.name}: expected each name once, given {name!r} again")
    return found


def _entry(given: Any, where: str) -> Explanation:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected fields, given {given!r}")
    where = f"{where} ({given.get('name', 'without a name')})"
    missing = [name for name in REQUIRED if given.get(name) in (None, "")]
    unknown = [name for name in given if name not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown:
        raise ConfigError(f"{where}: expected {', '.join(REQUIRED)}, given " +
                          (f"no {missing[0]}" if missing else f"an unknown {unknown[0]!r}"))  # fmt: skip
    if given["right"] not in RIGHT:
        raise ConfigError(f"{where}: right: expected one of {', '.join(RIGHT)}, given {given['right']!r}")
    for name in ("modelled", "sometimes", "left"):
        if not isinstance(given.get(name, False), bool):
            raise ConfigError(f"{where}: {name}: expected true or false, given {given[name]!r}")
    return Explanation(
        name=str(given["name"]),
        tests=_pattern(given["tests"], f"{where}: tests"),
        text=" ".join(str(given["explanation"]).split()),
        right=given["right"],
        source=" ".join(str(given["source"]).split()),
        modelled=given["modelled"],
        what=_pattern(given.get("what", "^outcome$"), f"{where}: what"),
        reason=_pattern(given["reason"], f"{where}: reason") if "reason" in given else None,
        here=_values(given.get("here")),
        there=_values(given.get("there")),
        sometimes=given.get("sometimes", False),
        left=given.get("left", False),
    )


def _pattern(text: Any, where: str) -> re.Pattern[str]:
    try:
        return re.compile(str(text))
    except re.error as error:
        raise ConfigError(f"{where}: expected a regular expression, given {text!r}: {error}") from None


def _values(given: Any) -> tuple[Any, ...]:
    return () if given is None else tuple(given) if isinstance(given, list) else (given,)
