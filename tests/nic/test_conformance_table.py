"""docs/conformance.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "conformance.md").read_text()
STATUSES = {"implemented", "partial", "**not**"}


def defined() -> set[str]:
    """``file.function`` of every test."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= {f"{path.stem}.{name}" for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    return found


def rows() -> list[list[str]]:
    """Cells of each rule."""
    lines = [
        line
        for line in TABLE.splitlines()
        if line.startswith("| ") and not line.startswith(("| rule", "| |", "| property"))
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_test_it_names_exists():
    named = set(re.findall(r"`(test_\w+\.test_\w+)`", TABLE))
    assert len(named) > 80
    assert named - defined() == set()


def test_every_rule_has_a_status_and_what_is_implemented_a_test():
    for cells in rows():
        status = next((cell for cell in cells if cell in STATUSES), None)
        if status is None:
            assert len(cells) == 2, cells
        elif len(cells) == 4:
            assert status == "**not**" or "`test_" in cells[3] or status == "partial", cells
