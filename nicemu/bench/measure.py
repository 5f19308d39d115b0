"""Taking readings: a case and its limits in turn, so that what else the machine does hits both."""

from __future__ import annotations

import gc
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

Counts = dict[str, float]
"""What one batch did: ``messages``, ``packets``, ``bytes``, ``events``, ``virtual_ns``, ``pages``, ``calls``."""


class Watch:
    """A stopwatch: wall-clock and CPU seconds (of this process and of children that have ended) inside ``with``."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> Watch:
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter()
        self.wall += wall - self._wall
        self.cpu += _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


Batch = Callable[[Watch], Counts]
"""Does some work, the part that counts inside ``with watch``, and says how much it was."""
Opener = Callable[[], AbstractContextManager[Batch]]
"""Makes what the batches need, and takes it down again."""


class Absent(Exception):
    """A limit or a peer that cannot be had here; the text says why."""


class Reading(NamedTuple):
    """One run: its seconds and what was done in them."""

    wall: float
    cpu: float
    done: Counts


@dataclass(frozen=True)
class Limit:
    """What a case is compared with, in a unit that both have."""

    name: str
    unit: str
    open: Opener


@dataclass(frozen=True)
class Case:
    """One row to be. ``unit`` is what it is about, ``also`` what else is shown: names of ``units.UNITS``. The first of
    the limits is what it is held against from run to run."""

    name: str
    topic: str
    unit: str
    open: Opener
    limits: tuple[Limit, ...] = ()
    also: tuple[str, ...] = ()
    note: str = ""
    seconds: float | None = None
    """How long a run is; None: as the effort says, 0: one batch."""
    runs: int | None = None
    """Runs at most."""
    short: bool = False
    """Part of the short form."""


@dataclass(frozen=True)
class Effort:
    """How many runs, each so many seconds of wall-clock time at least."""

    runs: int
    seconds: float


FULL, SHORT = Effort(5, 0.2), Effort(7, 0.04)


@dataclass
class Against:
    """Readings of a limit; ``absent``: why there are none."""

    name: str
    unit: str
    readings: list[Reading] = field(default_factory=list)
    absent: str = ""


@dataclass
class Row:
    """A case measured. ``absent``: why it cannot be had here. ``failed``: what went wrong, which should not."""

    name: str
    topic: str
    unit: str
    also: tuple[str, ...]
    note: str
    readings: list[Reading] = field(default_factory=list)
    limits: list[Against] = field(default_factory=list)
    absent: str = ""
    failed: str = ""


def measure(case: Case, effort: Effort) -> Row:
    """Readings of a case, one of each of its limits after each of them. The first batch of everything is not counted;
    garbage is collected between readings only."""
    row = Row(case.name, case.topic, case.unit, case.also, case.note)
    row.limits = [Against(limit.name, limit.unit) for limit in case.limits]
    seconds = effort.seconds if case.seconds is None else case.seconds
    openers: list[tuple[Row | Against, Opener]] = [(row, case.open)]
    openers += zip(row.limits, (limit.open for limit in case.limits), strict=True)
    takers: list[tuple[Row | Against, Callable[[], Reading]]] = []
    with ExitStack() as stack:
        for what, opener in openers:
            with _noting_absence(what):
                takers.append((what, stack.enter_context(_taker(opener, seconds))))
            if row.absent:
                return row
        for _ in range(min(effort.runs, case.runs or effort.runs)):
            for what, take in takers:
                with _noting_absence(what):
                    what.readings.append(take())
    return row


@contextmanager
def _noting_absence(what: Row | Against) -> Iterator[None]:
    try:
        yield
    except Absent as error:
        what.absent = str(error)
        what.readings.clear()


@contextmanager
def _taker(opener: Opener, seconds: float) -> Iterator[Callable[[], Reading]]:
    with opener() as batch:
        if seconds:
            batch(Watch())
        yield lambda: _reading(batch, seconds)


def _reading(batch: Batch, seconds: float) -> Reading:
    watch, done = Watch(), Counter[str]()
    gc.collect()
    gc.disable()
    try:
        while True:
            done.update(batch(watch))
            if watch.wall >= seconds:
                return Reading(watch.wall, watch.cpu, dict(done))
    finally:
        gc.enable()
