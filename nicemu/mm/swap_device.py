"""The disk behind swap: a latency for each request, one data path, a bounded queue.

A request waits for a place in the queue (first come, first served), then for the device's latency, then for its turn
on the data path. So one request costs latency and transfer, many at once are bound by the transfer rate, and more than
``depth`` wait outside. Left out: reads before writes, merging, seeks.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from nicemu.timeline.host import Completion, Scheduler, Sleep, Steps


class SwapDevice:
    """``profile`` has ``swap_queue_depth`` (requests) and ``costs.swap_page_ns`` (transfer of a page)."""

    def __init__(self, scheduler: Scheduler, profile: Any) -> None:
        self.scheduler, self.depth, self.page_ns = scheduler, profile.swap_queue_depth, profile.costs.swap_page_ns
        self.in_flight = self.deepest = 0
        """Requests, those that wait among them at the most."""
        self._free_at = 0
        self._waiting: deque[Completion] = deque()

    def request(self, latency_ns: int, pages: int) -> Steps[None]:
        """``submit_bio`` and the wait for its end: ``pages`` pages in one piece."""
        self.deepest = max(self.deepest, self.in_flight + len(self._waiting) + 1)
        if self.in_flight >= self.depth:
            turn = Completion(self.scheduler, "the queue of the swap device")
            self._waiting.append(turn)
            yield turn
        else:
            self.in_flight += 1
        now = self.scheduler.clock()
        self._free_at = max(self._free_at, now + latency_ns) + pages * self.page_ns
        yield Sleep(self._free_at - now)
        if self._waiting:
            self._waiting.popleft().complete()
        else:
            self.in_flight -= 1
