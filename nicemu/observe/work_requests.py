"""Work requests of a whole event log: events in, finished requests with their critical paths out.

Streams: what is kept is what is outstanding, plus the page faults and waits that overlap it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nicemu.observe.packet_events import ON_PACKETS
from nicemu.observe.queue_events import ON_HOST, ON_QUEUES
from nicemu.observe.send_queues import WorkRequest
from nicemu.observe.trace_reader import Event
from nicemu.observe.tracker import Tracker

ON_NIC = ON_QUEUES | ON_PACKETS


class StrangeEvent(Exception):
    """An event without the fields that nicemu writes."""


def requests(events: Iterable[Event], tracker: Tracker | None = None) -> Iterator[WorkRequest]:
    """Every send work request, when it completes; at the end of the log those that never did (``end`` is None).

    ``tracker``: one of the caller's, which knows more afterwards. :raises StrangeEvent: as it says.
    """
    tracker = tracker or Tracker()
    for event in events:
        tracker.now = event.time
        handler = (ON_HOST if event.who == "host" else ON_NIC).get(event.name)
        if handler is not None:
            try:
                handler(tracker, event)
            except (LookupError, TypeError, ValueError) as error:
                given = f"{event.time} {event.who} {event.name} {event.fields}"
                raise StrangeEvent(f"expected an event as nicemu writes it, given {given:.160}") from error
        if tracker.finished:
            yield from tracker.finished
            tracker.finished.clear()
    tracker.leave()
    yield from tracker.finished
