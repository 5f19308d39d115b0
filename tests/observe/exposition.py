"""A strict reader of Prometheus's text exposition format 0.0.4: what it does not allow is an AssertionError.

https://prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"
LABELS = re.compile(rf'({LABEL})="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (-?[0-9.e+-]+)")
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass
class Family:
    """One metric: its type, its text, its samples by label values."""

    help: str = ""
    type: str = ""
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Families by name."""
    assert text.endswith("\n"), "the last line ends with a line feed"
    families: dict[str, Family] = {}
    current = ""
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            current = _comment(line, families, current)
        else:
            _sample(line, families, current)
    assert all(each.samples and each.type and each.help for each in families.values())
    return families


def _comment(line: str, families: dict[str, Family], current: str) -> str:
    mark, word, name, *rest = line.split(" ", 3)
    assert mark == "#" and word in ("HELP", "TYPE") and re.fullmatch(NAME, name), line
    if word == "HELP":
        assert name not in families, f"the lines of {name} are one group"
        families[name] = Family(help=rest[0])
        return name
    assert name == current and not families[name].samples and not families[name].type, line
    assert rest[0] in ("counter", "gauge"), line
    assert (rest[0] == "counter") == name.endswith("_total"), f"{name}: counters, and only they, end in _total"
    families[name].type = rest[0]
    return name


def _sample(line: str, families: dict[str, Family], current: str) -> None:
    found = SAMPLE.fullmatch(line)
    assert found is not None, line
    name, labels, value = found.groups()
    assert name == current and families[name].type, f"{line}: not behind its TYPE"
    pairs = LABELS.findall(labels or "")
    assert "".join(f'{key}="{given}",' for key, given in pairs).rstrip(",") == (labels or ""), line
    key = tuple((label, re.sub(r"\\.", lambda m: ESCAPES[m[0]], given)) for label, given in pairs)
    assert len({label for label, _ in key}) == len(key), f"{line}: a label twice"
    assert key not in families[name].samples, f"{line}: a sample twice"
    families[name].samples[key] = float(value)
