"""``mmu_gather``: what was unmapped, until the CPU TLB flush after which it may be freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.zap_file import ZapDetails


class MmuGather:
    """``struct mmu_gather``: pages that are freed after the TLB flush. ``details``: what is zapped, all without."""

    def __init__(self, mm: AddressSpace, operation: str, details: ZapDetails | None = None) -> None:
        self.mm, self.operation, self.details = mm, operation, details
        self._frames: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        """These lost a mapping."""
        self._frames.append(frames)

    def finish(self, start: int, end: int) -> Steps[None]:
        """``tlb_finish_mmu``: flush, then free."""
        if not self._frames:
            return
        self.mm.flush_tlb(start, end, self.operation)
        yield self.mm.host.costs.tlb_flush_ns
        for frames in self._frames:
            freed = self.mm.host.pages.put_many(frames)
            if len(freed):
                self.mm.host.event("free", frame=int(freed[0]), frames=len(freed), operation=self.operation)
