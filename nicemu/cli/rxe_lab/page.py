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
    Pair,
    is_listed,
    names,
    problems,
    together,
)
from nicemu.cli.rxe_lab.table import by_verdict, sides, totals
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
    rows = [
        ("nicemu", versions.get("nicemu", "")),
        *((f"guest: {_words(name)}", value) for name, value in guest.items()),
    ]
    rows += [(f"host: {_words(name)}", value) for name, value in host.items()]
    return "### Versions\n\n" + _table(("what", "version"), rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _group(found: Differential, group: str) -> str:
    rows = found.of(group)
    named = sides(found, group)
    seconds = ("seconds", *(f"{job.seconds:.0f}" for _, job in named))
    counts = [(name, *counts) for name, counts in totals(found, group)]
    head = f"### {TITLES[group]}\n\n{len(rows)} tests: {by_verdict(rows)}.\n\n"
    return head + _table(("", *(side for side, _ in named)), [*counts, seconds]) + "\n" + _differences(found, rows)


def _differences(found: Differential, rows: list[Row]) -> str:
    """First what the list explains, then what tests explain."""
    groups = together(rows)
    listed = [pairs for pairs in groups if pairs[0][1].explanation is not None and not pairs[0][1].why]
    others = [pairs for pairs in groups if pairs not in listed]
    text = ""
    if listed:
        columns: tuple[str, ...] = ("difference", "nicemu", "rxe", "right", "why", "source", "profile rxe", "tests")
        text += _table(columns, [_listed(found, pairs) for pairs in listed])
    if others:
        columns = ("observed", "nicemu", "rxe", "why", "profile rxe", "tests")
        text += ("\n" if text else "") + _table(columns, [_other(found, pairs) for pairs in others])
    return text


def _listed(found: Differential, pairs: list[Pair]) -> tuple[object, ...]:
    first = pairs[0][1]
    known = first.explanation
    assert known is not None
    return known.name, *_values(first), known.right, known.text, known.source, _profile(found, pairs), _tests(pairs)


def _other(found: Differential, pairs: list[Pair]) -> tuple[object, ...]:
    first = pairs[0][1]
    why = first.why or (first.explanation.text if first.explanation is not None else "**not explained**")
    return first.what, *_values(first), why, _profile(found, pairs), _tests(pairs)


def _values(each: Difference) -> tuple[str, str]:
    return compare.as_text(each.here), compare.as_text(each.there)


def _tests(pairs: list[Pair]) -> str:
    """The first few and a count: with parameters a row may be about hundreds."""
    return names(dict.fromkeys(f"`{row.test}`" for row, _ in pairs))


def _profile(found: Differential, pairs: list[Pair]) -> str:
    if found.remaining is None:
        return "not run"
    left = sum(found.is_left(row, each) for row, each in pairs)
    return "as rxe" if not left else "differs" if left == len(pairs) else f"{left} of {len(pairs)} differ"


def _left(found: Differential) -> str:
    left = found.left()
    head = f"### With the profile rxe\n\n{len(left)} differences are left"
    if not left:
        return f"{head}.\n"
    rows = list(_left_rows(found))
    listed = sum(is_listed(each) for _, each in left)
    return f"{head}, {listed} of them on purpose, for the reason given.\n\n" + _table(
        ("difference", "observed", MODEL, "rxe", "why it is not modelled", "tests"), rows
    )


def _left_rows(found: Differential) -> Iterator[tuple[object, ...]]:
    for pairs in together(found.remaining or []):
        first = pairs[0][1]
        known = first.explanation
        name, why = (known.name, known.text) if known is not None else ("", first.why)
        if not is_listed(first):
            name = f"**not listed** {name}"
        yield name, first.what, *_values(first), why, _tests(pairs)


def _table(columns: tuple[str, ...], rows: "list[Any]") -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
