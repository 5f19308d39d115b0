"""What a reader of an event log knows at a moment: send queues, paths between QPs, open page faults.

The events that change it are in ``queue_events`` and ``packet_events``.
"""

from __future__ import annotations

from nicemu.observe.completion_events import CompletionEvents
from nicemu.observe.critical_path import path_of
from nicemu.observe.page_faults import PageFaults
from nicemu.observe.rnr_waits import RnrWaits
from nicemu.observe.send_queues import Key, SendQueue, WorkRequest
from nicemu.observe.trace_reader import Event
from nicemu.wire.opcode import RcOpcode

RESPONSES = {"READ_RESP_FIRST", "READ_RESP_MIDDLE", "READ_RESP_LAST", "READ_RESP_ONLY", "ACKNOWLEDGE", "ATOMIC_ACK"}


def nic_of(event: Event) -> int:
    """Number of the NIC that an event is of, from 0."""
    return int(event.who[3:])


def operation_of(event: Event) -> str:
    """Operation of a packet, whatever its transport."""
    opcode = event.fields["opcode"]
    if isinstance(opcode, int):  # of another transport than RC
        low = opcode & 31
        return RcOpcode(low).name if low in RcOpcode._value2member_map_ else ""
    return opcode


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
        self.packets = self.resent = 0
        self.rnr = RnrWaits()
        self.completions = CompletionEvents()
        self.departing: dict[int, tuple[int, tuple[object, object]]] = {}
        self.misses: dict[tuple[int, tuple[object, object]], int] = {}
        self.received: dict[int, tuple[int, WorkRequest]] = {}
        self.refusals: set[tuple[Key, int]] = set()
        """(responder, PSN) of NAKs that it decided on and has not sent."""
        self.refused: set[tuple[Key, int]] = set()
        """(requester, PSN) of NAKs on their way."""

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
        nic = nic_of(event)
        time, page = self.departing.get(nic, (-1, (0, 0)))
        return self.misses.pop((nic, page), 0) if time == event.time else 0

    def sender(self, event: Event) -> SendQueue | None:
        """Whose request the packet of a link's event is: the NIC is that which sends, or that which it leads to."""
        key = int(event.who[3:]), int(event.fields["qpn"])
        own = self.senders.get(key) or self.paths.get(key)
        return self.queues.get(own) if own is not None else None
