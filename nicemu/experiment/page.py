"""`index.html`: one page that needs nothing else. Style and script are in it, pictures as data; it follows the
reader's light or dark scheme, and prints."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nicemu.experiment import summary
from nicemu.experiment.conduct import Outcome
from nicemu.experiment.judge import Verdict
from nicemu.experiment.schema import Plot
from nicemu.experiment.series import DISPLAY

ASSETS = Path(__file__).parent / "assets"
Pictures = Sequence[tuple[Plot, Path, bool]]
UNIT = re.compile(rf"(?<=\d )({'|'.join(DISPLAY)})\b|(?<=\()({'|'.join(DISPLAY)})(?=\))")
NUMBER = re.compile(r"(?<=\d) (?=(?:[nµm]?s|[KMGT]i?B)\b|%)")
KINDS = (
    ("fitted", "the model's numbers were chosen to meet it"),
    ("prediction", "nothing was chosen for it"),
    ("qualitative", "only the shape is claimed"),
)


def page(outcome: Outcome, notes: Iterable[str], pictures: Pictures, inputs: Path) -> str:
    """The whole page. ``inputs``: the folder with the exact inputs, which are shown at its end."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "sort.js"))
    parts = [*_head(outcome, notes), *_judged(outcome.verdicts), *_figures(pictures), *_metrics(outcome),
             *_files(outcome), *_inputs(inputs)]  # fmt: skip
    body = "\n".join(parts)
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_text(outcome.document.experiment.title)}</title>\n<style>\n{style}</style>\n</head>\n"
            f"<body>\n<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n")  # fmt: skip


def _text(text: str) -> str:
    """Escaped; units as they are written, on the line of their number."""
    text = UNIT.sub(lambda found: DISPLAY[found[0]], text)
    return html.escape(NUMBER.sub("\u00a0", text))


def _marked(text: str) -> str:
    """Notes are Markdown with at most one strong sentence."""
    return f"<strong>{_text(text.strip('*'))}</strong>" if text.startswith("**") else _text(text)


def _head(outcome: Outcome, notes: Iterable[str]) -> Iterator[str]:
    experiment = outcome.document.experiment
    failed = any(verdict.failed for verdict in outcome.verdicts)
    answer = summary.answer(outcome.document, outcome.measured, outcome.verdicts)
    yield f'<header>\n<p class="kicker">nicemu experiment <code>{_text(experiment.name)}</code></p>'
    yield f"<h1>{_text(experiment.title)}</h1>"
    yield f'<p class="question">{_text(experiment.question)}</p>'
    if answer:
        yield f'<p class="answer{" bad" if failed else ""}">{_text(answer)}</p>'
    yield f'<p class="note">{" ".join(map(_marked, notes))}</p>'
    if experiment.sources:
        yield '<ol class="sources">' + "".join(f"<li>{_text(each)}</li>" for each in experiment.sources) + "</ol>"
    yield "</header>"


def _judged(verdicts: Sequence[Verdict]) -> Iterator[str]:
    if not verdicts:
        return
    yield "<section>\n<h2>Expected and found</h2>"
    rows = [[*map(_text, row[:3]), f'<span class="kind">{row[3]}</span>', *map(_text, row[4:7]), _badge(verdict)]
            for row, verdict in zip(summary.judged(verdicts), verdicts, strict=True)]  # fmt: skip
    yield from _table(summary.JUDGED, rows, numbers=(5, 6))
    meanings = "; ".join(f"<em>{name}</em>: {meaning}" for name, meaning in KINDS)
    yield f'<p class="note">{meanings}. What is <em>shown</em> is compared and never a failure.</p>\n</section>'


def _badge(verdict: Verdict) -> str:
    if verdict.ok is None:
        return f'<span class="badge idle">{"shown" if verdict.n else "not run"}</span>'
    if verdict.expectation.gate:
        return '<span class="badge good">holds</span>' if verdict.ok else '<span class="badge bad">fails</span>'
    return f'<span class="badge idle">shown{"" if verdict.ok else ", differs"}</span>'


def _figures(pictures: Pictures) -> Iterator[str]:
    if not pictures:
        return
    yield "<section>\n<h2>Figures</h2>"
    for number, (plot, file, marked) in enumerate(pictures, 1):
        data = base64.b64encode(file.read_bytes()).decode()
        title = plot.title or plot.name
        yield (f'<figure><img alt="{_text(title)}" src="data:image/png;base64,{data}">'
               f"<figcaption><b>Figure {number}.</b> {_text(title)}.{_caption(plot, marked)}</figcaption>"
               "</figure>")  # fmt: skip
    yield "</section>"


def _caption(plot: Plot, marked: bool) -> str:
    """What belongs to every picture of its kind; ``marked``: expected values are in it."""
    if plot.kind == "stacked":
        return " Hatched bars are the published values."
    return " Diamonds are published or expected values with their tolerance." if marked else ""


def _metrics(outcome: Outcome) -> Iterator[str]:
    titles, rows = summary.metrics(outcome.document, outcome.measured)
    yield "<section>\n<h2>Metrics</h2>"
    yield from _table(titles, [[_text(cell) for cell in row] for row in rows], numbers=range(len(titles)))
    yield '<p class="note">A click on the head of a column sorts by it. N: observations of the point. All of them are'
    yield "in results.parquet, the counters of every run in runs.parquet.</p>"
    yield "</section>"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]) -> Iterator[str]:
    """Cells are HTML; columns of ``numbers`` are set flush right."""
    right = set(numbers)
    yield '<div class="wide"><table>\n<thead><tr>'
    yield "".join(f'<th{_class(i, right)}><button type="button">{_text(title)}</button></th>'
                  for i, title in enumerate(titles)) + "</tr></thead>\n<tbody>"  # fmt: skip
    for row in rows:
        yield "<tr>" + "".join(f"<td{_class(i, right)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
    yield "</tbody></table></div>"


def _class(column: int, right: set[int]) -> str:
    return ' class="number"' if column in right else ""


def _files(outcome: Outcome) -> Iterator[str]:
    if outcome.shown is None:
        return
    task, result = outcome.shown
    point = next((each.point for each in outcome.measured if each.point.number == task.point), None)
    yield "<section>\n<h2>The run that is shown</h2>"
    yield f"<p>{_text(str(point))}, seed {task.seed}, {result.virtual_ns / 1e6:,.3f} ms of virtual time.</p>\n<ul>"
    opens = {".pcapng": "packets, for Wireshark", ".pftrace": "events, for ui.perfetto.dev and nicemu why",
             ".json": "counters at its end, for nicemu stats"}  # fmt: skip
    for name in sorted(result.files):
        yield f'<li><a href="{name}">{name}</a>: {opens[Path(name).suffix]}</li>'
    yield "</ul>\n</section>"


def _inputs(folder: Path) -> Iterator[str]:
    yield "<section>\n<h2>Exact inputs</h2>"
    for file in sorted(folder.iterdir(), key=lambda file: (file.name != "experiment.yaml", file.name)):
        text = html.escape(file.read_text(encoding="utf-8"))
        yield f"<details><summary><code>{_text(file.name)}</code></summary><pre>{text}</pre></details>"
    yield "</section>"
