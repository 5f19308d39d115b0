"""The text of ``nicemu why``: lines with an optional bar, for a terminal or a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from nicemu.observe.durations import duration, size
from nicemu.observe.send_queues import WorkRequest
from nicemu.observe.why import Analysis, shares

BAR = 24
WIDTH = 110
NOTABLE, CAUSES_IN_A_LINE, WORTH_A_LINE = 0.05, 3, 0.002


class Line(NamedTuple):
    """``share`` (0..1) is drawn as a bar between ``text`` and ``rest``; None: no bar. ``is_title``: stands out."""

    text: str
    share: float | None = None
    rest: str = ""
    is_title: bool = False


def report(found: Analysis, trace: str) -> Iterator[Line]:
    """The whole run."""
    run = duration(found.last_ns - found.first_ns)
    yield Line(f"{trace}: {found.requests} send work requests in {run} of virtual time, {found.faults} page faults")
    if not found.requests:
        yield Line("Nothing was posted to a send queue.")
        return
    if found.findings:
        yield from (Line(""), Line("Findings", is_title=True))
        for text in found.findings:
            yield from _wrapped(text, "    ", "  - ")
    yield from (Line(""), Line(f"Top causes (of {duration(found.ns)}, the sum over all work requests)", is_title=True))
    yield from _causes(found)
    yield from (Line(""), Line("Slowest work requests", is_title=True))
    for request in found.slowest:
        yield Line(f"  {title(request)}")
        yield from _wrapped(headline(request), "      ")


def _causes(found: Analysis) -> Iterator[Line]:
    total_ns = found.ns or 1
    small = [total.ns for _, total in found.top() if total.ns < WORTH_A_LINE * total_ns]
    for cause, total in found.top():
        if total.ns >= WORTH_A_LINE * total_ns:
            rest = f"{duration(total.ns):>9}  {total.requests:>6} WR  {cause}"
            yield Line(f"  {total.ns / total_ns:>6.1%}", total.ns / total_ns, rest)
    if small:
        share = sum(small) / total_ns
        yield Line(f"  {share:>6.1%}", share, f"{duration(sum(small)):>9}             {len(small)} other causes")


def path(request: WorkRequest) -> Iterator[Line]:
    """One request: its critical path."""
    yield Line(title(request), is_title=True)
    yield from _wrapped(headline(request), "  ")
    yield Line("")
    yield Line(f"  {'start':>12} {'took':>9} {'share':>6}")
    total = sum(piece.ns for piece in request.path) or 1
    detail = ""
    for piece in request.path:
        share = piece.ns / total
        cause = piece.cause if piece.detail in ("", detail) else f"{piece.cause} ({piece.detail})"
        detail = piece.detail or detail
        yield Line(f"  {piece.start / 1000:>9.3f} us {duration(piece.ns):>9} {share:>6.1%}", share, cause)


def title(request: WorkRequest) -> str:
    """``nic0 QP 5 #12  RDMA_READ 4 KiB  873.2 us, posted at 87.450 us, SUCCESS``."""
    end = f"{duration(request.latency_ns)}, " if request.end is not None else "never completed, "
    status = f", {request.status}" if request.status not in ("", "SUCCESS") else ""
    what = f"  {request.opcode} {size(request.bytes)}" if request.opcode else ""
    return f"{request.name}{what}  {end}posted at {duration(request.posted)}{status}"


def headline(request: WorkRequest) -> str:
    """``59 % waiting for the page-fault interrupt (firmware), 35 % resume (firmware)``."""
    total = sum(piece.ns for piece in request.path) or 1
    large = [(cause, ns) for cause, ns in shares(request.path) if ns >= NOTABLE * total]
    return ", ".join(f"{100 * ns / total:.0f} % {cause}" for cause, ns in large[:CAUSES_IN_A_LINE])


def plain(line: Line) -> str:
    """For a pipe."""
    if line.share is None:
        return line.text
    return f"{line.text}  {bar(line.share, '#'):<{BAR}}  {line.rest}".rstrip()


def bar(share: float, mark: str) -> str:
    """:data:`BAR` marks for all."""
    return mark * round(BAR * share)


def _wrapped(text: str, indent: str, first: str | None = None) -> Iterator[Line]:
    lines = textwrap.wrap(text, WIDTH, initial_indent=first or indent, subsequent_indent=indent)
    return (Line(line) for line in lines)
