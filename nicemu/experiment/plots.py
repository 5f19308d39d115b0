"""Pictures for a paper: matplotlib, 160 dpi, colours that the colour-blind tell apart, legends outside the data.

The colours are those of Okabe and Ito. One result gives one file, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nicemu.experiment.measure import Measured
from nicemu.experiment.schema import Plot, Scalar
from nicemu.experiment.series import Chart, Distribution, chart, distributions, unit_of
from nicemu.experiment.sweep import Document
from nicemu.experiment.task import missing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
INK, GRID = "#222222", "#D9D9D9"
SIZE = (7.2, 3.6)  # inches
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10.5, "axes.titlelocation": "left",
    "axes.titleweight": "bold", "axes.labelsize": 9, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y",
    "grid.color": GRID, "grid.linewidth": 0.7, "legend.frameon": False, "legend.fontsize": 8.5,
    "lines.linewidth": 1.6, "lines.markersize": 5, "hatch.linewidth": 0.6,
}  # fmt: skip
FEW_TICKS = 12


def draw(document: Document, measured: Sequence[Measured], folder: Path) -> list[tuple[Plot, Path, bool]]:
    """Every plot of the file as a PNG; whether it shows expected values. Raises ConfigError: matplotlib is missing."""
    if not document.experiment.plots:
        return []
    try:
        import matplotlib
        from matplotlib.container import ErrorbarContainer
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("matplotlib", "experiment") from None
    folder.mkdir(exist_ok=True)
    drawn = []
    style: Any = {**dict(matplotlib.rcParamsDefault), **STYLE}
    with matplotlib.rc_context(style):
        for plot in document.experiment.plots:
            figure = Figure(figsize=SIZE, dpi=160, layout="constrained")
            axes = figure.add_subplot()
            _draw(axes, document, plot, measured)
            file = folder / f"{plot.name}.png"
            figure.savefig(file, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
            drawn.append((plot, file, any(isinstance(each, ErrorbarContainer) for each in axes.containers)))
    return drawn


def _draw(axes: Any, document: Document, plot: Plot, measured: Sequence[Measured]) -> None:
    if plot.kind == "cdf":
        _cdf(axes, plot, distributions(document, plot, measured))
    else:
        data = chart(document, plot, measured)
        {"line": _line, "bar": _bar, "stacked": _stacked}[plot.kind](axes, plot, data)
        axes.set_xlabel(plot.x_label or plot.x)
        titles = [document.experiment.metrics[name].title or name for name in plot.y]
        what = titles[0] if len(titles) == 1 else "time" if data.unit in ("ns", "µs", "ms", "s") else ""
        axes.set_ylabel(plot.y_label or f"{what} ({data.unit})".strip() if data.unit else plot.y_label or what)
    axes.set_title(plot.title or plot.name)
    _scales(axes, plot)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if len(unique) > 1:
        axes.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


def _scales(axes: Any, plot: Plot) -> None:
    """Logarithmic ones with ticks that are read as plain numbers; linear ones from zero."""
    from matplotlib.ticker import FuncFormatter

    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    nothing = FuncFormatter(lambda *_: "")
    if "y" in plot.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain)
        low, high = axes.get_ylim()
        between = FuncFormatter(lambda value, _: f"{value:,.10g}" if f"{value:e}"[0] in "235" else "")
        axes.yaxis.set_minor_formatter(between if high < 50 * low else nothing)
    elif plot.kind != "cdf":
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.yaxis.set_major_formatter(plain)
    if plot.kind == "cdf":
        axes.set_ylim(0, 1.02)
        axes.grid(True, axis="x")
        if "x" in plot.log:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_formatter(nothing)


def _numeric(positions: Sequence[Scalar]) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in positions)


def _line(axes: Any, plot: Plot, data: Chart) -> None:
    numeric = _numeric(data.positions)
    places: dict[Scalar, float] = {x: float(x) if numeric else i for i, x in enumerate(data.positions)}
    for i, series in enumerate(data.series):
        known = [(places[x], y) for x, y in zip(data.positions, series.values, strict=True) if y is not None]
        known.sort()
        wider = max(len(data.series) - 1 - i, 0) if len(data.series) <= 4 else 0  # what lies below looks out
        axes.plot([x for x, _ in known], [y for _, y in known], color=COLOURS[i % len(COLOURS)],
                  marker=MARKERS[i % len(MARKERS)], linestyle=DASHES[i // len(COLOURS) % len(DASHES)],
                  linewidth=1.6 + 1.3 * wider, markersize=5 + 1.8 * wider, markeredgecolor="white",
                  markeredgewidth=0.6, label=series.label)  # fmt: skip
    for mark in data.marks:
        x = places.get(mark.x, float(mark.x) if numeric else None)
        if x is not None:
            _mark(axes, x, mark.y, y_error=(mark.below, mark.above), label=mark.label, of=mark.series)
    if "x" in plot.log and numeric:
        axes.set_xscale("log")
    if not numeric or len(data.positions) <= FEW_TICKS:
        axes.set_xticks(list(places.values()), [_text(x) for x in data.positions])
        axes.minorticks_off()


def _mark(axes: Any, x: float, y: float, *, label: str, of: int, y_error: Any = None, x_error: Any = None) -> None:
    """A published point with its tolerance, in the colour of its series."""
    colour = COLOURS[of % len(COLOURS)] if of >= 0 else INK
    errors = {"yerr": [[y_error[0]], [y_error[1]]]} if y_error and any(y_error) else {}
    errors |= {"xerr": [[x_error[0]], [x_error[1]]]} if x_error and any(x_error) else {}
    axes.errorbar([x], [y], **errors, fmt="D", markersize=7, markerfacecolor="none", markeredgecolor=colour,
                  markeredgewidth=1.3, ecolor=colour, elinewidth=1.3, capsize=4, zorder=5, label=label)  # fmt: skip


def _text(label: Scalar) -> str:
    return f"{label:,}" if isinstance(label, int) and not isinstance(label, bool) else str(label)


def _bar(axes: Any, plot: Plot, data: Chart) -> None:
    width = 0.8 / len(data.series)
    for i, series in enumerate(data.series):
        at = [j - 0.4 + (i + 0.5) * width for j in range(len(data.positions))]
        axes.bar(at, [value or 0 for value in series.values], width * 0.94, color=COLOURS[i % len(COLOURS)],
                 label=series.label)  # fmt: skip
    for mark in data.marks:
        if mark.x in data.positions:
            x = data.positions.index(mark.x) + ((mark.series + 0.5) * width - 0.4 if mark.series >= 0 else 0)
            _mark(axes, x, mark.y, y_error=(mark.below, mark.above), label=mark.label, of=-1)
    axes.set_xticks(range(len(data.positions)), [_text(x) for x in data.positions])


def _stacked(axes: Any, plot: Plot, data: Chart) -> None:
    """A bar of the model at each position, a pale one of what was published beside it. Groups (by) stand side by
    side: their series follow each other."""
    layers = len(plot.y)
    groups = len(data.series) // layers
    paired = {(mark.series // layers, mark.x) for mark in data.marks if mark.series >= 0}
    width = 0.8 / (groups * (2 if paired else 1))
    ticks = []
    for j, x in enumerate(data.positions):
        for group in range(groups):
            left = j - 0.4 + group * 0.8 / groups + width / 2
            own = range(group * layers, (group + 1) * layers)
            values = [data.series[i].values[j] for i in own]
            if all(value is None for value in values):
                continue
            middle = left + (width / 2 if paired else 0)
            beside = (group, x) in paired
            parts = [(layer, value or 0.0) for layer, value in zip(data.layers, values, strict=True)]
            _stack(axes, left if beside else middle, width, parts, "")
            ticks.append((middle, _tick(x, data.groups, group)))
            if beside:
                expected = {mark.series: mark for mark in data.marks if mark.x == x and mark.series in own}
                parts = [("", expected[i].y if i in expected else 0.0) for i in own]
                _stack(axes, left + width, width, parts, next(mark.label for mark in expected.values()))
    axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    if data.groups and len(ticks) > 4:
        axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks], rotation=40, ha="right", fontsize=7.5)


def _tick(x: Scalar, groups: list[Scalar], group: int) -> str:
    return f"{_text(x)}, {_text(groups[group])}" if groups else _text(x)


def _stack(axes: Any, x: float, width: float, parts: list[tuple[str, float]], source: str) -> None:
    bottom = 0.0
    for i, (label, value) in enumerate(parts):
        look = {"alpha": 0.4, "hatch": "///", "edgecolor": INK} if source else {"edgecolor": "white"}
        axes.bar([x], [value], width * 0.92, bottom=bottom, color=COLOURS[i % len(COLOURS)], linewidth=0.6,
                 label=label if label else f"hatched: {source}", **look)  # fmt: skip
        bottom += value


def _cdf(axes: Any, plot: Plot, curves: list[Distribution]) -> None:
    for i, curve in enumerate(curves):
        if curve.values:
            share = [(j + 1) / len(curve.values) for j in range(len(curve.values))]
            axes.step([curve.values[0], *curve.values], [0.0, *share], where="post", color=COLOURS[i % len(COLOURS)],
                      linestyle=DASHES[i // len(COLOURS) % len(DASHES)],
                      label=f"{curve.label} (N = {len(curve.values):,})")  # fmt: skip
        for mark in curve.marks:
            _mark(axes, float(mark.x), mark.y, x_error=(mark.below, mark.above), label=mark.label, of=i)
    axes.set_xlabel(plot.x_label or f"{plot.of.removesuffix('_ns')} ({unit_of(plot.unit)})")
    axes.set_ylabel(plot.y_label or "share of observations")
