"""What a whole event log says about its work requests: top causes, the slowest, and known patterns.

Streams: sums by cause, the N slowest requests, and what each finding counts; nothing grows with the log.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nicemu.observe.causes import Interval
from nicemu.observe.findings import Findings
from nicemu.observe.send_queues import WorkRequest
from nicemu.observe.trace_reader import Event
from nicemu.observe.tracker import Tracker
from nicemu.observe.work_requests import requests


@dataclass(slots=True)
class Total:
    """Time by one cause over all requests, and how many of them it concerns."""

    ns: int = 0
    requests: int = 0


@dataclass(slots=True)
class Analysis:
    """The result. ``slowest``: requests, slowest first; ``asked``: the one that was asked for."""

    slowest: list[WorkRequest] = field(default_factory=list)
    asked: WorkRequest | None = None
    causes: dict[str, Total] = field(default_factory=dict)
    requests: int = 0
    unfinished: int = 0
    ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    faults: int = 0
    findings: list[str] = field(default_factory=list)

    def top(self) -> list[tuple[str, Total]]:
        """Causes by time, the largest first; equal ones by name."""
        return sorted(self.causes.items(), key=lambda item: (-item[1].ns, item[0]))


def analyse(events: Iterable[Event], keep: int = 5, asked: Asked | None = None) -> Analysis:
    """Follow every send work request of a log. ``keep``: how many of the slowest to hand out with their paths."""
    tracker, found, findings = Tracker(), Analysis(), Findings()
    slowest: list[tuple[int, int, WorkRequest]] = []
    first: int | None = None
    for number, request in enumerate(requests(events, tracker)):
        first = request.posted if first is None else min(first, request.posted)
        _count(found, request)
        findings.take(request)
        if asked is not None and asked.means(request):
            found.asked = request
        heapq.heappush(slowest, (request.latency_ns, -number, request))
        if len(slowest) > keep:
            heapq.heappop(slowest)
    found.slowest = [request for *_, request in sorted(slowest, key=lambda item: (-item[0], -item[1]))]
    found.first_ns, found.last_ns, found.faults = first or 0, tracker.now, tracker.faults.count
    found.findings = list(findings.texts(tracker, found.ns))
    return found


def _count(found: Analysis, request: WorkRequest) -> None:
    found.requests += 1
    found.unfinished += request.end is None
    for cause in {piece.cause for piece in request.path}:
        found.causes.setdefault(cause, Total()).requests += 1
    for piece in request.path:
        found.causes[piece.cause].ns += piece.ns
        found.ns += piece.ns


@dataclass(frozen=True, slots=True)
class Asked:
    """A work request as people name it. ``nic`` None: whichever has that QP; the last one that fits is meant."""

    nic: int | None
    qpn: int
    index: int

    def means(self, request: WorkRequest) -> bool:
        """It is this one."""
        return request.index == self.index and request.qpn == self.qpn and self.nic in (None, request.nic)


def parse(text: str) -> Asked | None:
    """``5:12``, ``QP 5 #12``, ``nic1 QP 5 #12``; None if it is no such name."""
    found = re.fullmatch(r"(?:nic(\d+)[\s/:]+)?(?:QP\s*)?(\d+)\s*[:#\s]\s*#?(\d+)", text.strip(), re.IGNORECASE)
    if found is None:
        return None
    nic, qpn, index = found.groups()
    return Asked(None if nic is None else int(nic), int(qpn), int(index))


def shares(path: list[Interval]) -> list[tuple[str, int]]:
    """Nanoseconds by cause, the largest first."""
    sums: dict[str, int] = {}
    for piece in path:
        sums[piece.cause] = sums.get(piece.cause, 0) + piece.ns
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


def as_dict(request: WorkRequest) -> dict[str, Any]:
    """A request and its path, for JSON. Times in ns of virtual time."""
    return {
        "nic": request.nic, "qpn": request.qpn, "index": request.index, "opcode": request.opcode,
        "bytes": request.bytes, "status": request.status, "posted_ns": request.posted, "completed_ns": request.end,
        "latency_ns": request.latency_ns, "rnr_waits": request.rnr_waits, "timeouts": request.timeouts,
        "packets_sent_again": request.resent,
        "path": [{"start_ns": piece.start, "ns": piece.ns, "cause": str(piece.cause), "detail": piece.detail}
                 for piece in request.path],
    }  # fmt: skip


def analysis_dict(found: Analysis) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "requests": found.requests, "unfinished": found.unfinished, "faults": found.faults, "ns": found.ns,
        "findings": found.findings,
        "causes": [{"cause": str(cause), "ns": total.ns, "requests": total.requests} for cause, total in found.top()],
        "slowest": [as_dict(request) for request in found.slowest],
    }  # fmt: skip
