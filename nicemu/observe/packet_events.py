"""Packets in an event log, and what they say about the work request they belong to."""

from __future__ import annotations

from collections.abc import Callable

from nicemu.observe.causes import Cause
from nicemu.observe.send_queues import At, SendQueue, WorkRequest
from nicemu.observe.trace_reader import Event
from nicemu.observe.tracker import RESPONSES, Tracker, nic_of, operation_of

ANSWERED_WITH_DATA = {"RDMA_READ", "ATOMIC_CMP_AND_SWP", "ATOMIC_FETCH_AND_ADD", "FLUSH", "ATOMIC_WRITE"}
"""Operations that an acknowledgement alone does not complete."""
MISSES_KEPT = 256
"""IOTLB misses that wait for their packet; those of no packet are forgotten."""
BITS_TO_NS = 8_000_000
"""Of a byte at 1 kbit/s."""
NOTABLE_PACING = 2
"""A rate is said to pace when a packet takes so many times as long as the wire needs."""


def _send(tracker: Tracker, event: Event) -> None:
    operation, nic = operation_of(event), nic_of(event)
    tracker.packets += 1
    if operation in RESPONSES:
        _answer(tracker, event, operation)
        return
    queue = tracker.queues.get((nic, int(event.fields["source"])))
    if queue is None:
        return
    psn = int(event.fields["psn"])
    request = queue.at_psn(psn)
    if request is None:
        return
    again = request.at >= At.FLIGHT
    if again and not request.timeouts:
        request.behind = None  # it came back into the queue by itself
    _departs(tracker, event, queue, request)
    request.held = None
    is_last = operation == "READ_REQUEST" or queue.absolute(psn) == request.last
    request.at = At.FLIGHT if is_last else At.REWOUND if again else At.SENDING
    request.resent += again
    tracker.resent += again
    queue.busy, queue.stopped = (event.time, request.index), False


def _departs(tracker: Tracker, event: Event, queue: SendQueue, request: WorkRequest) -> None:
    """Explain the time up to a packet's departure."""
    if request.held:
        request.mark(event.time, request.held)
    elif request.at == At.FETCHED and queue.busy[1] < request.index:
        request.mark(queue.busy[0], Cause.QUEUE)
    request.miss_ns += tracker.missed(event)
    if queue.rate_kbps:
        left, wire_ns = queue.last_packet
        paced_ns = int(event.fields["bytes"]) * BITS_TO_NS // queue.rate_kbps
        if wire_ns and paced_ns >= NOTABLE_PACING * wire_ns:
            request.mark(min(event.time, left + paced_ns), Cause.PACED)
    request.mark(event.time, Cause.AGAIN if request.at >= At.FLIGHT else Cause.SEND)


def _answer(tracker: Tracker, event: Event, operation: str) -> None:
    """The responder sends an acknowledgement or data."""
    fields = event.fields
    key = nic_of(event), int(fields["source"])
    queue = tracker.queues.get(tracker.paths.get(key, (-1, -1)))
    if queue is None:
        return
    psn = int(fields["psn"])
    if operation == "ACKNOWLEDGE":
        if (key, psn) in tracker.refusals:
            tracker.refusals.discard((key, psn))
            tracker.refused.add((queue.key, psn))
            psn -= 1
        newest = queue.absolute(psn)
        for request in queue.up_to(psn):
            if request.at in (At.FLIGHT, At.PEER, At.LOST) and request.opcode not in ANSWERED_WITH_DATA:
                together = request.last < newest and request.at == At.PEER
                request.mark(event.time, Cause.TOGETHER if together else None)
                request.at = At.ANSWERING
        return
    answered = queue.at_psn(psn)
    if answered is not None and answered.at in (At.FLIGHT, At.PEER):
        answered.miss_ns += tracker.missed(event)
        answered.mark(event.time)
        answered.at = At.ANSWERING


def _link(tracker: Tracker, event: Event) -> None:
    """LINK_OUT: the first bit of a packet."""
    if operation_of(event) in RESPONSES:
        return
    queue = tracker.sender(event)
    if queue is None:
        return
    queue.last_packet = event.time, int(event.fields["wire_ns"])
    request = queue.at_psn(int(event.fields["psn"]))
    if request is not None and request.at == At.FLIGHT:
        request.mark(event.time, Cause.LINK)


