"""docs/check.md has every scenario and every mutant. ``python -m tests.check.test_docs`` writes its tables anew."""

import re
from pathlib import Path

import pytest

from nicemu.check.mutants import WHERE
from nicemu.check.scenarios import ALL
from nicemu.config.mutants import MUTANTS

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def scenarios() -> list[str]:
    rows = ["| scenario | what happens | call sites | eras |", "|---|---|---|---|"]
    for name, each in ALL.items():
        eras = "all" if len(each.eras()) == 5 else ", ".join(each.eras())
        rows.append(f"| {name} | {each.what} | {', '.join(each.sites) or '-'} | {eras} |")
    return rows


def mutants() -> list[str]:
    rows = ["| mutant | of | what is wrong | hunted in |", "|---|---|---|---|"]
    return rows + [f"| {name} | {m.layer} | {m.what} | {' under '.join(WHERE[name])} |" for name, m in MUTANTS.items()]


TABLES = {"scenarios": scenarios, "mutants": mutants}


def between(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_what_there_is(name: str) -> None:
    found = between(name).search(PAGE.read_text(encoding="utf-8"))
    assert found is not None and found[2].splitlines() == TABLES[name]()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        before, _, _, _, after = between(name).split(text)
        text = f"{before}<!-- {name} -->\n" + "\n".join(TABLES[name]()) + f"\n<!-- end -->{after}"
    PAGE.write_text(text, encoding="utf-8")
