"""Stages of a page fault and of an invalidation, from the times that the driver notes (``driver.counters.Stages``).

The stages are those of Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS 2017: one table each, with
the steps that a stage is made of. Steps follow each other without a gap, so stages sum to the total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Entry = Mapping[str, Any]
"""One of ``Stages.faults`` or ``Stages.invalidations``."""


class Step(NamedTuple):
    """From one noted time to another, ns."""

    stage: str
    title: str
    start: str
    end: str


FAULT_STAGES = {
    "detect": "NIC detects the fault, interrupts the driver",
    "driver": "driver and OS: whose page, fault it in, map it",
    "update": "update the NIC's page table",
    "resume": "resume command until the queue goes on",
}
INVALIDATION_STAGES = {
    "check": "is anything mapped",
    "update": "update the NIC's page table, wait for the device",
    "books": "software bookkeeping",
}
FAULT = (
    Step("detect", "NIC detects, firmware reports", "detected", "interrupt"),
    Step("driver", "interrupt handler", "interrupt", "driver"),
    Step("driver", "driver: whose page is it", "driver", "mm"),
    Step("driver", "page table (mm faults it in)", "mm", "mm_done"),
    Step("driver", "driver builds the update", "mm_done", "update"),
    Step("update", "device updates its MTT", "update", "resume"),
    Step("resume", "resume command", "resume", "resumed"),
    Step("resume", "NIC resumes the queue", "resumed", "goes_on"),  # negative: before the driver has heard
)
INVALIDATION = (
    Step("check", "notifier: does the device map it", "notifier", "command"),
    Step("update", "device: command, IOTLB flush, drain", "command", "drained"),
    Step("update", "completion interrupt", "drained", "interrupt"),
    Step("books", "driver's books, return to mm", "interrupt", "returned"),
)


def complete(entry: Entry) -> bool:
    """A fault that was resolved with pages, and went on."""
    return bool(entry.get("pages")) and not entry.get("error") and "goes_on" in entry and "mm" in entry


def steps(entry: Entry, layout: tuple[Step, ...]) -> list[tuple[Step, int]]:
    """The steps of an entry with their ns; those it did not take are left out."""
    return [(step, entry[step.end] - entry[step.start]) for step in layout if {step.start, step.end} <= entry.keys()]


def fault_stages(entry: Entry) -> dict[str, int]:
    """ns of each of ``FAULT_STAGES`` of a fault that is ``complete``; they sum to ``fault_total``."""
    return _sums(steps(entry, FAULT), FAULT_STAGES)


def fault_total(entry: Entry) -> int:
    """ns from the missing translation to the queue going on."""
    return int(entry["goes_on"] - entry["detected"])


def invalidation_stages(entry: Entry) -> dict[str, int]:
    """ns of each of ``INVALIDATION_STAGES``; they sum to ``invalidation_total``."""
    return _sums(steps(entry, INVALIDATION), INVALIDATION_STAGES)


def invalidation_total(entry: Entry) -> int:
    """ns from the notifier's callback to its return."""
    return int(entry["returned"] - entry["notifier"])


def _sums(taken: list[tuple[Step, int]], stages: dict[str, str]) -> dict[str, int]:
    return {stage: sum(ns for step, ns in taken if step.stage == stage) for stage in stages}
