"""RNR waits of a run as a whole: how long the receivers needed, and how long the requesters waited."""

from __future__ import annotations

from nicemu.observe.critical_path import Hold


class RnrWaits:
    """Sums over all waits. ``code``: the timer code that came last; ``too_short``: waits for a page that had been
    waited for already."""

    def __init__(self) -> None:
        self.waits = self.too_short = self.longest_need_ns = 0
        self.code: int | None = None

    def begin(self, hold: Hold, others: list[Hold]) -> None:
        """A wait begins."""
        self.waits += 1
        self.too_short += hold.fault is not None and any(each.is_rnr and each.fault is hold.fault for each in others)

    def over(self, hold: Hold) -> None:
        """It is over."""
        ready = hold.fault.end if hold.fault is not None else hold.posted
        if ready is not None:
            self.longest_need_ns = max(self.longest_need_ns, ready - hold.start)
