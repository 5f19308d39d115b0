"""The part of docs/rxe.md that the command writes: versions, totals, and every difference with its explanation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicemu.cli.rxe_lab import compare
from nicemu.cli.rxe_lab.compare import Difference, Row
from nicemu.cli.rxe_lab.differential import (
    GROUPS,
    MODEL,
    TITLES,
    Differential,
    is_listed,
    problems,
)
from nicemu.cli.rxe_lab.table import by_explanation, by_verdict, sides, totals
from nicemu.config.errors import ConfigError

BEGIN, END = "<!-- written by `nicemu lab rxe test --docs`: begin -->", "<!-- end of what the command writes -->"


def _path(checkout: Path) -> Path:
    return checkout / "docs" / "rxe.md"


def check(checkout: Path) -> None:
    """Raises ConfigError if the page cannot be written."""
    _split(checkout)


def write(checkout: Path, found: Differential) -> None:
    """Write the tables in their place. Raises ConfigError."""
    before, after = _split(checkout)
    _path(checkout).write_text(f"{before}{BEGIN}\n\n{text(found)}\n{END}{after}", encoding="utf-8")


def _split(checkout: Path) -> tuple[str, str]:
    """What a person wrote, before and after."""
    path = _path(checkout)
    try:
        with path.open("r+", encoding="utf-8") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"--docs: expected {str(path)!r} in a checkout of nicemu: {error.strerror}") from None
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"--docs: expected the lines {BEGIN!r} and {END!r} in {str(path)!r}")
    return before, after


def text(found: Differential) -> str:
    """The tables."""
    parts = [_versions(found.versions), *(_group(found, group) for group in GROUPS if found.of(group))]
    if found.remaining is not None:
        parts.append(_left(found))
    wrong = problems(found)
    if wrong:
        parts.append("### Problems of this run\n\n" + "\n".join(f"- {_cell(line)}" for line in wrong) + "\n")
    return "\n".join(parts)


def _versions(versions: dict[str, Any]) -> str:
    guest, host = versions.get("guest", {}), versions.get("host", {})
    rows = [("nicemu", versions.get("nicemu", "")), *((f"guest: {name}", value) for name, value in guest.items())]
    rows += [(f"host: {name}", value) for name, value in host.items()]
    return "### Versions\n\n" + _table(("what", "version"), rows)


def _group(found: Differential, group: str) -> str:
    rows = found.of(group)
    named = sides(found, group)
    seconds = ("seconds", *(f"{job.seconds:.0f}" for _, job in named))
    counts = [(name, *counts) for name, counts in totals(found, group)]
    head = f"### {TITLES[group]}\n\n{len(rows)} tests: {by_verdict(rows)}.\n\n"
    return head + _table(("", *(side for side, _ in named)), [*counts, seconds]) + "\n" + _differences(found, rows)


def _differences(found: Differential, rows: list[Row]) -> str:
    """What the list explains goes together, what tests explain goes by test."""
    groups = by_explanation(rows)
    listed = [pairs for pairs in groups.values() if pairs[0][1].explanation is not None and not pairs[0][1].why]
    single = [pair for pairs in groups.values() if pairs not in listed for pair in pairs]
    text = ""
    if listed:
        columns: tuple[str, ...] = ("difference", "nicemu", "rxe", "right", "why", "source", "profile rxe", "tests")
        text += _table(columns, [_listed(found, pairs) for pairs in listed])
    if single:
        columns = ("test", "observed", "nicemu", "rxe", "profile rxe", "why")
        text += ("\n" if text else "") + _table(columns, [_single(found, *pair) for pair in single])
    return text


def _listed(found: Differential, pairs: list[tuple[Row, Difference]]) -> tuple[object, ...]:
    row, first = pairs[0]
    known = first.explanation
    assert known is not None
    tests = ", ".join(f"`{row.test}`" for row, _ in pairs)
    values = compare.as_text(first.here), compare.as_text(first.there)
    return known.name, *values, known.right, known.text, known.source, _profile(found, row, first), tests


def _single(found: Differential, row: Row, each: Difference) -> tuple[object, ...]:
    why = each.why or (each.explanation.text if each.explanation is not None else "**not explained**")
    values = compare.as_text(each.here), compare.as_text(each.there)
    return f"`{row.test}`", each.what, *values, _profile(found, row, each), why


def _profile(found: Differential, row: Row, each: Difference) -> str:
    if found.remaining is None:
        return "not run"
    return "differs" if found.is_left(row, each) else "as rxe"


def _left(found: Differential) -> str:
    left = found.left()
    head = f"### With the profile rxe\n\n{len(left)} differences are left"
    if not left:
        return f"{head}.\n"
    rows = list(_left_rows(found))
    return f"{head}; none of them is modelled, for the reason given.\n\n" + _table(
        ("difference", "observed", MODEL, "rxe", "why it is not modelled", "tests"), rows
    )


def _left_rows(found: Differential) -> Iterator[tuple[object, ...]]:
    for pairs in by_explanation(found.remaining or []).values():
        _, first = pairs[0]
        known = first.explanation
        listed = known is not None and is_listed(first)
        name, why = (known.name, known.text) if known is not None and listed else ("**not listed**", first.why)
        tests = ", ".join(f"`{row.test}`" for row, _ in pairs)
        yield name, first.what, compare.as_text(first.here), compare.as_text(first.there), why, tests


def _table(columns: tuple[str, ...], rows: "list[Any]") -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
