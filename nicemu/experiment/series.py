"""What a plot shows, as numbers: series of the model, the expected points beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nicemu.experiment.measure import Measured, at, samples
from nicemu.experiment.schema import Expectation, Metric, Plot, Scalar
from nicemu.experiment.sweep import Document

DISPLAY = {"us": "µs"}


class Series(NamedTuple):
    """A line, or the bars of one colour: values over the positions of the plot; None: nothing was observed."""

    label: str
    values: list[float | None]


class Mark(NamedTuple):
    """A point that somebody published, with how far from it is still right."""

    label: str
    series: int
    """Which series it belongs to; -1: none."""
    x: Scalar
    y: float
    below: float
    above: float


class Chart(NamedTuple):
    """A plot over an axis."""

    positions: list[Scalar]
    series: list[Series]
    marks: list[Mark]
    unit: str
    groups: list[Scalar]
    """Values of the axis `by`: the series of a group follow each other."""
    layers: list[str]
    """What the series of a group are."""


def unit_of(unit: str) -> str:
    """As it is written in a picture."""
    return DISPLAY.get(unit, unit)


def chart(document: Document, plot: Plot, measured: Sequence[Measured]) -> Chart:
    """A line, bar or stacked plot."""
    places = at(measured, plot.where)
    positions = list(dict.fromkeys(each.point.labels[plot.x] for each in places))
    groups = list(dict.fromkeys(each.point.labels[plot.by] for each in places)) if plot.by else [None]
    series, marks = [], []
    for group in groups:
        own = [each for each in places if group is None or each.point.labels[plot.by] == group]
        for name in plot.y:
            metric = document.experiment.metrics[name]
            by_x = {each.point.labels[plot.x]: each.values[name] for each in own}
            series.append(Series(_label(name, metric, group, plot), [by_x.get(x) for x in positions]))
            marks += _marks(document, name, plot.x, own, len(series) - 1)
    units = {document.experiment.metrics[name].unit for name in plot.y}
    marks += [Mark(paper.label, -1, point.x, point.y, point.y - (point.y if point.low is None else point.low),
                   (point.y if point.high is None else point.high) - point.y)
              for paper in plot.paper for point in paper.points]  # fmt: skip
    layers = [document.experiment.metrics[name].title or name for name in plot.y]
    unit = unit_of(units.pop()) if len(units) == 1 else ""
    return Chart(positions, series, marks, unit, [group for group in groups if group is not None], layers)


def _label(name: str, metric: Metric, group: Scalar | None, plot: Plot) -> str:
    text = metric.title or name
    if group is None:
        return text
    return f"{plot.by} {group}" if len(plot.y) == 1 else f"{text}, {plot.by} {group}"


def _marks(document: Document, metric: str, x: str, own: list[Measured], series: int) -> list[Mark]:
    """The expected values of a metric at these points."""
    values = [each for each in document.experiment.expect
              if each.metric == metric and each.value is not None and each.ratio_to is None]  # fmt: skip
    return [_mark(each, series, place.point.labels[x]) for each in values for place in at(own, each.where)]


def _mark(each: Expectation, series: int, x: Scalar) -> Mark:
    assert each.value is not None
    slack = abs(each.value) * (each.tolerance or 0)
    return Mark(each.source or "expected", series, x, each.value, slack, slack)


class Distribution(NamedTuple):
    """A cumulative distribution: sorted values, and published percentiles as marks (x: the value, y: the share)."""

    label: str
    values: list[float]
    marks: list[Mark]


def distributions(document: Document, plot: Plot, measured: Sequence[Measured]) -> list[Distribution]:
    """The curves of a cdf."""
    column = Metric(of=plot.of, unit=plot.unit, aggregate="p50")
    places = at(measured, plot.where)
    groups = list(dict.fromkeys(each.point.labels[plot.by] for each in places)) if plot.by else [None]
    curves = []
    for group in groups:
        own = [each for each in places if group is None or each.point.labels[plot.by] == group]
        values = sorted(value for each in own for value in samples(document, plot.name, column, each.results))
        label = plot.title or plot.of if group is None else f"{plot.by} {group}"
        curves.append(Distribution(label, values, _percentiles(document, plot, own)))
    return curves


def _percentiles(document: Document, plot: Plot, own: list[Measured]) -> list[Mark]:
    marks = []
    for each in document.experiment.expect:
        metric = document.experiment.metrics[each.metric]
        fits = metric.of == plot.of and metric.unit == plot.unit and each.value is not None and each.ratio_to is None
        share = {"max": 100.0, "min": 0.0}.get(metric.aggregate)
        if metric.aggregate.startswith("p"):
            share = float(metric.aggregate[1:])
        if fits and share is not None and at(own, each.where):
            assert each.value is not None
            slack = abs(each.value) * (each.tolerance or 0)
            marks.append(Mark(each.source or "expected", -1, each.value, share / 100, slack, slack))
    return marks
