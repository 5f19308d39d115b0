"""Ratios of this run against stored ones. Never an absolute time: machines differ, ratios to a limit hardly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nicemu.bench.measure import Row
from nicemu.bench.results import Ratios
from nicemu.bench.units import best_ratio, ratio

ALLOWED = 0.25
"""A ratio may be so much lower than the stored one."""


@dataclass(frozen=True)
class Fall:
    """A ratio that fell too far."""

    row: str
    limit: str
    before: float
    now: float

    def __str__(self) -> str:
        return f"{self.row}: {self.now:.3g} of {self.limit}, {1 - self.now / self.before:.0%} below {self.before:.3g}"


def fall(row: Row, stored: Ratios) -> Fall | None:
    """How far a row fell against its first limit, if it fell too far. (Others may be rows of ours, which get faster.)

    The better counts of the median of neighbouring readings and the best of all readings: either can be spoilt by what
    else the machine does, and seldom both.
    """
    limit = next(iter(row.limits), None)
    before = stored.get(row.name, {}).get(limit.name) if limit else None
    if limit is None or before is None or not limit.readings or not row.readings:
        return None
    now = max(ratio(row, limit), best_ratio(row, limit))
    return Fall(row.name, limit.name, before, now) if now < before * (1 - ALLOWED) else None


def falls(rows: Iterable[Row], stored: Ratios) -> list[Fall]:
    """Of all rows."""
    return [found for row in rows if (found := fall(row, stored))]
