"""What a run prints afterwards: counters, lock reports, sanitizer findings, and the stages of a fault and an
invalidation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nicemu.lab.counters import snapshot
from nicemu.observe import counters_text

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

BAR = 36
FAULT_STAGES = (
    ("NIC detects, firmware reports", "detected", "interrupt"),
    ("interrupt handler", "interrupt", "driver"),
    ("driver: whose page is it", "driver", "mm"),
    ("page table (mm faults it in)", "mm", "mm_done"),
    ("driver builds the update", "mm_done", "update"),
    ("device updates its MTT", "update", "update_done"),
    ("resume command", "resume", "resumed"),
)  # fmt: skip
INVALIDATION_STAGES = (
    ("notifier: does the device map it", "notifier", "command"),
    ("device: command, IOTLB flush, drain", "command", "drained"),
    ("completion interrupt", "drained", "interrupt"),
    ("driver's books, return to mm", "interrupt", "returned"),
)  # fmt: skip


def _table(title: str, rows: list[tuple[str, int]], note: str = "") -> None:
    print(f"\n{title}", file=sys.stderr)
    total = sum(ns for _, ns in rows) or 1
    for name, ns in rows:
        bar = "#" * max(1, round(BAR * ns / total)) if ns else ""
        print(f"  {name:<40} {ns / 1000:>9.2f} us  {bar}", file=sys.stderr)
    print(f"  {'total':<40} {total / 1000:>9.2f} us  {note}", file=sys.stderr)


def _stages(entry: dict[str, Any], layout: tuple[tuple[str, str, str], ...]) -> list[tuple[str, int]]:
    return [(name, entry[end] - entry[start]) for name, start, end in layout if start in entry and end in entry]


def print_stages(lab: Lab) -> None:
    """The stages of the first complete page fault and the first invalidation, with their virtual times."""
    costs = lab.config.nic.costs
    resume_ns = costs.doorbell_ns + costs.command_ns + costs.resume_ns
    for fault in [f for f in lab.driver.stages.faults if f.get("pages") and not f["error"]][:1]:
        rows = _stages(fault, FAULT_STAGES)
        rows.append(("NIC resumes the queue", fault["resume"] + resume_ns - fault["resumed"]))
        _table(f"One page fault (MR {fault['mr']}, {fault['pages']} pages)", rows, "minor fault, ASPLOS'17: 215 us")
    for entry in list(lab.driver.stages.invalidations)[:1]:
        title = f"One invalidation (MR {entry['mr']}, {entry['pages']} pages, {entry['operation']})"
        _table(title, _stages(entry, INVALIDATION_STAGES), "ASPLOS'17: 16.9 us for one page")


def print_stats(lab: Lab) -> None:
    """Counters of MRs (kernel names), NICs and host, and everything the checkers found."""
    for line in ("", *counters_text.lines(snapshot(lab))):
        print(line, file=sys.stderr)
