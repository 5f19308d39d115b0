"""``inject:``: faults on purpose, one seam for each boundary, each with a record that it fired.

A fault is planted by wrapping what the boundary's two sides call each other with (:func:`entry.around`), so what is
not injected costs nothing. A file for each boundary; :data:`PLANTERS` says who plants what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.lab.inject import commands, doorbells, events, interrupts, iotlb, memory, page_faults, rings, verbs
from nicemu.lab.inject.entry import Injected
from nicemu.lab.inject.packets import InjectedPackets

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

__all__ = ["Injected", "idle", "inject", "plant"]

PLANTERS: dict[str, Callable[[Injected], None]] = {
    "verbs_error": verbs.fail, "wqe_corrupt": rings.corrupt, "doorbell_loss": doorbells.lose,
    "command_failure": commands.refuse, "command_timeout": commands.never_answer, "iotlb_poison": iotlb.poison,
    "page_fault_slow": page_faults.slow, "page_fault_fail": page_faults.fail, "page_fault_lost": page_faults.lose,
    "lose_interrupt": interrupts.lose, "late_interrupt": interrupts.delay, "mask_vector": events.mask_vector,
    "unmask_vector": events.mask_vector, "allocation_failure": memory.fail_allocation,
    "swap_read_error": memory.fail_swap_read, "slow_swap": memory.slow_swap, "memory_failure": memory.fail_memory,
    "oom_kill": memory.kill, "port_down": events.port_event, "port_up": events.port_event,
    "device_fatal": events.port_event, "gid_change": events.change_gid,
}  # fmt: skip
"""By `event`; packets are the fabric's own."""


def inject(lab: Lab) -> list[Injected]:
    """Plant everything that the configuration asks for."""
    planted: list[Injected] = []
    for what in lab.config.inject:
        planted.append(_plant(lab, what, len(planted)))
    return planted


def plant(lab: Lab, what: Any) -> Injected:
    """Plant one more entry in a running lab: times and occasions count from now."""
    entry = _plant(lab, what, len(lab.injected))
    lab.injected.append(entry)
    return entry


def _plant(lab: Lab, what: Any, number: int) -> Injected:
    if what.event == "packet":
        return InjectedPackets(lab, what, number)
    entry = Injected(lab, what, number)
    PLANTERS[what.event](entry)
    return entry


def idle(lab: Lab) -> list[str]:
    """A line for each fault that had to happen and did not: it, and why."""
    lines = [f"inject.{entry.number}: {entry}" for entry in lab.injected if entry.what.must_fire and not entry.fired]
    rules = list(enumerate(zip(lab.config.impairments, lab.fabric.firings(), strict=False)))
    lines += [f"impairments.{i}: {name}: hit no packet" for i, (rule, (name, count)) in rules
              if rule.must_fire and not count]  # fmt: skip
    return lines