def _receive(tracker: Tracker, event: Event) -> None:
    nic, operation = nic_of(event), operation_of(event)
    psn, qpn = int(event.fields["psn"]), int(event.fields["qpn"])
    if operation in RESPONSES:
        queue = tracker.queues.get((nic, qpn))
        if queue is not None:
            _answered(tracker, event, queue, operation)
        return
    queue = tracker.requester(event, qpn)
    request = queue.at_psn(psn) if queue is not None else None
    if queue is None or request is None:
        return
    tracker.received[nic] = event.time, request
    if queue.refused is not None and request.index <= queue.refused[1] and event.time > queue.refused[0]:
        queue.refused = None  # the one refused has come again
    if operation == "READ_REQUEST" or queue.absolute(psn) == request.last:
        request.mark(event.time, Cause.WIRE if request.at in (At.REWOUND, At.LOST) else None)
        request.at, request.arrived = At.PEER, event.time


def _answered(tracker: Tracker, event: Event, queue: SendQueue, operation: str) -> None:
    """An answer reaches the requester."""
    psn = int(event.fields["psn"])
    if operation == "ACKNOWLEDGE":
        if (queue.key, psn) in tracker.refused:
            tracker.refused.discard((queue.key, psn))
            psn -= 1
        covered = [request for request in queue.up_to(psn)
                   if request.is_sent and request.opcode not in ANSWERED_WITH_DATA]  # fmt: skip
    else:
        request = queue.at_psn(psn)
        covered = [request] if request is not None and queue.absolute(psn) == request.last else []
        if request is not None:
            tracker.received[nic_of(event)] = event.time, request
    for request in covered:
        request.mark(event.time, Cause.ANSWER)
        request.at = At.ANSWERED


def _drop(tracker: Tracker, event: Event) -> None:
    """A NIC drops what it received."""
    fields = event.fields
    qpn, psn = int(fields["qpn"]), int(fields["psn"])
    is_answer = operation_of(event) in RESPONSES
    _lost(tracker.queues.get((nic_of(event), qpn)) if is_answer else tracker.requester(event, qpn), psn, event)


def _link_drop(tracker: Tracker, event: Event) -> None:
    """A link loses it."""
    _lost(tracker.sender(event), int(event.fields["psn"]), event)


def _lost(queue: SendQueue | None, psn: int, event: Event) -> None:
    request = queue.at_psn(psn) if queue is not None else None
    if queue is None or request is None:
        return
    request.drops += 1
    refused = queue.refused
    if refused is not None and refused[1] < request.index and request.behind is None:
        request.behind = event.time, refused[1]
    if request.at in (At.FLIGHT, At.PEER, At.ANSWERING, At.ANSWERED):
        request.mark(event.time)
        request.at, request.arrived = At.LOST, None


def _dma(tracker: Tracker, event: Event) -> None:
    tracker.departing[nic_of(event)] = event.time, (event.fields["mr"], event.fields["page"])


def _miss(tracker: Tracker, event: Event) -> None:
    """Of data to send: until its packet departs. Of data that came: it belongs to what was received just now."""
    nic, ns = nic_of(event), int(event.fields.get("ns", 0))
    received = tracker.received.get(nic)
    if received is not None and received[0] == event.time:
        if received[1].at in (At.PEER, At.ANSWERING, At.ANSWERED):
            received[1].miss_ns += ns
    else:
        tracker.misses[nic, (event.fields["mr"], event.fields["page"])] = ns
        if len(tracker.misses) > MISSES_KEPT:
            del tracker.misses[next(iter(tracker.misses))]


ON_PACKETS: dict[str, Callable[[Tracker, Event], None]] = {
    "DMA": _dma, "IOTLB_MISS": _miss, "SEND": _send, "LINK_OUT": _link, "RECEIVE": _receive, "DROP": _drop,
    "LINK_DROP": _link_drop,
}  # fmt: skip
