"""docs/errors.md has a row for every status and event, by its number, and names tests that exist."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from nicemu.pyverbs import enums as e

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "errors.md").read_text()
STATUSES, EVENTS = TEXT.split("## Completion statuses")[1].split("## Asynchronous events")


def rows(table: str) -> list[tuple[int, str, str, str]]:
    """(number, name, how, test)."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] != "| #"]
    return [(int(row[0]), row[1], row[2], row[4]) for row in cells if len(row) == 5 and row[0].isdigit()]


@pytest.mark.parametrize(
    ("table", "enum", "prefix"),
    [(STATUSES, e.ibv_wc_status, "IBV_WC_"), (EVENTS, e.ibv_event_type, "IBV_EVENT_")],
    ids=["statuses", "events"],
)
def test_every_number_has_a_row_with_its_name(table: str, enum: type[IntEnum], prefix: str) -> None:
    assert {(number, prefix + name) for number, name, _, _ in rows(table)} == {(int(m), m.name) for m in enum}


@pytest.mark.parametrize("table", [STATUSES, EVENTS], ids=["statuses", "events"])
def test_a_row_names_a_test_or_says_why_not(table: str) -> None:
    for number, name, how, test in rows(table):
        assert how.startswith("not: ") == (not test), f"{number} {name}"


def test_the_tests_it_names_are_those_that_there_are() -> None:
    defined = set()
    for file in ("test_errors", "test_async_events", "test_tag_errors"):
        text = (ROOT / "tests" / "lab" / f"{file}.py").read_text()
        defined |= {f"{file}.{name}" for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert set(re.findall(r"`(test_\w+\.test_\w+)`", TEXT)) == defined
