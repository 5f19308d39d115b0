"""Counters under the kernel's names (``rdma stat mr``), and when the stages of faults and invalidations passed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

STAGES_KEPT = 4096


@dataclass(slots=True)
class MrCounters:
    """``page_*`` count pages, ``*_handled`` events; a prefetch counts in ``page_prefetch`` only.

    mlx5 counts one page too many for each block that ends within an invalidated range; we do not.
    """

    page_faults: int = 0
    page_invalidations: int = 0
    page_prefetch: int = 0
    page_faults_handled: int = 0
    page_invalidations_handled: int = 0
    device: str = ""
    """Whose region it is: a label, no counter."""

    def items(self) -> list[tuple[str, int]]:
        """(name, value) in the order above."""
        return [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "device"]

    def add(self, other: MrCounters) -> None:
        """Add another region's counters to these."""
        for name, value in other.items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class DriverCounters:
    """What happened in the driver as a whole (the OFED names, where there is one)."""

    invalidations_faults_contentions: int = 0
    num_failed_resolutions: int = 0
    num_mrs_not_found: int = 0


@dataclass(slots=True)
class Stages:
    """The last faults and invalidations: virtual times in ns, by stage.

    Fault: ``detected`` (the NIC saw the missing translation), ``interrupt`` (handler entered),
    ``driver`` (work started), ``mm`` and ``mm_done`` (page table), ``update``, ``update_done`` (device translations),
    ``resume`` and ``resumed`` (command posted and completed), ``goes_on`` (the device lets the queue go on);
    ``device, mr, pages, retries, error``.

    Invalidation: ``notifier`` (callback entered), ``command`` (first ZAP posted), ``drained`` (the last is complete in
    the device), ``interrupt`` (the driver has heard of it), ``returned``; ``device, mr, pages, operation``.
    """

    faults: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=STAGES_KEPT))
    invalidations: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=STAGES_KEPT))
