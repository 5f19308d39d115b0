"""RNR waits of a run as a whole: how long the receivers needed, and how long the requesters waited."""

from __future__ import annotations

from nicemu.observe.critical_path import Hold


class RnrWaits:
    """Sums over all waits. ``code``: the timer code that came last; ``too_short``: the page was not there yet."""

    def __init__(self) -> None:
        self.waits = self.too_short = self.longest_need_ns = 0
        self.code: int | None = None

    def over(self, hold: Hold, time: int) -> None:
        """A wait ended at ``time``."""
        self.waits += 1
        ready = hold.fault.end if hold.fault is not None else hold.posted
        if ready is not None:
            self.longest_need_ns = max(self.longest_need_ns, ready - hold.start)
        elif hold.fault is not None:
            self.too_short += 1
