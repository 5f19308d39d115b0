"""What a run prints afterwards: counters, lock reports, sanitizer findings, and the stages of a fault and an
invalidation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nicemu.nic import engine, firmware
from nicemu.observe import stages
from nicemu.tables.records import ViolationKind

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

BAR = 36


def _table(title: str, rows: list[tuple[str, int]], note: str = "") -> None:
    print(f"\n{title}", file=sys.stderr)
    total = sum(ns for _, ns in rows) or 1
    for name, ns in rows:
        bar = "#" * max(1, round(BAR * ns / total)) if ns else ""
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


def _line(name: str, counters: dict[str, int]) -> None:
    text = "  ".join(f"{key} {value}" for key, value in counters.items() if value)
    print(f"  {name:<10} {text or 'nothing'}", file=sys.stderr)


def print_stats(lab: Lab) -> None:
    """Counters of MRs (kernel names), NICs and host, and everything the checkers found."""
    print(f"\nAfter {lab.world.now / 1e6:.3f} ms of virtual time, {int(lab.world.control[0].ran)} device events, "
          f"seed {lab.config.seed}, discipline {lab.config.discipline}", file=sys.stderr)  # fmt: skip
    for number, counters in sorted(lab.driver.mr_counters.items()):
        _line(f"mr {number}", dict(counters.items()))
    for device in lab.devices:
        _line(device.name, device.counters())
    _line("host", dict(sorted(lab.host.counters.items())) | {"frames_peak": lab.frames.peak})
    for image in {device.image.path: device.image for device in lab.devices}.values():
        print(f"  {'firmware':<10} {image.name}: {firmware.code_text(image)}", file=sys.stderr)
    print(f"  {'engine':<10} {engine.code_text()}", file=sys.stderr)
    for line in lab.fabric.report():
        print(f"  {line}", file=sys.stderr)
    for entry in lab.injected:
        print(f"  {'inject':<10} {entry}", file=sys.stderr)
    for report in lab.host.reports:
        print(f"  {report}", file=sys.stderr)
    print_violations(lab)
    print(f"  {'checks':<10} {len(lab.host.reports)} lock reports, {lab.violations} DMA violations", file=sys.stderr)
    print(f"  {'history':<10} {_determined(lab)}", file=sys.stderr)


def _determined(lab: Lab) -> str:
    """Whether the seed alone decides this run's history, and if not, what else did."""
    others = []
    if lab.pumped:
        others.append(f"{lab.pumped} waits in C were pumped by the wall clock")
    if len(lab.timeline.program_threads) > 1:
        others.append(f"{len(lab.timeline.program_threads)} program threads took turns as the system let them")
    if lab.process.mm.placed_by_system:
        areas = lab.process.mm.placed_by_system
        others.append(f"{areas} areas of the program's own memory lie where the system put them")
    return "not determined by the seed alone: " + "; ".join(others) if others else "determined by the seed alone"


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
