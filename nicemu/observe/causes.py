"""What a work request can wait for, in words: the causes of ``nicemu why``.

A path is a list of intervals that follow each other without a gap; :class:`Marks` builds one while events stream by.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from typing import NamedTuple


class Cause(StrEnum):
    """Causes in the order of a request's life. The value is what people read."""

    POST = "doorbell on its way to the NIC"
    CONTEXT = "QP context fetched: not in the NIC's cache"
    FETCH = "WQE fetched"
    QUEUE = "waits behind earlier work requests"
    READS = "waits: as many READs as max_rd_atomic allows are outstanding"
    WINDOW = "waits: as many packets as the window allows are unacknowledged"
    CREDITS = "waits: the peer gave no credit, it has no receive posted"
    FENCE = "waits: fence behind READs and atomics"
    TRANSLATE = "IOTLB miss"
    SEND = "gathers and sends its packets"
    AGAIN = "sends its packets again"
    PACED = "paced: congestion control allows no higher rate"
    LINK = "waits for the link to be free"
    WIRE = "request on the wire"
    RESPONDER = "responder executes it"
    TOGETHER = "acknowledged together with a later request"
    ANSWER = "answer (acknowledgement or data) on the wire"
    NOT_READY = "RNR wait: the receiver had no receive posted"
    TIMER_LONGER = "RNR timer runs on although the receiver is ready"
    NAK = "lost: until the requester heard of it"
    ACK_TIMER = "lost: until the ACK timer ran out"
    ORDER = "waits for completions of earlier work requests"
    COMPLETE = "data and CQE written"
    UNKNOWN = "nothing in the trace says why"


class Stage(StrEnum):
    """Stages of a page fault."""

    INTERRUPT = "waiting for the interrupt (firmware)"
    MODERATION = "interrupt held by moderation"
    DRIVER = "driver"
    MM = "mm faults the pages in"
    MTT = "device updates its translations"
    RESUME = "resume (firmware)"


FAULT = "page fault at the "
"""How every cause of a page fault begins."""


def fault_cause(side: str, stage: str) -> str:
    """``page fault at the responder: resume (firmware)``."""
    return f"{FAULT}{side}: {stage}"


class Interval(NamedTuple):
    """A part of a path. ``start``, ``end``: ns; ``detail``: whose, where."""

    start: int
    end: int
    cause: str
    detail: str = ""

    @property
    def ns(self) -> int:
        """Its length."""
        return self.end - self.start


SENDING = (Cause.SEND, Cause.TRANSLATE, Cause.AGAIN, Cause.PACED)
"""Causes that alternate while the packets of one request go out."""
COMPACT_AT = 1024
"""Marks of one request above which those of its sending are put together: it may have a million packets."""


class Marks:
    """A path under construction. Each mark says why the time since the mark before it passed."""

    __slots__ = ("ends", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.ends: list[tuple[int, str, str]] = []

    @property
    def last(self) -> int:
        """Up to when everything is explained."""
        return self.ends[-1][0] if self.ends else self.start

    def mark(self, time: int, cause: str, detail: str = "") -> None:
        """Up to ``time`` it was ``cause``. A time that is explained already changes nothing."""
        if time <= self.last:
            return
        if self.ends and self.ends[-1][1:] == (cause, detail):
            self.ends.pop()
        self.ends.append((time, cause, detail))
        if len(self.ends) > COMPACT_AT:
            self.ends = [(piece.end, piece.cause, piece.detail) for piece in compact(self.intervals())]

    def intervals(self) -> list[Interval]:
        """The path so far."""
        found, at = [], self.start
        for end, cause, detail in self.ends:
            found.append(Interval(at, end, cause, detail))
            at = end
        return found


def compact(path: list[Interval]) -> list[Interval]:
    """Neighbours of one cause become one; of what alternates while packets are sent, each run becomes its sums."""
    found: list[Interval] = []
    for sending, group in groupby(path, lambda piece: piece.cause in SENDING):
        pieces = list(group)
        found += _sums(pieces) if sending else _joined(pieces)
    return found


def _sums(run: list[Interval]) -> list[Interval]:
    sums: dict[str, int] = {}
    for piece in run:
        sums[piece.cause] = sums.get(piece.cause, 0) + piece.ns
    found, at = [], run[0].start
    for cause, ns in sums.items():
        found.append(Interval(at, at + ns, cause))
        at += ns
    return found


def _joined(pieces: list[Interval]) -> list[Interval]:
    found: list[Interval] = []
    for piece in pieces:
        if found and found[-1][2:] == piece[2:]:
            piece = found.pop()._replace(end=piece.end)
        found.append(piece)
    return found
