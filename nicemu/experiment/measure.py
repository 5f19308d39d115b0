"""Metrics: what a column of observations or a counter comes to at a point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nicemu.experiment.schema import Metric, Scalar
from nicemu.experiment.sweep import REPETITION, Document, Point, same
from nicemu.experiment.task import Result
from nicemu.observe.percentile import nearest_rank

RESERVED = ("point", REPETITION, "observation")
"""Columns that results have beside the workload's."""
NS_PER = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


class Measured(NamedTuple):
    """A point and what came out. ``values``: metrics by name; None where nothing was observed."""

    point: Point
    results: tuple[Result, ...]
    values: dict[str, float | None]
    counts: dict[str, int]
    """How many observations each metric is made of."""


def measure(document: Document, point: Point, results: Sequence[Result]) -> Measured:
    """All metrics of a point, over all its repetitions. Raises ConfigError: a metric is of nothing that there is, a
    column is called like an axis."""
    taken = {*point.labels, *RESERVED} & {column for result in results for column in result.columns}
    if taken:
        raise document.wrong("workload.name", f"no columns called like an axis ({', '.join(sorted(taken))})",
                             document.experiment.workload.name)  # fmt: skip
    found = {name: samples(document, name, metric, results) for name, metric in document.experiment.metrics.items()}
    values = {name: aggregate(document.experiment.metrics[name].aggregate, each) for name, each in found.items()}
    return Measured(point, tuple(results), values, {name: len(each) for name, each in found.items()})


def samples(document: Document, name: str, metric: Metric, results: Sequence[Result]) -> list[float]:
    """The observations that a metric is made of, in its unit."""
    factor = scale(metric.of, metric.unit)
    if "." in metric.of:
        for result in results:
            if metric.of not in result.counters:
                raise document.wrong(f"metrics.{name}.of", f"a counter ({_some(result.counters)})", metric.of)
        return [result.counters[metric.of] * factor for result in results]
    known = {column for result in results for column in result.columns}
    if known and metric.of not in known:
        raise document.wrong(f"metrics.{name}.of", f"a column ({', '.join(sorted(known))})", metric.of)
    taken = [value for result in results for value in result.columns.get(metric.of, ()) if value is not None]
    if any(isinstance(value, str) for value in taken):
        raise document.wrong(f"metrics.{name}.of", "a column of numbers", metric.of)
    return [value * factor for value in taken]


def _some(counters: Mapping[str, int]) -> str:
    """Names of counters, as many as fit in a line."""
    names = list(counters)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def scale(column: str, unit: str) -> float:
    """What turns a column into a unit: ``npf_ns`` in us is a thousandth."""
    of, _, suffix = column.rpartition("_")
    return NS_PER[suffix] / NS_PER[unit] if of and suffix in NS_PER and unit in NS_PER else 1


def aggregate(how: str, values: Sequence[float]) -> float | None:
    """One number of many. Percentiles are the nearest rank."""
    if how == "count":
        return len(values)
    if not values:
        return None
    if how == "mean":
        return math.fsum(values) / len(values)
    if how == "sum":
        return math.fsum(values)
    if how in ("min", "max"):
        return min(values) if how == "min" else max(values)
    return nearest_rank(sorted(values), how[1:])


def at(measured: Sequence[Measured], where: Mapping[str, Scalar]) -> list[Measured]:
    """The points with these values."""
    return [each for each in measured if each.point.lies(where)]


Names = Mapping[str, Sequence[Scalar]]
"""Axes with their labels."""


def check_where(document: Document, field: str, where: Mapping[str, Any], names: Names) -> None:
    """Axes exist and have such values. Raises ConfigError."""
    for name, value in where.items():
        if name not in names:
            raise document.wrong(field, f"an axis ({', '.join(names) or 'none: nothing varies'})", name)
        if not any(same(label, value) for label in names[name]):
            raise document.wrong(f"{field}.{name}", f"one of {', '.join(map(str, names[name]))}", value)


def number(value: float | None) -> str:
    """A number as people read it: four digits, no exponent where that can be."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
