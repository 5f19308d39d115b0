"""Units of rows: from readings to numbers, and numbers as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nicemu.bench.measure import Against, Reading, Row

Clock = Literal["wall", "cpu"]
"""Seconds of which clock: ``cpu`` where other processes are busy."""


@dataclass(frozen=True)
class Unit:
    """``rate``: so much of ``what`` in a second. ``time``: seconds for each of them. ``size``: the thing itself."""

    what: str
    kind: Literal["rate", "time", "size"]
    scale: float = 1.0


UNITS = {
    "messages/s": Unit("messages", "rate"), "packets/s": Unit("packets", "rate"), "GB/s": Unit("bytes", "rate", 1e-9),
    "events/s": Unit("events", "rate"), "x real time": Unit("virtual_ns", "rate", 1e-9),
    "pages/s": Unit("pages", "rate"), "calls/s": Unit("calls", "rate"), "round trips/s": Unit("calls", "rate"),
    "us": Unit("calls", "time", 1e6), "s": Unit("calls", "time"), "hits/s": Unit("hits", "rate"),
    "misses/s": Unit("misses", "rate"), "bytes": Unit("bytes", "size"),
    "MB": Unit("bytes", "size", 1e-6),
}  # fmt: skip


def value(reading: Reading, unit: str, clock: Clock = "wall") -> float:
    """A reading in a unit. KeyError: it did nothing of that sort."""
    of = UNITS[unit]
    amount = reading.done[of.what]
    if of.kind == "size":
        return amount * of.scale
    seconds = reading.wall if clock == "wall" else reading.cpu
    return amount * of.scale / seconds if of.kind == "rate" else seconds * of.scale / amount


def median(readings: Sequence[Reading], unit: str, clock: Clock = "wall") -> float:
    """The middle one of several readings."""
    return statistics.median(value(reading, unit, clock) for reading in readings)


def ratio(row: Row, limit: Against, unit: str | None = None) -> float:
    """What a row reaches of a limit: rates by the limit's, the limit's times and sizes by the row's. The median over
    pairs of neighbouring readings, by CPU time: what other processes take from one of a pair, or both, does not count.
    """
    pairs = zip(row.readings, limit.readings, strict=True)
    return statistics.median(_share(mine, other, unit or limit.unit) for mine, other in pairs)


def best_ratio(row: Row, limit: Against) -> float:
    """The same between the best reading of either."""
    rising = UNITS[limit.unit].kind == "rate"
    mine, other = (
        (max if rising else min)(readings, key=lambda reading: value(reading, limit.unit, "cpu"))
        for readings in (row.readings, limit.readings)
    )
    return _share(mine, other, limit.unit)


def _share(mine: Reading, other: Reading, unit: str) -> float:
    a, b = value(mine, unit, "cpu"), value(other, unit, "cpu")
    return a / b if UNITS[unit].kind == "rate" else b / a


def shown(amount: float, unit: str) -> str:
    """With its unit: ``3.92 M packets/s``, ``5.31 ms``."""
    if unit == "us" and amount >= 1000:
        return f"{number(amount / 1000)} ms"
    return f"{number(amount)} {unit}"


def number(amount: float) -> str:
    """Three significant digits: ``3.92 M``, ``812 k``, ``0.41``."""
    amount = float(f"{amount:.3g}")
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(amount) >= size:
            return _digits(amount / size) + letter
    return _digits(amount)


def _digits(amount: float) -> str:
    whole = len(str(int(abs(amount)))) if abs(amount) >= 1 else 0
    return f"{amount:.{max(0, 3 - whole)}f}"
