"""``--evict RATE``: a daemon thread that takes mapped on-demand pages away while traffic runs.

It reclaims the page (contents go to swap and come back), so a correct program never notices. Which page and when come
from the lab's seed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver.implicit import ImplicitUmem, child_memory
from nicemu.driver.umem_odp import UmemOdp
from nicemu.timeline import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab


def explicit(memory: Any) -> list[UmemOdp]:
    """The on-demand memories with pages of their own: a region's, or those of an implicit region's children."""
    if isinstance(memory, ImplicitUmem):
        return [child_memory(child) for child in memory.children.values()]
    return [memory] if isinstance(memory, UmemOdp) else []


def evictor(lab: Lab, per_ms: float) -> Steps[None]:
    """Evict ``per_ms`` pages per virtual millisecond, one at a time, exponentially spaced."""
    draw = random.Random(lab.config.seed)
    while True:
        yield Sleep(max(1, round(draw.expovariate(per_ms) * 1_000_000)), idle=True)
        candidates = [memory for mr in lab.driver.mrs for memory in explicit(mr.umem) if memory.mapped]
        if not candidates:
            continue
        memory = draw.choice(candidates)
        mapped = memory.pages.numbers(0, (memory.end - memory.start) >> PAGE_SHIFT)
        page = int(mapped[draw.randrange(len(mapped))])
        yield from lab.host.reclaim.evict(lab.process.mm, memory.start + (page << PAGE_SHIFT))
