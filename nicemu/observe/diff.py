"""Two runs compared: the first event that differs, the counters, and how long work requests took.

Traces are read side by side and never held; of each request only its latency is kept.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from nicemu.observe.trace_reader import Event
from nicemu.observe.work_requests import requests

CONTEXT = 3
"""Events shown before the first difference, and of each side from there on."""


TIMES = ("p50", "p95", "p99", "max")


class Divergence(NamedTuple):
    """``number``: of the first event that differs, from 1; ``before``: what both had; then what each has."""

    number: int
    before: list[Event]
    left: list[Event]
    right: list[Event]


class Changed(NamedTuple):
    """A counter with two values."""

    name: str
    left: int
    right: int

    @property
    def ratio(self) -> float | None:
        """Right over left; None over nothing."""
        return self.right / self.left if self.left else None


class Latencies(NamedTuple):
    """Latencies of the ``n`` completed work requests with one opcode, ns."""

    n: int
    p50: int
    p95: int
    p99: int
    max: int


@dataclass(slots=True)
class Difference:
    """``left`` and ``right``: latencies by opcode."""

    runs: dict[str, str] = field(default_factory=dict)
    """What each run was given, for people."""
    divergence: Divergence | None = None
    counters: list[Changed] = field(default_factory=list)
    left: dict[str, Latencies] = field(default_factory=dict)
    right: dict[str, Latencies] = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """One history."""
        return self.divergence is None and not self.counters


def first_difference(left: Iterable[Event], right: Iterable[Event]) -> Divergence | None:
    """Where two event logs part, with some context."""
    one, other = _numbered(left), _numbered(right)
    before: deque[Event] = deque(maxlen=CONTEXT)
    for number, (a, b) in enumerate(zip_longest(one, other), 1):
        if a != b:
            return Divergence(number, list(before), _from(a, one), _from(b, other))
        before.append(a)
    return None


def _numbered(events: Iterable[Event]) -> Iterator[Event]:
    """Host threads by the order in which they appear: a thread that says nothing does not shift the others."""
    numbers: dict[int | str, int] = {0: 0}
    for event in events:
        thread = event.fields.get("thread")
        if thread is not None:
            number = numbers.setdefault(thread, len(numbers))
            event = event._replace(fields={**event.fields, "thread": number})
        yield event


def _from(first: Event | None, rest: Iterator[Event]) -> list[Event]:
    return [] if first is None else [first, *islice(rest, CONTEXT - 1)]


def changed(left: Mapping[str, int], right: Mapping[str, int]) -> list[Changed]:
    """Counters whose values differ, in the order of the left run; one that a run does not have is 0 there."""
    names = dict.fromkeys([*left, *right])
    pairs = (Changed(name, left.get(name, 0), right.get(name, 0)) for name in names)
    return [pair for pair in pairs if pair.left != pair.right]


def latencies(events: Iterable[Event]) -> dict[str, Latencies]:
    """How long the work requests took that completed well, by opcode."""
    found: dict[str, array[int]] = {}
    for request in requests(events):
        if request.end is not None and request.status == "SUCCESS":
            found.setdefault(request.opcode, array("q")).append(request.latency_ns)
    return {opcode: _distribution(sorted(values)) for opcode, values in sorted(found.items())}


def _distribution(values: list[int]) -> Latencies:
    p50, p95, p99 = (_percentile(values, share) for share in (50, 95, 99))
    return Latencies(len(values), p50, p95, p99, values[-1])


def _percentile(values: list[int], share: int) -> int:
    """By nearest rank."""
    return values[max(0, -(-len(values) * share // 100) - 1)]


def as_dict(found: Difference) -> dict[str, Any]:
    """For JSON."""
    parted = found.divergence
    return {
        "same": found.is_same,
        "first_difference": None if parted is None else {
            "event": parted.number, **{side: [event._asdict() for event in getattr(parted, side)]
                                       for side in ("before", "left", "right")}},
        "counters": [{"name": each.name, "left": each.left, "right": each.right} for each in found.counters],
        "latencies_ns": {side: {opcode: each._asdict() for opcode, each in getattr(found, side).items()}
                         for side in ("left", "right")},
    }  # fmt: skip


def given(snapshot: Mapping[str, Any]) -> str:
    """``seed 1, discipline v6.12, firmware default``."""
    return ", ".join(f"{name} {snapshot[name]}" for name in ("seed", "discipline", "firmware"))


def text(found: Difference) -> Iterator[str]:
    """For people."""
    yield from (f"{side + ':':<7} {run}" for side, run in found.runs.items())
    if found.is_same:
        yield "The same history."
    if found.divergence is not None:
        yield from _divergence(found.divergence)
    if found.counters:
        yield from ("", f"{'Counters that differ':<48} {'left':>14} {'right':>14} {'ratio':>8}")
        for each in found.counters:
            ratio = "" if each.ratio is None else f"{each.ratio:.3g}"
            yield f"  {each.name:<46} {each.left:>14} {each.right:>14} {ratio:>8}".rstrip()
    if found.left or found.right:
        yield from ("", f"{'Latency of work requests, us':<48} {'N':>8}" + "".join(f" {name:>10}" for name in TIMES))
        for opcode in sorted(found.left.keys() | found.right.keys()):
            for side, values in (("left", found.left.get(opcode)), ("right", found.right.get(opcode))):
                yield _latencies(opcode if side == "left" else "", side, values)


def _divergence(parted: Divergence) -> Iterator[str]:
    yield f"First difference: event {parted.number}"
    yield from (f"    {line(event)}" for event in parted.before)
    for mark, events in (("<", parted.left), (">", parted.right)):
        yield from (f"  {mark} {line(event)}" for event in events)
        if not events:
            yield f"  {mark} (the trace ends)"


def _latencies(opcode: str, side: str, values: Latencies | None) -> str:
    if values is None:
        return f"  {opcode:<38} {side:<7} {'-':>8}"
    times = " ".join(f"{ns / 1000:>10.3f}" for ns in values[1:])
    return f"  {opcode:<38} {side:<7} {values.n:>8} {times}"


def line(event: Event) -> str:
    """One event as the text log has it."""
    fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
    return f"{event.time:>12} {event.who} {event.name} {fields}"
