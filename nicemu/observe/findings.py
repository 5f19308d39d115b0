"""Known patterns in a run, each in plain words with what to do about it.

A finding is said when it cost enough to matter; the thresholds stand at the top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nicemu.observe.causes import FAULT, Cause, Stage, fault_cause
from nicemu.observe.durations import duration
from nicemu.observe.rnr_codes import RNR_CODE_NS, shortest_code

if TYPE_CHECKING:
    from nicemu.observe.send_queues import WorkRequest
    from nicemu.observe.tracker import Tracker

FAULTS_DOMINATE, NOTABLE, QUEUEING = 0.2, 0.05, 0.3
"""Shares of the time of all requests from which on page faults, other causes, and queueing are worth a sentence."""
FLOOD_QPS, FLOOD_RESENDS = 4, 3
"""Packet flood: so many QPs, each READ of them sent again so often on average."""

Longest = tuple[int, str]


class Findings:
    """Counts what the findings need while requests stream by."""

    def __init__(self) -> None:
        self.ns: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.unfinished = 0
        self.dammed: list[WorkRequest] = []
        self.dam_count = self.timed_out = self.timeouts = self.lost = 0
        self.flood: dict[tuple[int, int], list[int]] = {}

    def take(self, request: WorkRequest) -> None:
        """One request, with its path."""
        for piece in request.path:
            self.ns[piece.cause] += piece.ns
        if request.end is None:
            self.unfinished += 1
        elif request.status != "SUCCESS":
            self.statuses[request.status] += 1
        if request.behind is not None and request.timeouts:
            self.dam_count += 1
            self.dammed = sorted([*self.dammed, request], key=lambda each: -each.latency_ns)[:1]
        elif request.timeouts:
            self.timed_out += 1
        elif request.naks:
            self.lost += 1
        self.timeouts += request.timeouts
        if request.resent and _faulted_here(request):
            reads = self.flood.setdefault((request.nic, request.qpn), [0, 0])
            reads[0] += 1
            reads[1] += request.resent

    def texts(self, tracker: Tracker, total_ns: int) -> Iterator[str]:
        """The findings, the gravest first."""
        total = total_ns or 1
        if self.statuses:
            names = ", ".join(f"{name} {count}" for name, count in sorted(self.statuses.items()))
            yield f"Failed work requests: {names}."
        if self.dammed:
            yield self._damming()
        yield from self._flood()
        if self.timed_out:
            yield (f"ACK timeouts: {self.timed_out} requests lost a packet or its answer and waited for the ACK timer, "
                   f"{duration(self.ns[Cause.ACK_TIMER])} in all.")  # fmt: skip
        if self.lost:
            yield (f"Loss: {self.lost} requests had packets lost and were sent again after a NAK "
                   f"({tracker.resent} of {tracker.packets} packets of the run were repetitions).")  # fmt: skip
        yield from self._faults(total)
        yield from self._rnr(tracker, total)
        yield from self._shares(total)
        yield from self._interrupts(tracker)
        if self.unfinished:
            yield f"{self.unfinished} requests never completed: they were outstanding at the end of the trace."

    def _damming(self) -> str:
        request = self.dammed[0]
        when, behind = request.behind or (0, 0)
        timer = sum(piece.ns for piece in request.path if piece.cause == Cause.ACK_TIMER)
        again = next((piece.end for piece in reversed(request.path) if piece.cause == Cause.ACK_TIMER), when)
        others = f" ({self.dam_count} requests in all)" if self.dam_count > 1 else ""
        return (f"Packet damming{others}: {request.name} ({request.opcode}) reached the responder at {duration(when)}, "
                f"behind #{behind}, which had been refused with an RNR NAK, and was dropped in silence. #{behind} was "
                f"sent again after the RNR wait, this one was not: only the ACK timer brought it back, at "
                f"{duration(again)}, after {duration(timer)} of waiting. Until the fault of one request is over, post "
                f"none behind it; or prefetch the pages (ibv_advise_mr).")  # fmt: skip

    def _flood(self) -> Iterator[str]:
        busy = [reads for reads in self.flood.values() if reads[1] >= FLOOD_RESENDS * reads[0]]
        if len(busy) >= FLOOD_QPS:
            requests, resends = sum(reads[0] for reads in busy), sum(reads[1] for reads in busy)
            yield (f"Packet flood: {len(busy)} QPs sent {requests} READs again {resends} times while their own pages "
                   f"were missing. Fewer QPs faulting at a time, or prefetched buffers, avoid it.")  # fmt: skip

    def _faults(self, total: int) -> Iterator[str]:
        for side in ("requester", "responder"):
            stages = {stage: self.ns[fault_cause(side, stage)] for stage in Stage}
            ns = sum(stages.values())
            if ns < FAULTS_DOMINATE * total:
                continue
            parts = ", ".join(f"{part / ns:.0%} {stage}" for stage, part in
                              sorted(stages.items(), key=lambda item: -item[1])[:2])  # fmt: skip
            yield (f"Page faults at the {side}: {ns / total:.0%} of all time. Of that {parts}. Prefetch "
                   f"(ibv_advise_mr) or keep hot pages resident.")  # fmt: skip

    def _rnr(self, tracker: Tracker, total: int) -> Iterator[str]:
        rnr = tracker.rnr
        if rnr.too_short:
            yield (f"RNR timer shorter than the page fault: {rnr.too_short} of {rnr.waits} RNR waits came again for "
                   f"a page that was not there yet.")  # fmt: skip
        if self.ns[Cause.TIMER_LONGER] >= NOTABLE * total:
            share = f"{self.ns[Cause.TIMER_LONGER] / total:.0%} of all time"
            code, better = rnr.code, shortest_code(rnr.longest_need_ns)
            text = (f"RNR timer longer than needed: {share}. At the latest the receiver was ready "
                    f"{duration(rnr.longest_need_ns)} into the wait")  # fmt: skip
            if code is not None and RNR_CODE_NS[better] < RNR_CODE_NS[code]:
                text += (f"; min_rnr_timer {code} waits {duration(RNR_CODE_NS[code])}, {better} "
                         f"({duration(RNR_CODE_NS[better])}) would do")  # fmt: skip
            yield text + "."
        if self.ns[Cause.NOT_READY] >= NOTABLE * total:
            yield (f"No receive posted: {self.ns[Cause.NOT_READY] / total:.0%} of all time in RNR waits of receivers "
                   f"without a receive. Post receives earlier, or more of them.")  # fmt: skip

    def _shares(self, total: int) -> Iterator[str]:
        for cause, least, text in SHARES:
            ns = self.ns[cause]
            if ns >= least * total:
                yield text.format(share=f"{ns / total:.0%}", time=duration(ns))

    def _interrupts(self, tracker: Tracker) -> Iterator[str]:
        for what, held in (("CQ", tracker.completions.by_cq), ("Interrupt", tracker.completions.by_vector)):
            if held.count:
                mean = duration(held.ns // held.count)
                yield (f"{what} moderation: {held.count} completion events were held, {mean} on average (after the "
                       f"CQE, so in no path).")  # fmt: skip


SHARES = (
    (Cause.TRANSLATE, NOTABLE, "IOTLB misses: {share} of all time. Larger pages or fewer MRs at a time."),
    (Cause.CONTEXT, NOTABLE, "QP context misses: {share} of all time. More QPs are in use than the NIC's cache holds."),
    (Cause.QUEUE, QUEUEING, "Queueing: {share} of all time work requests wait behind others of their queue."),
    (Cause.READS, NOTABLE, "READ limit: {share} of all time; max_rd_atomic allows no more outstanding READs."),
    (Cause.WINDOW, NOTABLE, "Window: {share} of all time; as many packets as may be were unacknowledged."),
    (Cause.CREDITS, NOTABLE, "Credits: {share} of all time the peer had no receive posted."),
    (Cause.PACED, NOTABLE, "Congestion control: {share} of all time packets wait for the rate that it allows."),
    (Cause.FENCE, NOTABLE, "Fences: {share} of all time."),
    (fault_cause("requester", Stage.MODERATION), NOTABLE,
     "Page-fault interrupts held by moderation: {share} of all time."),
    (fault_cause("responder", Stage.MODERATION), NOTABLE,
     "Page-fault interrupts at the responder held by moderation: {share} of all time."),
)  # fmt: skip
"""Cause, share from which on it is said, sentence."""


def _faulted_here(request: WorkRequest) -> bool:
    start = f"{FAULT}requester"
    return request.opcode == "RDMA_READ" and any(piece.cause.startswith(start) for piece in request.path)
