"""What the DMA sanitizer of a lab found, in words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nicemu.tables.records import ViolationKind

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab


def print_violations(lab: Lab, limit: int = 5) -> None:
    """The first DMA violations."""
    for line in violation_lines(lab, limit):
        print(f"  DMA VIOLATION at {line}", file=sys.stderr)


def violation_lines(lab: Lab, limit: int) -> Iterator[str]:
    """The first DMA violations: when, what, how the translation was made and what took the page."""
    for row in lab.world.violation[: min(lab.violations, limit)]:
        kind = ViolationKind(int(row.kind)).name.lower().replace("_", "-")
        what = "write to" if row.write else "read of"
        yield (f"{int(row.time)} ns: {what} {kind} page {int(row.page)} of MR {int(row.mkey)} "
               f"(frame {int(row.frame)}); translated at {int(row.translated_at)} ns through an entry of stamp "
               f"{int(row.made_stamp)}, {_why_wrong(lab, row)}")  # fmt: skip


def _why_wrong(lab: Lab, row: Any) -> str:
    if row.kind == ViolationKind.MISTRANSLATED:
        return "which the table of translations does not have"
    return f"taken at stamp {int(row.taken_stamp)} by {lab.frames.operation_name(int(row.operation))}"
