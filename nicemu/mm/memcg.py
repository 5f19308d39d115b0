"""A memory control group (``memcontrol.c``): a limit on the pages of the address spaces in it (``memory.max``).

A page is charged to the group of the address space that it was allocated for, and uncharged when it is freed, whoever
maps it then. Over the limit the group reclaims its own pages; if that frees nothing, the OOM killer looks among its
address spaces. Left out: hierarchies, ``memory.high`` and ``low``, swap limits, charges that move, page tables, and
huge pages, which are charged to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.reclaim import CLUSTER, MAX_RECLAIM_RETRIES
from nicemu.timeline.host import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host


class Memcg:
    """One group; ``limit`` in pages. ``AddressSpace.memcg`` says who is in it; fork inherits it."""

    def __init__(self, host: Host, name: str, limit: int) -> None:
        self.host, self.name, self.limit = host, name, limit
        self.usage = self.peak = 0
        """Pages charged, those being allocated among them."""
        self.members = np.zeros(len(host.frames.table), bool)
        """By frame: charged to the group."""
        host.pages.groups.append(self)

    def try_charge(self, pages: int) -> Steps[bool]:
        """``try_charge_memcg``: room for ``pages`` pages, after reclaim within the group; False: there is none."""
        for _ in range(MAX_RECLAIM_RETRIES):
            if self.usage + pages <= self.limit:
                self.usage += pages
                self.peak = max(self.peak, self.usage)
                return True
            if pages > self.limit:
                return False
            over = self.usage + pages - self.limit
            freed = yield from self.host.reclaim.direct(max(over, CLUSTER), self)
            if not freed and not self.host.reclaim.running:
                return False
            if not freed:
                yield Sleep(self.host.costs.swap_write_ns)
        return False

    def commit(self, frames: np.ndarray) -> None:
        """``commit_charge``: these are the pages that were charged."""
        self.members[frames] = True

    def migrate(self, old: int, new: int) -> None:
        """``mem_cgroup_migrate``: the page's new frame is charged as well, until one of the two is freed."""
        if self.members[old]:
            self.members[new] = True
            self.usage += 1

    def cancel(self, pages: int) -> None:
        """``cancel_charge``: they were not allocated after all."""
        self.usage -= pages

    def uncharge(self, frames: np.ndarray) -> None:
        """``mem_cgroup_uncharge``: these frames are freed; those of other groups are none of ours."""
        ours = np.atleast_1d(self.members[frames])
        self.usage -= int(np.count_nonzero(ours))
        self.members[frames] = False
