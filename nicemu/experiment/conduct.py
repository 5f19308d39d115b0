"""From an experiment file to its folder: what is missing is run, then everything is judged and written."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from nicemu.config import paths
from nicemu.config.errors import ConfigError
from nicemu.config.validate import validate
from nicemu.config.yaml_file import read_yaml
from nicemu.experiment import judge, pool, summary, sweep
from nicemu.experiment.measure import Measured, check_where, measure
from nicemu.experiment.schema import Experiment
from nicemu.experiment.script import EXIT_STATUS
from nicemu.experiment.store import Store
from nicemu.experiment.sweep import REPETITION, Document, Point
from nicemu.experiment.task import Result, Task, shown, tasks

FOLDER = "configs/experiments"


class Wish(NamedTuple):
    """What the command line asks for."""

    folder: Path
    seed: int | None = None
    processes: int | None = None
    scheduler: str = ""
    fresh: bool = False
    quick: bool = False
    only: Mapping[str, str] = MappingProxyType({})


class Failure(NamedTuple):
    """A run that failed."""

    point: Point
    task: Task
    error: str


class Outcome(NamedTuple):
    """What came of it."""

    document: Document
    measured: list[Measured]
    tasks: list[list[Task]]
    verdicts: list[judge.Verdict]
    failures: list[Failure]
    shown: tuple[Task, Result] | None


def load(name: str) -> Document:
    """The experiment in a file, or a shipped one by name. Raises ConfigError."""
    path = paths.find(name, FOLDER, ".yaml") or (Path(name) if Path(name).is_file() else None)
    if path is None:
        known = ", ".join(paths.shipped_names(FOLDER, ".yaml"))
        raise ConfigError(f"expected a YAML file that exists or a shipped experiment ({known}), given {name!r}")
    file = read_yaml(path)
    document = Document(validate(Experiment, file, path.parent), file, path.resolve())
    _check(document)
    return document


def _check(document: Document) -> None:
    """Names of axes are right wherever they stand. Raises ConfigError."""
    names = {axis.name: axis.labels for axis in sweep.axes(document)}
    for i, each in enumerate(document.experiment.expect):
        for place in (each.where, *(p.where for p in (each.less_than, each.ratio_to) if p is not None)):
            check_where(document, f"expect.{i}.where", place, names)
        if each.along and each.along not in names:
            raise document.wrong(f"expect.{i}.along", f"an axis ({', '.join(names)})", each.along)
    for i, plot in enumerate(document.experiment.plots):
        check_where(document, f"plots.{i}.where", plot.where, names)
        for field, axis in (("x", plot.x), ("by", plot.by)):
            if axis and axis not in names:
                raise document.wrong(f"plots.{i}.{field}", f"an axis ({', '.join(names)})", axis)
    for i, adjustment in enumerate(document.experiment.adjust):
        check_where(document, f"adjust.{i}.where", adjustment.where, names)
    for metric, where in summary.places(document.experiment.answer):
        if metric not in document.experiment.metrics:
            raise document.wrong("answer", f"metrics ({', '.join(document.experiment.metrics)})", metric)
        check_where(document, "answer", where, names)
    if document.experiment.show is not None:
        check_where(document, "show.where", document.experiment.show.where, names)


def plan(document: Document, wish: Wish) -> tuple[list[Point], list[Task], Task | None]:
    """The points, their runs, and the run that is shown. Raises ConfigError."""
    only = dict(wish.only)
    repetition = only.pop(REPETITION, None)
    points = list(sweep.chosen(document, sweep.points(document), only))
    seed = document.experiment.seed if wish.seed is None else wish.seed
    todo = [task for task in tasks(document, points, seed, wish.quick)
            if repetition is None or str(task.repetition) == repetition]  # fmt: skip
    if not todo:
        last = document.experiment.repeat - 1
        raise ConfigError(f"command line: field --only: expected {REPETITION} 0..{last}, given {repetition!r}")
    extra = shown(document, points, seed, wish.quick)
    return points, todo, extra and extra[1]


def conduct(document: Document, wish: Wish, said: Callable[[int, int], None]) -> Outcome:
    """Run what is missing and judge. ``said(done, of)`` hears of progress. Raises ConfigError, pool.WorkerLost."""
    document = _ungated(document) if wish.quick else document
    points, todo, extra = plan(document, wish)
    store = Store(wish.folder)
    store.open(wish.fresh)
    everything = [*todo, *([extra] if extra is not None else [])]
    wanted = {task.digest: task for task in everything if not store.has(task)}
    by_number = {point.number: point for point in points}
    failures = []
    done = len(everything) - len(wanted)
    said(done, len(everything))
    with contextlib.closing(_finished(list(wanted.values()), wish)) as finished:  # ends its processes at once
        for task, result in finished:
            if result.error and not _tolerated(document, result):
                failures.append(Failure(by_number[task.point], task, result.error))
            else:
                store.put(task, result)
            done += 1
            said(done, len(everything))
    failures.sort(key=lambda failure: (failure.task.point, failure.task.repetition))
    return _judged(document, points, todo, extra, store, failures)


def _ungated(document: Document) -> Document:
    """What --quick judges: a few iterations are no result that could fail."""
    shown = tuple(each.model_copy(update={"gate": False}) for each in document.experiment.expect)
    return document._replace(experiment=document.experiment.model_copy(update={"expect": shown}))


def _tolerated(document: Document, result: Result) -> bool:
    """A program's exit status is what the experiment looks at."""
    asked = any(metric.of == EXIT_STATUS for metric in document.experiment.metrics.values())
    return asked and EXIT_STATUS in result.counters


def _finished(wanted: list[Task], wish: Wish) -> Generator[tuple[Task, Result]]:
    if not wanted:
        return
    count = min(wish.processes or pool.cores(), len(wanted))
    if wish.scheduler:
        yield from pool.dask(wanted, wish.scheduler)
    elif count == 1:
        yield from pool.here(wanted)
    else:
        yield from pool.processes(wanted, count)


def _judged(document: Document, points: list[Point], todo: list[Task], extra: Task | None, store: Store,
            failures: list[Failure]) -> Outcome:  # fmt: skip
    there = [task for task in todo if store.has(task)]
    groups = {number: list(group) for number, group in itertools.groupby(there, lambda task: task.point)}
    measured = [measure(document, point, [store.get(task) for task in groups[point.number]])
                for point in points if point.number in groups]  # fmt: skip
    kept = (extra, store.get(extra)) if extra is not None and store.has(extra) else None
    done = [groups[each.point.number] for each in measured]
    return Outcome(document, measured, done, judge.judge(document, measured), failures, kept)
