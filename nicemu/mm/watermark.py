"""How many pages are kept free (``setup_per_zone_wmarks``, ``calculate_min_free_kbytes``, mm/page_alloc.c).

An allocation that would leave fewer than ``min`` pages reclaims first, and fails if that frees nothing. kswapd wakes
when fewer than ``low`` are free and sleeps again at ``high``. Left out: zones, boosts, the promotion watermark, and
users of the reserve below ``min`` (reclaim of the model allocates nothing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nicemu.abi.verbs import PAGE_SIZE

KIB_PER_PAGE = PAGE_SIZE >> 10
SMALLEST_KIB, LARGEST_KIB = 128, 262_144
SCALE_FACTOR = 10
"""``watermark_scale_factor``: ten-thousandths of the RAM between two watermarks, at least a quarter of ``min``."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Pages."""

    min: int
    low: int
    high: int

    @classmethod
    def of(cls, ram_pages: int, min_free_pages: int | None = None) -> Watermarks:
        """Linux's defaults for so much RAM, or with ``vm.min_free_kbytes`` set. At most an eighth of the RAM: Linux
        does not run on machines so small that it would be more."""
        if min_free_pages is None:
            wanted = math.isqrt(ram_pages * KIB_PER_PAGE * 16)
            min_free_pages = min(max(wanted, SMALLEST_KIB), LARGEST_KIB) // KIB_PER_PAGE
        low = min(min_free_pages, ram_pages // 8)
        gap = max(low // 4, ram_pages * SCALE_FACTOR // 10_000) if low else 0
        return cls(low, low + gap, low + 2 * gap)
