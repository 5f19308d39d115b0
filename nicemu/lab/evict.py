"""``--evict RATE``: a daemon thread that takes mapped on-demand pages away while traffic runs.

It reclaims the page (contents go to swap and come back), so a correct program never notices. Which page and when come
from the lab's seed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver.umem_odp import UmemOdp
from nicemu.timeline import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab


def evictor(lab: Lab, per_ms: float) -> Steps[None]:
    """Evict ``per_ms`` pages per virtual millisecond, one at a time, exponentially spaced."""
    draw = random.Random(lab.config.seed)
    while True:
        yield Sleep(max(1, round(draw.expovariate(per_ms) * 1_000_000)), idle=True)
        candidates = [mr.umem for mr in lab.driver.mrs if isinstance(mr.umem, UmemOdp) and mr.umem.mapped]
        if not candidates:
            continue
        memory = draw.choice(candidates)
        mapped = memory.frames.nonzero()[0]
        page = int(mapped[draw.randrange(len(mapped))])
        yield from lab.host.reclaim.evict(lab.process.mm, memory.start + (page << PAGE_SHIFT))
