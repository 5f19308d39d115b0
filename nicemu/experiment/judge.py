"""Expectations against what came out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nicemu.experiment.measure import Measured, at, number
from nicemu.experiment.schema import Expectation, Place, Scalar
from nicemu.experiment.sweep import Document

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "increasing": lambda a, b: a < b,
    "decreasing": lambda a, b: a > b,
    "never_decreasing": lambda a, b: a <= b,
    "never_increasing": lambda a, b: a >= b,
}


class Verdict(NamedTuple):
    """One expectation, at one point or several. ``ok`` None: there is nothing to say, for a point that it needs was
    not run, or its value has no tolerance and is only shown."""

    expectation: Expectation
    what: str
    expected: str
    model: str
    deviation: str = ""
    ok: bool | None = None
    n: int = 0
    """Observations that the model's number is made of."""

    @property
    def failed(self) -> bool:
        """A gate that does not hold."""
        return self.expectation.gate and self.ok is False


def judge(document: Document, measured: Sequence[Measured]) -> list[Verdict]:
    """Every expectation, in the order of the file, at every point that it is about."""
    return [verdict for each in document.experiment.expect for verdict in _judge(document, each, measured)]


def _judge(document: Document, each: Expectation, measured: Sequence[Measured]) -> Iterator[Verdict]:
    places = at(measured, each.where)
    if not places:
        yield Verdict(each, _what(document, each, each.where), _expected(document, each), "not run")
    elif each.relation is not None:
        yield from _along(document, each, places)
    else:
        found = [_at(document, each, place, measured) for place in places]
        bounded = (each.min is not None or each.max is not None) and each.ratio_to is None
        yield from [_together(document, each, places, found)] if bounded and len(found) > 1 else found


def _together(document: Document, each: Expectation, places: Sequence[Measured], found: list[Verdict]) -> Verdict:
    """Bounds at many points, as one: the first point that is out of them, else the range of the model's values."""
    bad = next((verdict for verdict in found if not verdict.ok), None)
    if bad is not None:
        return bad
    values = [value for place in places if (value := place.values[each.metric]) is not None]
    low, high = (_number(document, each, bound) for bound in (min(values), max(values)))
    what = f"{_what(document, each, each.where)}, all {len(places)} points"
    n = sum(verdict.n for verdict in found)
    return Verdict(each, what, found[0].expected, low if low == high else f"{low} ... {high}", "", True, n)


def _at(document: Document, each: Expectation, place: Measured, measured: Sequence[Measured]) -> Verdict:
    what = _what(document, each, place.point.labels)
    value, bound = place.values[each.metric], None
    other = each.less_than or each.ratio_to
    if other is not None:
        bound = _other(each, other, place, measured)
    if each.ratio_to is not None:
        value = value / bound if value is not None and bound else None
    expected = f"< {_number(document, each, bound)}" if each.less_than else _expected(document, each)
    if value is None or (other is not None and bound is None):
        return Verdict(each, what, expected, "nothing observed", ok=None if other else False)
    ok: bool | None = value < bound if each.less_than and bound is not None else _holds(each, value)
    if each.value is not None and each.tolerance is None:
        ok = None
    deviation = f"{(value / each.value - 1) * 100:+.1f} %" if each.value else ""
    return Verdict(each, what, expected, _number(document, each, value), deviation, ok, place.counts[each.metric])


def _other(each: Expectation, other: Place, place: Measured, measured: Sequence[Measured]) -> float | None:
    """The metric that this one is compared with: at the same point but for the axes that are named."""
    found = at(measured, {**place.point.labels, **other.where})
    return found[0].values[other.metric or each.metric] if found else None


def _holds(each: Expectation, value: float) -> bool:
    if each.value is not None:
        return abs(value - each.value) <= ((each.tolerance or 0) + 1e-9) * abs(each.value)
    return (each.min is None or value >= each.min) and (each.max is None or value <= each.max)


def _along(document: Document, each: Expectation, places: list[Measured]) -> Iterator[Verdict]:
    """A relation between neighbours on an axis, for each combination of the axes that do not go with it."""
    together = [key.rpartition(".")[2] for key in document.experiment.sweep.zip]
    mates = together if each.along in together else [each.along]
    groups: dict[tuple[tuple[str, Scalar], ...], list[Measured]] = {}
    for place in places:
        others = tuple((name, label) for name, label in place.point.labels.items() if name not in mates)
        groups.setdefault(others, []).append(place)
    for others, group in groups.items():
        ordered = sorted(group, key=lambda place: _order(place.point.labels[each.along]))
        pairs = list(itertools.pairwise(ordered))
        broken = next((pair for pair in pairs if not _related(each, *pair)), None)
        first, last = broken or (ordered[0], ordered[-1])
        model = " ... ".join(f"{_number(document, each, place.values[each.metric])} at {place.point.labels[each.along]}"
                             for place in (first, last))  # fmt: skip
        ok = broken is None if pairs else None
        n = sum(place.counts[each.metric] for place in ordered)
        yield Verdict(each, _what(document, each, dict(others)), _expected(document, each), model, "", ok, n)


def _related(each: Expectation, before: Measured, after: Measured) -> bool:
    x, y = before.values[each.metric], after.values[each.metric]
    return x is not None and y is not None and RELATIONS[each.relation or ""](x, y)


def _order(label: Scalar) -> tuple[bool, float, str]:
    """Numbers by size, then text."""
    return isinstance(label, str), 0.0 if isinstance(label, str) else float(label), str(label)


def _what(document: Document, each: Expectation, where: Mapping[str, Scalar]) -> str:
    text = (document.experiment.metrics[each.metric].title or each.metric) + _where(where)
    if each.ratio_to is not None:
        other = document.experiment.metrics[each.ratio_to.metric or each.metric]
        name = (other.title or each.ratio_to.metric) + " " if each.ratio_to.metric else "that"
        text += f" / {name.strip()}{_where(each.ratio_to.where)}"
    return text


def _where(where: Mapping[str, Scalar]) -> str:
    return " at " + " ".join(f"{name}={label}" for name, label in where.items()) if where else ""


def _number(document: Document, each: Expectation, value: float | None) -> str:
    """With the unit; a ratio has none."""
    unit = "" if each.ratio_to is not None else document.experiment.metrics[each.metric].unit
    return f"{number(value)} {unit}".strip()


def _expected(document: Document, each: Expectation) -> str:
    if each.value is not None:
        within = f" within {each.tolerance * 100:g} %" if each.tolerance is not None else ""
        return _number(document, each, each.value) + within
    if each.relation is not None:
        return f"{each.relation.replace('_', ' ')} along {each.along}"
    if each.less_than is not None:
        other = each.less_than
        name = document.experiment.metrics[other.metric or each.metric].title or other.metric or each.metric
        return f"less than {name}{_where(other.where)}"
    bounds = (">=", each.min), ("<=", each.max)
    return " and ".join(f"{sign} {_number(document, each, bound)}" for sign, bound in bounds if bound is not None)
