"""`summary.md`: the question, what came out, and every expectation beside the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nicemu.experiment.judge import Verdict
from nicemu.experiment.measure import Measured, at, number
from nicemu.experiment.sweep import Document

JUDGED = ("expectation", "expected", "source", "kind", "model", "deviation", "N", "ok")
PLACE = re.compile(r"\{(\w+)((?: \w+=[^ }]+)*)\}")


def text(document: Document, measured: Sequence[Measured], verdicts: Sequence[Verdict], notes: Iterable[str]) -> str:
    """The whole file."""
    experiment = document.experiment
    lines = [f"# {experiment.title}", "", f"**Question.** {experiment.question}", ""]
    said = answer(document, measured, verdicts)
    lines += [f"**Answer.** {said}", ""] if said else []
    lines += [f"- Source: {source}" for source in experiment.sources]
    lines += ["", *notes, ""]
    if verdicts:
        lines += ["## Expected and found", "", *table(JUDGED, judged(verdicts)), ""]
        lines += [legend(), ""]
    lines += ["## Metrics", "", *table(*metrics(document, measured)), ""]
    return "\n".join(lines)


def answer(document: Document, measured: Sequence[Measured], verdicts: Sequence[Verdict]) -> str:
    """What came out: the file's own sentence with its numbers filled in, and how the expectations fared. Empty: the
    file has no sentence, and there was nothing to judge."""
    gates = [verdict for verdict in verdicts if verdict.expectation.gate and verdict.ok is not None]
    failed = [verdict for verdict in gates if verdict.failed]
    parts = [_sentence(document, measured)]
    if failed:
        worst = "; ".join(f"{verdict.what}: {verdict.model}, expected {verdict.expected}" for verdict in failed[:3])
        verb = "does" if len(failed) == 1 else "do"
        parts.append(f"{len(failed)} of {counted(len(gates), 'gated expectation')} {verb} not hold: {worst}.")
    elif gates:
        parts.append(f"All {len(gates)} gated expectations hold." if len(gates) > 1 else "The gated expectation holds.")
    idle = sum(verdict.ok is None and not verdict.n for verdict in verdicts)
    if idle:
        parts.append(f"{counted(idle, 'expectation')} could not be judged: points that were not run.")
    return " ".join(part for part in parts if part)


def counted(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def places(sentence: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics that an answer has numbers of, each with its point."""
    return (_place(found) for found in PLACE.finditer(sentence))


def _place(found: re.Match[str]) -> tuple[str, dict[str, str]]:
    return found[1], dict(word.split("=", 1) for word in found[2].split())


def _sentence(document: Document, measured: Sequence[Measured]) -> str:
    """The file's sentence, or which points it lacks: half of it would be another answer."""
    sentence = document.experiment.answer
    wheres = [where for metric, where in places(sentence) if _value(measured, metric, where) is None]
    lacking = dict.fromkeys(" ".join(f"{name}={value}" for name, value in where.items()) or "the only point"
                            for where in wheres)  # fmt: skip
    if lacking:
        return f"The answer is left out: it needs what was not observed here, at {'; '.join(lacking)}."
    return PLACE.sub(lambda found: number(_value(measured, *_place(found))), sentence).strip()


def _value(measured: Sequence[Measured], metric: str, where: Mapping[str, str]) -> float | None:
    found = at(measured, where)
    return found[0].values[metric] if found else None


def judged(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """The rows of the first table."""
    marks = {True: "yes", False: "no", None: "-"}
    return [(each.what, each.expected, each.expectation.source, each.expectation.kind, each.model, each.deviation,
             f"{each.n:,}" if each.n else "",
             marks[each.ok] if each.expectation.gate or each.ok is None else f"({marks[each.ok]})")
            for each in verdicts]  # fmt: skip


def legend() -> str:
    """How to read the first table."""
    return ("*fitted*: the model's numbers were chosen to meet it. *prediction*: nothing was chosen for it. "
            "*qualitative*: only the shape is claimed. An answer in parentheses is shown and not gated.")  # fmt: skip


def metrics(document: Document, measured: Sequence[Measured]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows of the second table: points by metrics."""
    experiment = document.experiment
    axes = list(measured[0].point.labels) if measured else []
    titles = [f"{metric.title or name}{f' ({metric.unit})' if metric.unit else ''}"
              for name, metric in experiment.metrics.items()]  # fmt: skip
    rows = [(*(str(each.point.labels[axis]) for axis in axes), *(number(each.values[name]) for name in each.values),
             f"{max(each.counts.values(), default=0):,}") for each in measured]  # fmt: skip
    return (*axes, *titles, "N"), rows


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    marked = [[cell.replace("|", "\\|") for cell in row] for row in (titles, *rows)]
    rule = ["---"] * len(titles)
    return [f"| {' | '.join(row)} |" for row in (marked[0], rule, *marked[1:])]
