"""How pyverbs prints its objects: two columns, and names for numbers and flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

COLUMNS = "{:22}: {:<20}\n"


def lines(rows: Iterable[tuple[str, object]], form: str = COLUMNS) -> str:
    """One line for each (name, value)."""
    return "".join(form.format(name, value) for name, value in rows)


def flag_names(flags: int, dictionary: Mapping[int, str]) -> str:
    """The names of the flags that are set, a space after each."""
    return "".join(f"{name} " for flag, name in dictionary.items() if flags & flag)
