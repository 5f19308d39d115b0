"""PG_locked and PG_writeback of pages in a page cache, with those who wait for them."""

from __future__ import annotations

from nicemu.timeline.host import Completion, Scheduler, Steps


class PageBits:
    """Pages whose bit is set, and the end that others wait for."""

    def __init__(self, scheduler: Scheduler, what: str) -> None:
        self.scheduler, self.what = scheduler, what
        self._ends: dict[int, Completion] = {}

    def __contains__(self, frame: int) -> bool:
        return frame in self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def set(self, frame: int) -> None:
        """Set the bit, which nobody has set."""
        assert frame not in self._ends, f"{self.what} of frame {frame} is set twice"
        self._ends[frame] = Completion(self.scheduler, f"{self.what} of frame {frame}")

    def clear(self, frame: int) -> None:
        """Clear it and wake who waits."""
        self._ends.pop(frame).complete()

    def wait(self, frame: int) -> Steps[None]:
        """Until it is clear."""
        while frame in self._ends:
            yield self._ends[frame]

    def lock(self, frame: int) -> Steps[None]:
        """``lock_page``: wait, then set it. The caller holds a reference and looks where the page is now."""
        yield from self.wait(frame)
        self.set(frame)
