"""Work requests of a whole event log: events in, finished requests with their critical paths out.

Streams: what is kept is what is outstanding, plus the page faults and waits that overlap it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from nicemu.observe.causes import Cause
from nicemu.observe.critical_path import Hold, path_of
from nicemu.observe.page_faults import HOST_STEPS, PageFaults
from nicemu.observe.rnr_waits import RnrWaits
from nicemu.observe.send_queues import At, Key, SendQueue, WorkRequest
from nicemu.observe.trace_reader import Event
from nicemu.wire.opcode import RcOpcode

RESPONSES = {"READ_RESP_FIRST", "READ_RESP_MIDDLE", "READ_RESP_LAST", "READ_RESP_ONLY", "ACKNOWLEDGE", "ATOMIC_ACK"}
HELD = {"READS": Cause.READS, "WINDOW": Cause.WINDOW, "CREDITS": Cause.CREDITS, "FENCE": Cause.FENCE}
ANSWERED_WITH_DATA = {"RDMA_READ", "ATOMIC_CMP_AND_SWP", "ATOMIC_FETCH_AND_ADD", "FLUSH", "ATOMIC_WRITE"}
CONNECTED = {"RC", "XRC_SEND", "XRC_RECV"}
Handler = Callable[["Tracker", Event], None]


def requests(events: Iterable[Event], tracker: Tracker | None = None) -> Iterator[WorkRequest]:
    """Every send work request, when it completes; at the end of the log those that never did (``end`` is None).

    ``tracker``: one of the caller's, which knows more afterwards.
    """
    tracker = tracker or Tracker()
    for event in events:
        tracker.take(event)
        if tracker.finished:
            yield from tracker.finished
            tracker.finished.clear()
    tracker.leave()
    yield from tracker.finished


class Tracker:
    """What is outstanding, and what each event says about it."""

    def __init__(self) -> None:
        self.queues: dict[Key, SendQueue] = {}
        self.paths: dict[Key, Key] = {}
        """Queue pair -> that of its peer."""
        self.senders: dict[Key, Key] = {}
        """(NIC, QP number it sends to) -> its own."""
        self.faults = PageFaults()
        self.finished: list[WorkRequest] = []
        self.now = 0
        self.events = 0
        self.packets = self.resent = 0
        self.rnr = RnrWaits()
        self.moderated = 0, 0
        """Completion interrupts that moderation held: how many, for how long in all."""
        self._events: dict[Key, int] = {}
        self._dma: dict[int, tuple[int, tuple[object, object]]] = {}
        self._misses: dict[tuple[int, tuple[object, object]], int] = {}
        self._received: dict[int, tuple[int, WorkRequest]] = {}
        self._refusals: set[tuple[Key, int]] = set()
        """(responder, PSN) of NAKs that it decided on and has not sent."""
        self._refused: set[tuple[Key, int]] = set()
        """(requester, PSN) of NAKs on their way."""

    def take(self, event: Event) -> None:
        """One event."""
        self.now = event.time
        self.events += 1
        handler = (ON_HOST if event.who == "host" else ON_NIC).get(event.name)
        if handler is not None:
            handler(self, event)

    def leave(self) -> None:
        """The log is over: what is still outstanding is handed out with its path so far."""
        for queue in self.queues.values():
            self.abandon(queue)

    def abandon(self, queue: SendQueue) -> None:
        """What is outstanding stays so; its path goes up to now."""
        for request in queue.requests.values():
            request.mark(self.now)
            request.path = path_of(request, queue.holds, self.now)
            self.finished.append(request)

    def queue(self, nic: int, qpn: int) -> SendQueue:
        """The send queue of a QP."""
        key = nic, qpn
        found = self.queues.get(key)
        if found is None:
            found = self.queues[key] = SendQueue(key)
        return found

    def requester(self, event: Event, qpn: int) -> SendQueue | None:
        """Whose request the responder ``qpn`` at this NIC has before it."""
        peer = self.paths.get((int(event.who[3:]), qpn))
        return self.queues.get(peer) if peer is not None else None

    def missed(self, event: Event) -> int:
        """What IOTLB misses cost the packet that departs now, ns; its DMA is the row before."""
        nic = _nic(event)
        time, page = self._dma.get(nic, (-1, (0, 0)))
        return self._misses.pop((nic, page), 0) if time == event.time else 0

    def sender(self, event: Event) -> SendQueue | None:
        """Whose request the packet of a link's event is: the NIC is that which sends, or that which it leads to."""
        key = int(event.who[3:]), int(event.fields["qpn"])
        own = self.senders.get(key) or self.paths.get(key)
        return self.queues.get(own) if own is not None else None


