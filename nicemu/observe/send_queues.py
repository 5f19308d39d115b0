"""Send queues as an event log shows them: the work requests of each, and what holds the queue as a whole.

A request's own marks say what it did itself (fetched, sent, on the wire, executed, answered). A ``Hold`` is
what stops the queue from some request on: a page fault here or at the peer, an RNR wait. ``critical_path`` lays the
second over the first.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from enum import IntEnum

from nicemu.observe.causes import Cause, Interval, Marks
from nicemu.observe.critical_path import Hold

Key = tuple[int, int]
"""NIC, QP."""
PSN_BITS = 24


class At(IntEnum):
    """Where a request is."""

    POSTED, FETCHED, SENDING, FLIGHT, PEER, ANSWERING, LOST, REWOUND, ANSWERED = range(9)


SINCE = {
    At.POSTED: Cause.QUEUE, At.FETCHED: Cause.SEND, At.SENDING: Cause.SEND, At.FLIGHT: Cause.WIRE,
    At.PEER: Cause.RESPONDER, At.ANSWERING: Cause.ANSWER, At.LOST: Cause.NAK, At.REWOUND: Cause.AGAIN,
    At.ANSWERED: Cause.COMPLETE,
}  # fmt: skip
"""What the time since the last mark was, if the next event does not say otherwise."""


class WorkRequest:
    """One send work request, from its post to its completion."""

    __slots__ = ("answer_psn", "arrived", "at", "behind", "bytes", "drops", "end", "first", "held", "index", "last",
                 "marks", "miss_ns", "naks", "nic", "opcode", "path", "qpn", "resent", "rnr_waits", "signaled",
                 "status", "timeouts")  # fmt: skip

    def __init__(self, key: Key, index: int, time: int) -> None:
        self.nic, self.qpn = key
        self.index, self.marks, self.at = index, Marks(time), At.POSTED
        self.opcode, self.bytes = "", 0
        self.first = self.last = 0
        """PSNs, counted on without wrapping."""
        self.held: Cause | None = None
        self.miss_ns = 0
        self.arrived: int | None = None
        """When its last packet reached the peer, and was not dropped."""
        self.drops = self.timeouts = self.rnr_waits = self.naks = self.resent = 0
        self.behind: tuple[int, int] | None = None
        """Dropped because an earlier request was refused: (when, number of that one)."""
        self.end: int | None = None
        self.status, self.signaled = "", 0
        self.path: list[Interval] = []

    @property
    def posted(self) -> int:
        """When the program rang the doorbell for it, ns."""
        return self.marks.start

    @property
    def latency_ns(self) -> int:
        """From post to completion; 0 if it never completed."""
        return self.end - self.posted if self.end is not None else 0

    @property
    def name(self) -> str:
        """``nic0 QP 5 #12``, as ``nicemu why`` takes it back."""
        return f"nic{self.nic} QP {self.qpn} #{self.index}"

    @property
    def is_sent(self) -> bool:
        """Packets of it are out, and the answer has not come."""
        return At.SENDING <= self.at <= At.REWOUND

    def mark(self, time: int, cause: str | None = None, detail: str = "") -> None:
        """Up to ``time`` it was ``cause``, by default what its state says, after the IOTLB misses on the way."""
        if self.miss_ns:
            self.marks.mark(min(time, self.marks.last + self.miss_ns), Cause.TRANSLATE)
            self.miss_ns = 0
        self.marks.mark(time, cause or SINCE[self.at], detail)


class SendQueue:
    """The send queue of one QP."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.producer = 0
        self.requests: dict[int, WorkRequest] = {}
        """All that are posted and not completed, oldest first."""
        self.fetched: list[WorkRequest] = []
        """Those of them that have PSNs, in order."""
        self.holds: list[Hold] = []
        self.reference = 0
        """A PSN near those in use, counted on without wrapping."""
        self.busy: tuple[int, int] = (0, -1)
        """When it last sent or might not send, and for which request."""
        self.stopped = False
        """It may not go on: SQ_HELD, until the next packet."""
        self.context_ns = 0
        self.rate_kbps = 0
        """What congestion control allows; 0: it has not said."""
        self.last_packet: tuple[int, int] = (0, 0)
        """When the last one left, and how long it was on the wire, ns."""
        self.refused: tuple[int, int] | None = None
        """The responder refuses from this request on: (since when, number)."""
        self.last_done = 0

    def post(self, producer: int, time: int) -> None:
        """The program rang for everything below ``producer``."""
        for index in range(max(self.producer, producer - (1 << 15)), producer):
            self.requests[index] = WorkRequest(self.key, index, time)
        self.producer = max(self.producer, producer)

    def absolute(self, psn: int) -> int:
        """A PSN without wrapping."""
        half = 1 << (PSN_BITS - 1)
        return self.reference + ((psn - self.reference + half) % (1 << PSN_BITS)) - half

    def at_psn(self, psn: int) -> WorkRequest | None:
        """The outstanding request that a PSN belongs to."""
        found = self.absolute(psn)
        i = bisect.bisect_left(self.fetched, found, key=lambda each: each.last)
        if i == len(self.fetched) or self.fetched[i].first > found:
            return None
        return self.fetched[i]

    def up_to(self, psn: int) -> Iterator[WorkRequest]:
        """Outstanding requests whose last PSN is not behind ``psn``."""
        found = self.absolute(psn)
        for each in self.fetched:
            if each.last > found:
                return
            yield each

    def since(self, psn: int) -> Iterator[WorkRequest]:
        """Outstanding requests that ``psn`` or a later one belongs to."""
        found = self.absolute(psn)
        i = bisect.bisect_left(self.fetched, found, key=lambda each: each.last)
        return iter(self.fetched[i:])

    @property
    def executing(self) -> int:
        """The request that the responder has before it: it takes them in order."""
        for each in self.fetched:
            is_read_going_on = each.at == At.ANSWERING and each.opcode == "RDMA_READ"
            if is_read_going_on or each.at not in (At.ANSWERING, At.ANSWERED):
                return each.index
        return next(iter(self.requests), 0)

    def fetch(self, request: WorkRequest, first: int, last: int) -> None:
        """It has its PSNs."""
        if not self.fetched and not self.reference:
            self.reference = first
        request.first, request.last = self.absolute(first), self.absolute(last)
        self.reference = request.last
        if request.last >= request.first:
            self.fetched.append(request)
        request.at = At.FETCHED

    def complete(self, index: int, time: int) -> WorkRequest | None:
        """It retired or was flushed."""
        request = self.requests.pop(index, None)
        if request is None:
            return None
        if request in self.fetched[:1]:
            del self.fetched[0]
        elif request in self.fetched:
            self.fetched.remove(request)
        self.last_done = time
        return request

    def forget(self) -> None:
        """Drop the holds that ended before the oldest outstanding request was posted."""
        oldest = next(iter(self.requests.values()), None)
        self.holds = [hold for hold in self.holds
                      if hold.end is None or (oldest is not None and hold.end > oldest.posted)]  # fmt: skip
