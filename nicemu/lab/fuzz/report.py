"""What a fuzz run prints: rate and seed, how deep the inputs went, and how to replay a failure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from nicemu.lab.fuzz.campaign import Result
from nicemu.lab.fuzz.tables import ASYNCS_AT, KINDS, OPERATIONS, OUTCOMES, STATES, STATUSES_AT, Kind, Outcome
from nicemu.wire.opcode import RcOpcode

HEADS = {
    Outcome.MALFORMED: "malformed", Outcome.NOT_HEARD: "state/peer", Outcome.BAD_KEY: "P/Q_Key",
    Outcome.DROPPED: "dropped", Outcome.QUEUED: "queued", Outcome.ACCEPTED: "accepted", Outcome.REPLAYED: "replayed",
    Outcome.ACKED: "re-acked", Outcome.RNR: "RNR", Outcome.NAK_SEQUENCE: "NAK seq", Outcome.NAK_INVALID: "NAK inv",
    Outcome.NAK_ACCESS: "NAK acc", Outcome.NAK_OPERATIONAL: "NAK op", Outcome.IGNORED: "ignored",
    Outcome.HEEDED: "heeded", Outcome.DATA: "data in",
}  # fmt: skip
"""Columns. Requests end in dropped .. NAK op; responses in ignored, heeded (it moved the send queue), data in."""


def _table(title: str, names: list[str], cells: np.ndarray) -> Iterator[str]:
    """One line for each row that has anything in it."""
    width = max(len(name) for name in [*names, title])
    yield f"  {title:<{width}} " + " ".join(f"{head:>10}" for head in HEADS.values())
    for name, row in zip(names, cells, strict=True):
        if row.any():
            yield f"  {name:<{width}} " + " ".join(f"{int(n):>10,}" if n else f"{'.':>10}" for n in row)


def _operation(number: int) -> str:
    return RcOpcode(number).name if number in set(RcOpcode) else "undefined"


def coverage_lines(result: Result) -> Iterator[str]:
    """What became of the packets: by operation, by state, by type of QP."""
    cells = result.counts[:STATUSES_AT].reshape(KINDS, STATES, OPERATIONS, OUTCOMES)
    by_operation = cells.sum(axis=(0, 1))
    names = [_operation(n) for n in range(OPERATIONS)]
    undefined = [n for n, name in enumerate(names) if name == "undefined"]
    keep = [n for n in range(OPERATIONS) if n not in undefined]
    rows = np.vstack([by_operation[keep], by_operation[undefined].sum(axis=0)])
    yield from _table("operation", [*(names[n] for n in keep), "undefined"], rows)
    yield from _table("QP state", [state.name for state in QpState], cells.sum(axis=(0, 2)))
    yield from _table("QP type", [kind.name for kind in Kind], cells.sum(axis=(1, 2)))


def event_lines(result: Result) -> Iterator[str]:
    """Completion statuses and async events that came of it."""
    statuses = {WcStatus(n).name: int(result.counts[STATUSES_AT + n]) for n in range(len(WcStatus))}
    events = {AsyncEvent(n).name: int(result.counts[ASYNCS_AT + n]) for n in range(len(AsyncEvent))}
    yield "  completions: " + ", ".join(f"{name} {n:,}" for name, n in statuses.items() if n)
    yield "  async events: " + ", ".join(f"{name} {n:,}" for name, n in events.items() if n)


def summary_lines(result: Result) -> Iterator[str]:
    """The result of a run."""
    what = "packets" if result.mode == "wire" else "WQEs"
    rate = result.done / max(result.seconds, 1e-9)
    if result.mode == "wire":
        yield from coverage_lines(result)
    yield from event_lines(result)
    yield f"  device events run: {result.events:,}; history {result.history}"
    verdict = "FAILED" if result.failure else "no crash, stall, trap, stray write or sanitizer report"
    yield (
        f"fuzz {result.mode}: {result.done:,} {what} in {result.seconds:.1f} s, {rate:,.0f}/s, seed {result.seed}: "
        f"{verdict}"
    )


def failure_lines(result: Result) -> Iterator[str]:
    """What is wrong, at which input, how to see it again."""
    failure = result.failure
    if failure is None:
        return
    yield f"nicemu fuzz {result.mode}: seed {result.seed}, number {failure.number}: {failure.what}"
    if failure.where:
        yield f"  {failure.where}"
    count = failure.number - failure.first
    yield f"  replay: nicemu fuzz {result.mode} --seed {result.seed} --first {failure.first} --n {count}"
