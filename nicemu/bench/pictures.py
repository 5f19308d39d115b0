"""Pictures of docs/performance.md as SVG: where the time goes, and how cost grows."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from nicemu.bench.profile import Shares
from nicemu.bench.results import Results
from nicemu.bench.rows import verbs
from nicemu.bench.rows.iotlb import ROUNDS
from nicemu.bench.units import Clock, median
from nicemu.config.errors import ConfigError

INK, GRID = "#222222", "#D9D9D9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's: the colour-blind tell them apart."""
SMALLEST, LETTER, LINE = 0.004, 0.0056, 0.012
"""Smaller shares are not drawn; how much of the picture's width a letter takes, and a line of text."""
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.grid": True,
    "grid.color": GRID, "legend.frameon": False, "svg.hashsalt": "nicemu", "svg.fonttype": "none",
}  # fmt: skip
PROFILE, GROWTH = "performance_profile.svg", "performance_growth.svg"
Curve = list[tuple[float, float]]


def draw(results: Results, clock: Clock, folder: Path) -> list[str]:
    """Names of the pictures that the results have something for.

    :raises ConfigError: matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--docs: expected matplotlib for the pictures (pip install nicemu[experiment])") from None
    folder.mkdir(exist_ok=True)
    drawn: list[str] = []
    style: Any = {**matplotlib.rcParamsDefault, **STYLE}
    with matplotlib.rc_context(style):
        if results.profile:
            figure = Figure(figsize=(10, 3.6), layout="constrained")
            _flame(figure, results.profile)
            figure.savefig(folder / PROFILE, metadata={"Date": None})
            drawn.append(PROFILE)
        figure = Figure(figsize=(9, 6), layout="constrained")
        _growth(figure, results, clock)
        figure.savefig(folder / GROWTH, metadata={"Date": None})
    return [*drawn, GROWTH]


# Where the time goes -------------------------------------------------------------------------------------------------


def _flame(figure: Any, profile: Shares) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, sum(profile.values()))
    axes.set_ylim(0, 3)
    _bars(axes, profile, 0.0, 0, COLOURS)


def _bars(axes: Any, shares: Shares, left: float, level: int, colours: tuple[str, ...]) -> None:
    """A bar for each first frame, over it those of what it calls, widest first."""
    calls: dict[str, Shares] = defaultdict(dict)
    for frames, share in shares.items():
        first, _, rest = frames.partition(";")
        calls[first][rest] = share
    order = sorted(calls, key=lambda first: -sum(calls[first].values()))
    for number, first in enumerate(order):
        width = sum(calls[first].values())
        if width < SMALLEST:
            continue
        colour = colours[number % len(colours)]
        axes.barh(
            level + 0.5, width, 0.96, left, color=colour, edgecolor="white", linewidth=0.6, alpha=1 - 0.22 * level
        )
        _label(axes, f"{first.split('.')[-1]} {width:.0%}", left + width / 2, level + 0.5, width)
        _bars(axes, {rest: share for rest, share in calls[first].items() if rest}, left, level + 1, (colour,))
        left += width


def _label(axes: Any, text: str, x: float, y: float, width: float) -> None:
    """Along the bar if there is room, else across it, else none."""
    along = width > LETTER * len(text)
    if along or width > LINE:
        options = {"ha": "center", "va": "center", "fontsize": 6.5, "color": INK}
        axes.text(x, y, text if along else text[:24], rotation=0 if along else 90, **options)


# How cost grows ------------------------------------------------------------------------------------------------------


def _growth(figure: Any, results: Results, clock: Clock) -> None:
    charts = figure.subplots(2, 2)
    for axes, (title, unit, curves) in zip(charts.flat, growth(results, clock), strict=True):
        for number, (label, curve) in enumerate(curves.items()):
            if curve:
                axes.plot(*zip(*curve, strict=True), marker="osD^"[number % 4], color=COLOURS[number], label=label)
        axes.set(title=title, ylabel=unit, xscale="log", ylim=(0, None))
        if any(curves.values()) and len(curves) > 1:
            axes.legend(fontsize=7)


def growth(results: Results, clock: Clock) -> list[tuple[str, str, dict[str, Curve]]]:
    """(what grows, unit, curves by name) for message size, QPs, NICs and pages."""
    by_size = {}
    for operation, owner in itertools.product(verbs.OPERATIONS, ("arena", "program")):
        names = {f"RC {operation} {text}, MTU 4096, {owner}": size for size, text in verbs.SIZES.items()}
        by_size[f"{operation}, {owner}"] = _curve(results, clock, "GB/s", names)
    qps = {"RC WRITE 64 B, MTU 4096, arena": 1} | _numbered(results, r"RC WRITE 64 B, ([\d,]+) QPs")
    nics = _numbered(results, r"(\d+) NICs on a switch")
    pages = {name: number for number, name in ROUNDS.items()}
    return [
        ("message size, bytes", "GB/s", by_size),
        ("QPs, 64 B WRITEs", "us a message", {"": _cost(results, clock, "messages", qps)}),
        ("NICs on a switch, 4 KiB WRITEs", "us a packet", {"": _cost(results, clock, "packets", nics)}),
        ("pages that 4 KiB WRITEs go round", "us a packet", {"": _cost(results, clock, "packets", pages)}),
    ]


def _numbered(results: Results, pattern: str) -> dict[str, int]:
    found = ((row.name, re.fullmatch(pattern, row.name)) for row in results.rows)
    return {name: int(match.group(1).replace(",", "")) for name, match in found if match}


def _curve(results: Results, clock: Clock, unit: str, points: dict[str, int]) -> Curve:
    found = ((number, results.row(name)) for name, number in points.items())
    return [(number, median(row.readings, unit, clock)) for number, row in found if row]


def _cost(results: Results, clock: Clock, what: str, points: dict[str, int]) -> Curve:
    """Microseconds each."""
    unit = f"{what}/s"
    return [(number, 1e6 / rate) for number, rate in _curve(results, clock, unit, points)]
