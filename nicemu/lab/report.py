"""What a run prints afterwards: counters, lock reports, sanitizer findings, and the stages of a fault and an
invalidation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nicemu.lab.counters import snapshot
from nicemu.nic import firmware, unit_code
from nicemu.observe import counters_text, stages

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

BAR = 36


def _table(title: str, rows: list[tuple[str, int]], note: str = "") -> None:
    print(f"\n{title}", file=sys.stderr)
    total = sum(ns for _, ns in rows) or 1
    for name, ns in rows:
        bar = "#" * max(1, round(BAR * ns / total)) if ns > 0 else ""
        print(f"  {name:<40} {ns / 1000:>9.2f} us  {bar}", file=sys.stderr)
    print(f"  {'total':<40} {total / 1000:>9.2f} us  {note}", file=sys.stderr)


def _rows(entry: stages.Entry, layout: tuple[stages.Step, ...]) -> list[tuple[str, int]]:
    return [(step.title, ns) for step, ns in stages.steps(entry, layout)]


def print_stages(lab: Lab) -> None:
    """The steps of the first complete page fault and the first invalidation, with their virtual times."""
    for fault in [f for f in lab.driver.stages.faults if stages.complete(f)][:1]:
        rows = _rows(fault, stages.FAULT)
        _table(f"One page fault (MR {fault['mr']}, {fault['pages']} pages)", rows, "minor fault, ASPLOS'17: 215 us")
    for entry in list(lab.driver.stages.invalidations)[:1]:
        title = f"One invalidation (MR {entry['mr']}, {entry['pages']} pages, {entry['operation']})"
        _table(title, _rows(entry, stages.INVALIDATION), "ASPLOS'17: 16.9 us for one page")


def print_stats(lab: Lab) -> None:
    """Counters of MRs (kernel names), NICs and host, and everything the checkers found."""
    for line in ("", *counters_text.lines(snapshot(lab))):
        print(line, file=sys.stderr)
    for image in {device.image.path: device.image for device in lab.devices}.values():
        print(f"  {'firmware':<10} {image.name}: {firmware.code_text(image)}", file=sys.stderr)
    print(f"  {'engine':<10} {unit_code.code_text()}", file=sys.stderr)
