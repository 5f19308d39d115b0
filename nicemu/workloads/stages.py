"""The stages of page faults and invalidations, cut as in "Page Fault Support for Network Controllers" (ASPLOS 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab


def fault_stages(lab: Lab, entry: Mapping[str, Any]) -> dict[str, int]:
    """The four stages of a fault, ns, with their sum and the pages."""
    costs = lab.config.nic.costs
    end = entry["resume"] + costs.doorbell_ns + costs.command_ns + costs.resume_ns
    marks = entry["detected"], entry["interrupt"], entry["update"], entry["resume"], end
    names = "detect_ns", "driver_ns", "update_ns", "resume_ns"
    stages = {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}
    return stages | {"total_ns": end - entry["detected"], "pages": entry["pages"]}


def invalidation_stages(entry: Mapping[str, Any]) -> dict[str, int]:
    """The three stages of an invalidation, ns, with their sum and the pages."""
    marks = entry["notifier"], entry["command"], entry["interrupt"], entry["returned"]
    names = "check_ns", "update_ns", "software_ns"
    stages = {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}
    return stages | {"total_ns": entry["returned"] - entry["notifier"], "pages": entry["pages"]}
