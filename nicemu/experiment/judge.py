"""Expectations against what came out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nicemu.experiment.measure import Measured, at, number
from nicemu.experiment.schema import Expectation, Place
from nicemu.experiment.sweep import Document

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "increasing": lambda a, b: a < b,
    "decreasing": lambda a, b: a > b,
    "never_decreasing": lambda a, b: a <= b,
    "never_increasing": lambda a, b: a >= b,
}


class Verdict(NamedTuple):
    """One expectation at one point. ``ok`` None: the point was not run, or has no such number."""

    expectation: Expectation
    what: str
    expected: str
    model: str
    deviation: str
    ok: bool | None

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
        where = " ".join(f"{name}={value}" for name, value in each.where.items())
        yield Verdict(each, _what(document, each, where), _expected(document, each), "not run", "", None)
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
    where = "".join(f" {name}={value}" for name, value in each.where.items())
    low, high = number(min(values)), number(max(values))
    model = low if low == high else f"{low} ... {high}"
    what = f"{_what(document, each, '')} at all {len(places)} points{where}"
    return Verdict(each, what, found[0].expected, model, "", True)


def _at(document: Document, each: Expectation, place: Measured, measured: Sequence[Measured]) -> Verdict:
    what = _what(document, each, str(place.point) if place.point.labels else "")
    value, bound = place.values[each.metric], None
    other = each.less_than or each.ratio_to
    if other is not None:
        bound = _other(each, other, place, measured)
        value = value if each.less_than else value / bound if value is not None and bound else None
    expected = f"< {number(bound)}" if each.less_than else _expected(document, each)
    if value is None or (each.less_than and bound is None):
        return Verdict(each, what, expected, "nothing observed", "", None if other else False)
    ok = value < bound if each.less_than and bound is not None else _holds(each, value)
    return Verdict(each, what, expected, number(value), _deviation(each, value), ok)


def _other(each: Expectation, other: Place, place: Measured, measured: Sequence[Measured]) -> float | None:
    """The metric that this one is compared with: at the same point but for the axes that are named."""
    where = {**place.point.labels, **other.where}
    found = at(measured, where)
    return found[0].values[other.metric or each.metric] if found else None


def _holds(each: Expectation, value: float) -> bool:
    if each.value is not None:
        return abs(value - each.value) <= (each.tolerance or 0) * abs(each.value) + 1e-9 * abs(each.value)
    return (each.min is None or value >= each.min) and (each.max is None or value <= each.max)


def _along(document: Document, each: Expectation, places: list[Measured]) -> Iterator[Verdict]:
    """A relation between neighbours on an axis, for each combination of the other axes."""

    together = [key.rpartition(".")[2] for key in document.experiment.sweep.zip]
    mates = together if each.along in together else [each.along]

    def others(place: Measured) -> list[str]:
        return [f"{name}={label}" for name, label in place.point.labels.items() if name not in mates]

    holds = RELATIONS[each.relation or ""]
    groups: dict[str, list[Measured]] = {}
    for place in places:
        groups.setdefault(" ".join(others(place)), []).append(place)
    for name, group in groups.items():
        ordered = sorted(group, key=lambda place: _order(place.point.labels[each.along]))
        pairs = [(a, b, a.values[each.metric], b.values[each.metric]) for a, b in itertools.pairwise(ordered)]
        broken = next(((a, b) for a, b, x, y in pairs if x is None or y is None or not holds(x, y)), None)
        model = f"{number(ordered[0].values[each.metric])} ... {number(ordered[-1].values[each.metric])}"
        if broken is not None:
            a, b = broken
            model = (f"{number(a.values[each.metric])} at {a.point.labels[each.along]}, "
                     f"{number(b.values[each.metric])} at {b.point.labels[each.along]}")  # fmt: skip
        ok = None if len(ordered) < 2 else broken is None
        yield Verdict(each, _what(document, each, name), _expected(document, each), model, "", ok)


def _order(label: object) -> tuple[bool, float, str]:
    """Numbers by size, then text."""
    plain = isinstance(label, int | float)
    return not plain, float(label) if plain else 0, str(label)  # type: ignore[arg-type]


def _what(document: Document, each: Expectation, where: str) -> str:
    metric = document.experiment.metrics[each.metric]
    text = metric.title or each.metric
    if each.ratio_to is not None:
        other = each.ratio_to
        places = " ".join(f"{name}={value}" for name, value in other.where.items())
        text += f" / {other.metric or 'the same'}{' at ' + places if places else ''}"
    return text + (f" at {where}" if where else "")


def _expected(document: Document, each: Expectation) -> str:
    unit = "" if each.ratio_to is not None else document.experiment.metrics[each.metric].unit
    if each.value is not None:
        within = f" within {each.tolerance * 100:g} %" if each.tolerance is not None else ""
        text = f"{number(each.value)} {unit}".strip() + within
    elif each.relation is not None:
        text = f"{each.relation.replace('_', ' ')} along {each.along}"
    elif each.less_than is not None:
        text = f"less than {each.less_than.metric or each.metric}"
    else:
        bounds = [
            f"{sign} {number(bound)}" for sign, bound in ((">=", each.min), ("<=", each.max)) if bound is not None
        ]
        text = f"{' and '.join(bounds)} {unit}".strip()
    return text.strip()


def _deviation(each: Expectation, value: float) -> str:
    return f"{(value / each.value - 1) * 100:+.1f} %" if each.value else ""
