"""Completion events: how long moderation held what had completed already.

It is after the CQE, so it is in no work request's path. CQ moderation is seen where the program was waiting when the
CQE came: an event that comes later than the CQE was held. Interrupt moderation: a message that left the device later
than its EQE was written.
"""

from __future__ import annotations

from nicemu.observe.trace_reader import Event


class Held:
    """How many were held, and for how long in all."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = self.ns = 0

    def add(self, ns: int) -> None:
        """One more, unless it was not held."""
        if ns > 0:
            self.count, self.ns = self.count + 1, self.ns + ns


class CompletionEvents:
    """Follows CQs and vectors that completion events go through."""

    def __init__(self) -> None:
        self.by_cq, self.by_vector = Held(), Held()
        self._waiting_since: int | None = None
        self._cqes: dict[tuple[str, object], int] = {}
        """CQ -> its first CQE since the last event, if the program was waiting for it."""
        self._raised: dict[tuple[str, object], int] = {}

    def wait(self, event: Event) -> None:
        """The program blocks for an event."""
        self._waiting_since = event.time
        self._cqes.clear()

    def wait_done(self) -> None:
        """It goes on."""
        self._waiting_since = None
        self._cqes.clear()

    def cqe(self, event: Event) -> None:
        """CQE."""
        if self._waiting_since is not None:
            self._cqes.setdefault((event.who, event.fields["cqn"]), event.time)

    def eqe(self, event: Event) -> None:
        """EQE of type COMP; its data is the CQ."""
        first = self._cqes.pop((event.who, event.fields["data"]), None)
        if first is not None:
            self.by_cq.add(event.time - first)
        self._raised.setdefault((event.who, event.fields["eqn"]), event.time)

    def interrupt(self, event: Event) -> None:
        """INTERRUPT."""
        raised = self._raised.pop((event.who, event.fields["vector"]), None)
        if raised is not None:
            self.by_vector.add(event.time - int(event.fields.get("flight_ns", 0)) - raised)
