"""What an event log says about send queues: posts, fetches, waits, page faults, completions."""

from __future__ import annotations

from collections.abc import Callable

from nicemu.observe.causes import Cause
from nicemu.observe.critical_path import Hold, path_of
from nicemu.observe.page_faults import HOST_STEPS
from nicemu.observe.send_queues import At, SendQueue
from nicemu.observe.trace_reader import Event
from nicemu.observe.tracker import Tracker, nic_of

Handler = Callable[[Tracker, Event], None]
HELD = {"READS": Cause.READS, "WINDOW": Cause.WINDOW, "CREDITS": Cause.CREDITS, "FENCE": Cause.FENCE}
CONNECTED = {"RC", "XRC_SEND", "XRC_RECV"}


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
    queue = tracker.queue(nic_of(event), int(fields["qpn"]))
    queue.post(int(fields["producer"]), event.time)
    for request in reversed(queue.requests.values()):
        if request.at != At.POSTED or request.marks.ends:
            break
        request.mark(event.time, Cause.POST)


def _context(tracker: Tracker, event: Event) -> None:
    tracker.queue(nic_of(event), int(event.fields["qpn"])).context_ns += int(event.fields["ns"])


def _wqe(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(nic_of(event), int(fields["qpn"]))
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


def _rate(tracker: Tracker, event: Event) -> None:
    tracker.queue(nic_of(event), int(event.fields["qpn"])).rate_kbps = int(event.fields["kbps"])


def _held(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(nic_of(event), int(fields["qpn"]))
    request = queue.requests.get(int(fields["index"]))
    if request is None:
        return
    request.mark(event.time, request.held or (Cause.QUEUE if request.at <= At.FETCHED else None))
    request.held = HELD.get(str(fields["reason"]), Cause.UNKNOWN)
    queue.busy, queue.stopped = (event.time, request.index), True


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
    tracker.refusals.add(((nic_of(event), qpn), psn))
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
    queue = tracker.queue(nic_of(event), int(event.fields["qpn"]))
    for request in queue.since(int(event.fields["psn"])):
        if request.is_sent:
            request.mark(event.time)
            request.at = At.REWOUND


def _rnr_wait(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(nic_of(event), int(event.fields["qpn"]))
    request = queue.at_psn(int(event.fields["psn"]))
    if request is None:
        return
    request.rnr_waits += 1
    faults = (hold.fault for hold in reversed(queue.holds) if hold.rank == 1 and hold.index <= request.index)
    hold = Hold(event.time, request.index, next(faults, None), is_rnr=True)
    tracker.rnr.begin(hold, queue.holds)
    queue.holds.append(hold)


def _rnr_over(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(nic_of(event), int(event.fields["qpn"]))
    for hold in queue.holds:
        if hold.end is None and hold.is_rnr:
            hold.end = event.time
            tracker.rnr.over(hold)


def _timeout(tracker: Tracker, event: Event) -> None:
    queue = tracker.queue(nic_of(event), int(event.fields["qpn"]))
    for request in queue.fetched:
        if request.is_sent:
            request.mark(event.time, Cause.ACK_TIMER)
            request.at = At.REWOUND
            request.timeouts += 1


def _done(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    queue = tracker.queue(nic_of(event), int(fields["qpn"]))
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


def _path(tracker: Tracker, event: Event) -> None:
    fields = event.fields
    if fields.get("type") not in CONNECTED:
        return
    own, peer = (nic_of(event), int(fields["qpn"])), (int(fields["peer"]), int(fields["peer_qpn"]))
    tracker.paths[own] = peer
    tracker.senders[own[0], peer[1]] = own


def _state(tracker: Tracker, event: Event) -> None:
    """RESET, and INIT of a new QP: the queue begins anew, what was outstanding never completes."""
    if event.fields["state"] not in ("RESET", "INIT"):
        return
    queue = tracker.queues.pop((nic_of(event), int(event.fields["qpn"])), None)
    if queue is not None:
        tracker.abandon(queue)


def _host_step(tracker: Tracker, event: Event) -> None:
    tracker.faults.step(event, HOST_STEPS[event.name])


def _eqe(tracker: Tracker, event: Event) -> None:
    if event.fields["type"] == "PAGE_FAULT":
        tracker.faults.eqe(event)
    elif event.fields["type"] == "COMP":
        tracker.completions.eqe(event)


def _interrupt(tracker: Tracker, event: Event) -> None:
    tracker.faults.interrupt(event)
    tracker.completions.interrupt(event)


ON_QUEUES: dict[str, Handler] = {
    "DOORBELL": _doorbell, "QP_CACHE_MISS": _context, "WQE": _wqe, "SQ_HELD": _held, "RATE": _rate, "FAULT": _fault,
    "RESUME": _resume, "NAK": _refusal, "RNR_NAK": _refusal, "RETRANSMIT": _rewind, "RNR_WAIT": _rnr_wait,
    "RNR_OVER": _rnr_over, "TIMEOUT": _timeout, "WQE_DONE": _done, "QP_PATH": _path, "QP_STATE": _state,
    "INTERRUPT": _interrupt, "EQE": _eqe, "CQE": lambda tracker, event: tracker.completions.cqe(event),
}  # fmt: skip
ON_HOST: dict[str, Handler] = {
    "doorbell": _post, "wait": lambda tracker, event: tracker.completions.wait(event),
    "wait_done": lambda tracker, event: tracker.completions.wait_done(),
    "fault_work": lambda tracker, event: tracker.faults.work(event),
    "fault_resolved": lambda tracker, event: tracker.faults.resolved(event), **dict.fromkeys(HOST_STEPS, _host_step),
}  # fmt: skip
