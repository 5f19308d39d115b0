"""The critical path of a work request: its own marks, and over them what held its whole queue.

Every nanosecond from post to completion has one cause. Where several would do, the one that decides wins: a page
fault of the requester (its queue stands still), then a page fault of the responder (what arrives is refused), then an
RNR wait, then what the request did itself. An RNR wait is explained by what the receiver lacked: a page (the fault's
stages, on the other NIC), or a receive; what is left of the timer when that is there is ``TIMER_LONGER``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nicemu.observe.causes import Cause, Interval, Marks, compact, fault_cause
from nicemu.observe.page_faults import PageFault

if TYPE_CHECKING:
    from nicemu.observe.send_queues import WorkRequest


class Hold:
    """Something that holds every request of a queue from number ``index`` on."""

    __slots__ = ("end", "fault", "index", "is_rnr", "posted", "start")

    def __init__(self, start: int, index: int, fault: PageFault | None, is_rnr: bool = False) -> None:
        self.start, self.index, self.is_rnr = start, index, is_rnr
        self.fault = fault
        """The page fault that holds; of an RNR wait the one that was its reason, None: no receive was posted."""
        self.end: int | None = None
        self.posted: int | None = None
        """RNR wait for a receive: when one was posted."""

    @property
    def rank(self) -> int:
        """Which of several holds decides: the lowest."""
        if self.is_rnr:
            return 2
        return 0 if self.fault is not None and self.fault.at_requester else 1

    def span(self, request: WorkRequest, until: int) -> tuple[int, int]:
        """The part of it that ``request`` waited for; what the responder has accepted no longer waits for it."""
        end = until if self.end is None else min(self.end, until)
        if self.rank and request.arrived is not None and self.start < request.arrived:
            end = min(end, request.arrived)
        return max(self.start, request.posted), end

    def intervals(self, until: int) -> Iterator[Interval]:
        """What it was, from its start to its end."""
        end = until if self.end is None else self.end
        if not self.is_rnr and self.fault is not None:
            side = "requester" if self.fault.at_requester else "responder"
            for start, stop, stage, _ in self.fault.stages(end):
                yield Interval(start, stop, fault_cause(side, stage), str(self.fault))
            return
        ready = self.posted if self.fault is None else self.fault.end
        ready = end if ready is None else min(max(ready, self.start), end)
        yield Interval(self.start, ready, Cause.NOT_READY)
        yield Interval(ready, end, Cause.TIMER_LONGER)


def path_of(request: WorkRequest, holds: list[Hold], until: int) -> list[Interval]:
    """Contiguous intervals from post to completion; of an open request to ``until``."""
    end = request.end if request.end is not None else until
    own = _covered(request.marks, end)
    over = [hold for hold in holds if hold.index <= request.index]
    for hold in sorted(over, key=lambda each: -each.rank):  # the one that decides is laid on top
        start, stop = hold.span(request, end)
        if stop > start:
            own = _overlaid(own, list(_clipped(hold.intervals(end), start, stop)))
    return compact(own)


def _covered(marks: Marks, end: int) -> list[Interval]:
    """The request's own path; what nothing explains is said to be so."""
    own = list(_clipped(iter(marks.intervals()), marks.start, end))
    last = own[-1].end if own else marks.start
    return [*own, Interval(last, end, Cause.UNKNOWN)] if last < end else own


def _clipped(intervals: Iterator[Interval], start: int, end: int) -> Iterator[Interval]:
    for piece in intervals:
        first, last = max(piece.start, start), min(piece.end, end)
        if first < last:
            yield piece._replace(start=first, end=last)


def _overlaid(below: list[Interval], above: list[Interval]) -> list[Interval]:
    """``above`` where it is, ``below`` elsewhere; the doorbell's own time is nobody else's."""
    found: list[Interval] = []
    for piece in below:
        if piece.cause == Cause.POST:
            found.append(piece)
            continue
        at = piece.start
        for over in _clipped(iter(above), piece.start, piece.end):
            if at < over.start:
                found.append(piece._replace(start=at, end=over.start))
            found.append(over)
            at = over.end
        if at < piece.end:
            found.append(piece._replace(start=at))
    return found
