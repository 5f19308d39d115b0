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


def requests(events: Iterable[Event], tracker: Tracker | None = None) -> Iterator[WorkRequest]:
    """Every send work request, when it completes; at the end of the log those that never did (``end`` is None).

    ``tracker``: one of the caller's, which knows more afterwards.
    """
    tracker = tracker or Tracker()
    for event in events:
        tracker.now = event.time
        handler = (ON_HOST if event.who == "host" else ON_NIC).get(event.name)
        if handler is not None:
            handler(tracker, event)
        if tracker.finished:
            yield from tracker.finished
            tracker.finished.clear()
    tracker.leave()
    yield from tracker.finished