def _nic(event: Event) -> int:
    return int(event.who[3:])


def _operation(event: Event) -> str:
    opcode = event.fields["opcode"]
    if isinstance(opcode, int):  # of another transport than RC
        low = opcode & 31
        return RcOpcode(low).name if low in RcOpcode._value2member_map_ else ""
    return opcode


def _post(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    if fields.get("bank") == "SEND":
        tracker.queue(int(fields["nic"]), int(fields["number"])).post(int(fields["producer"]), event.time)
    elif fields.get("bank") == "RECV":
        queue = tracker.queues.get(tracker.paths.get((int(fields["nic"]), int(fields["number"])), (-1, -1)))
        for hold in queue.holds if queue is not None else ():
            if hold.is_rnr and hold.end is None and hold.posted is None:
                hold.posted = event.time


def _doorbell(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    if fields["bank"] != "SEND":
        return
    queue = tracker.queue(_nic(event), int(fields["qpn"]))
    queue.post(int(fields["producer"]), event.time)
    for request in reversed(queue.requests.values()):
        if request.at != At.POSTED or request.marks.ends:
            break
        request.mark(event.time, Cause.POST)


def _context(tracker: Tracker, event: Event) -> None:
    tracker.queue(_nic(event), int(event.fields["qpn"])).context_ns += int(event.fields["ns"])


def _wqe(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(_nic(event), int(fields["qpn"]))
    index = int(fields["index"])
    if index not in queue.requests:
        queue.post(index + 1, event.time)
    request = queue.requests[index]
    request.opcode, request.bytes = str(fields["opcode"]), int(fields["bytes"])
    request.mark(event.time if queue.stopped else queue.busy[0], Cause.QUEUE)
    if queue.context_ns:
        request.mark(min(event.time, request.marks.last + queue.context_ns), Cause.CONTEXT)
        queue.context_ns = 0
    request.mark(event.time, Cause.FETCH)
    queue.fetch(request, int(fields["first_psn"]), int(fields["last_psn"]))


def _held(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(_nic(event), int(fields["qpn"]))
    request = queue.requests.get(int(fields["index"]))
    if request is None:
        return
    request.mark(event.time, request.held or (Cause.QUEUE if request.at <= At.FETCHED else None))
    request.held = HELD.get(str(fields["reason"]), Cause.UNKNOWN)
    queue.busy, queue.stopped = (event.time, request.index), True


def _dma(tracker: Tracker, event: Event) -> None:
    tracker._dma[_nic(event)] = event.time, (event.fields["mr"], event.fields["page"])


def _miss(tracker: Tracker, event: Event) -> None:
    """Of data to send: until its packet departs. Of data that came: it belongs to what was received just now."""
    nic, ns = _nic(event), int(event.fields.get("ns", 0))
    received = tracker._received.get(nic)
    if received is not None and received[0] == event.time:
        if received[1].at in (At.PEER, At.ANSWERING, At.ANSWERED):
            received[1].miss_ns += ns
    else:
        tracker._misses[nic, (event.fields["mr"], event.fields["page"])] = ns


def _send(tracker: Tracker, event: Event) -> None:
    operation, nic = _operation(event), _nic(event)
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
    request.mark(event.time, Cause.AGAIN if request.at >= At.FLIGHT else Cause.SEND)


def _answer(tracker: Tracker, event: Event, operation: str) -> None:
    """The responder sends an acknowledgement or data."""
    fields = event.fields
    key = _nic(event), int(fields["source"])
    queue = tracker.queues.get(tracker.paths.get(key, (-1, -1)))
    if queue is None:
        return
    psn = int(fields["psn"])
    if operation == "ACKNOWLEDGE":
        if (key, psn) in tracker._refusals:
            tracker._refusals.discard((key, psn))
            tracker._refused.add((queue.key, psn))
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
    if _operation(event) in RESPONSES:
        return
    queue = tracker.sender(event)
    request = queue.at_psn(int(event.fields["psn"])) if queue is not None else None
    if request is not None and request.at == At.FLIGHT:
        request.mark(event.time, Cause.LINK)


def _receive(tracker: Tracker, event: Event) -> None:
    nic, operation = _nic(event), _operation(event)
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
    tracker._received[nic] = event.time, request
    if queue.refused is not None and request.index <= queue.refused[1] and event.time > queue.refused[0]:
        queue.refused = None  # the one refused has come again
    if operation == "READ_REQUEST" or queue.absolute(psn) == request.last:
        request.mark(event.time, Cause.WIRE if request.at in (At.REWOUND, At.LOST) else None)
        request.at, request.arrived = At.PEER, event.time


def _answered(tracker: Tracker, event: Event, queue: SendQueue, operation: str) -> None:
    """An answer reaches the requester."""
    psn = int(event.fields["psn"])
    if operation == "ACKNOWLEDGE":
        if (queue.key, psn) in tracker._refused:
            tracker._refused.discard((queue.key, psn))
            psn -= 1
        covered = [request for request in queue.up_to(psn)
                   if request.is_sent and request.opcode not in ANSWERED_WITH_DATA]  # fmt: skip
    else:
        request = queue.at_psn(psn)
        covered = [request] if request is not None and queue.absolute(psn) == request.last else []
        if request is not None:
            tracker._received[_nic(event)] = event.time, request
    for request in covered:
        request.mark(event.time, Cause.ANSWER)
        request.at = At.ANSWERED


def _drop(tracker: Tracker, event: Event) -> None:
    """A NIC drops what it received."""
    fields = event.fields
    qpn, psn = int(fields["qpn"]), int(fields["psn"])
    is_answer = _operation(event) in RESPONSES
    _lost(tracker.queues.get((_nic(event), qpn)) if is_answer else tracker.requester(event, qpn), psn, event)


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


def _fault(tracker: Tracker, event: Event) -> None:
    fault = tracker.faults.fault(event)
    if fault.at_requester:
        queue: SendQueue | None = tracker.queue(fault.nic, fault.qpn)
        index = fault.index
    else:
        queue = tracker.requester(event, fault.qpn)
        index = queue.executing if queue is not None else 0
        if queue is not None:
            queue.refused = event.time, index
    if queue is not None:
        queue.holds.append(Hold(event.time, index, fault))


def _resume(tracker: Tracker, event: Event) -> None:
    fault = tracker.faults.resume(event)
    if fault is None:
        return
    peer = (fault.nic, fault.qpn) if fault.at_requester else tracker.paths.get((fault.nic, fault.qpn), (-1, -1))
    queue = tracker.queues.get(peer)
    for hold in queue.holds if queue is not None else ():
        if hold.fault is fault and not hold.is_rnr:
            hold.end = event.time


def _refusal(tracker: Tracker, event: Event) -> None:
    """NAK and RNR_NAK: the acknowledgement with this PSN acknowledges only what is before it."""
    qpn, psn = int(event.fields["qpn"]), int(event.fields["psn"])
    tracker._refusals.add(((_nic(event), qpn), psn))
    queue = tracker.requester(event, qpn)
    request = queue.at_psn(psn) if queue is not None else None
    if queue is None or request is None:
        return
    if event.name == "RNR_NAK":
        tracker.rnr.code = int(event.fields["timer"])
        queue.refused = event.time, request.index
    else:
        request.naks += 1


def _rewind(tracker: Tracker, event: Event) -> None:
    """RETRANSMIT: the requester goes back to a PSN."""
    queue = tracker.queue(_nic(event), int(event.fields["qpn"]))
    for request in queue.since(int(event.fields["psn"])):
        if request.is_sent:
            request.mark(event.time)
            request.at = At.REWOUND


def _rnr_wait(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(_nic(event), int(event.fields["qpn"]))
    request = queue.at_psn(int(event.fields["psn"]))
    if request is None:
        return
    request.rnr_waits += 1
    faults = (hold.fault for hold in reversed(queue.holds) if hold.rank == 1 and hold.index <= request.index)
    queue.holds.append(Hold(event.time, request.index, next(faults, None), is_rnr=True))


def _rnr_over(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(_nic(event), int(event.fields["qpn"]))
    for hold in queue.holds:
        if hold.end is None and hold.is_rnr:
            hold.end = event.time
            tracker.rnr.over(hold, event.time)


def _timeout(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(_nic(event), int(event.fields["qpn"]))
    for request in queue.fetched:
        if request.is_sent:
            request.mark(event.time, Cause.ACK_TIMER)
            request.at = At.REWOUND
            request.timeouts += 1


def _done(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(_nic(event), int(fields["qpn"]))
    before = queue.last_done
    request = queue.complete(int(fields["index"]), event.time)
    if request is None:
        return
    request.status, request.signaled = str(fields["status"]), int(fields["signaled"])
    request.opcode = request.opcode or str(fields["opcode"])
    if request.at == At.ANSWERED:
        request.mark(before, Cause.ORDER)
    if queue.refused is not None and request.index >= queue.refused[1]:
        queue.refused = None
    is_local = queue.key not in tracker.paths  # datagrams and unreliable connections complete when they are sent
    request.mark(event.time, Cause.COMPLETE if is_local and request.is_sent else None)
    request.end = event.time
    request.path = path_of(request, queue.holds, event.time)
    queue.forget()
    tracker.finished.append(request)


def _eqe(tracker: Tracker, event: Event) -> None:
    if event.fields["type"] == "PAGE_FAULT":
        tracker.faults.eqe(event)
    elif event.fields["type"] == "COMP":
        tracker._events.setdefault((_nic(event), int(event.fields["eqn"])), event.time)


def _interrupt(tracker: Tracker, event: Event) -> None:
    tracker.faults.interrupt(event)
    raised = tracker._events.pop((_nic(event), int(event.fields["vector"])), None)
    held = 0 if raised is None else event.time - int(event.fields.get("flight_ns", 0)) - raised
    if held > 0:
        count, ns = tracker.moderated
        tracker.moderated = count + 1, ns + held


def _path(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    if fields.get("type") not in CONNECTED:
        return
    own, peer = (_nic(event), int(fields["qpn"])), (int(fields["peer"]), int(fields["peer_qpn"]))
    tracker.paths[own] = peer
    tracker.senders[own[0], peer[1]] = own


def _state(tracker: Tracker, event: Event) -> None:
    """RESET, and INIT of a new QP: the queue begins anew, what was outstanding never completes."""
    if event.fields["state"] not in ("RESET", "INIT"):
        return
    queue = tracker.queues.pop((_nic(event), int(event.fields["qpn"])), None)
    if queue is not None:
        tracker.abandon(queue)


def _host_step(tracker: Tracker, event: Event) -> None:
    tracker.faults.step(event, HOST_STEPS[event.name])


ON_NIC: dict[str, Handler] = {
    "DOORBELL": _doorbell, "QP_CACHE_MISS": _context, "WQE": _wqe, "SQ_HELD": _held, "DMA": _dma, "IOTLB_MISS": _miss,
    "SEND": _send, "LINK_OUT": _link, "RECEIVE": _receive, "DROP": _drop, "LINK_DROP": _link_drop, "FAULT": _fault,
    "RESUME": _resume, "NAK": _refusal, "RNR_NAK": _refusal, "RETRANSMIT": _rewind, "RNR_WAIT": _rnr_wait,
    "RNR_OVER": _rnr_over, "TIMEOUT": _timeout, "WQE_DONE": _done, "QP_PATH": _path, "QP_STATE": _state,
    "INTERRUPT": _interrupt, "EQE": _eqe,
}  # fmt: skip
ON_HOST: dict[str, Handler] = {
    "doorbell": _post, "fault_work": lambda tracker, event: tracker.faults.work(event),
    "fault_resolved": lambda tracker, event: tracker.faults.resolved(event), **dict.fromkeys(HOST_STEPS, _host_step),
}  # fmt: skip
