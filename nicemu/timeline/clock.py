"""Clocks: how far the timeline may go. Time itself is ``World.now``, integer nanoseconds."""

from nicemu.tables.records import INFINITY


class VirtualClock:
    """Time goes as far as there is something to do."""

    def limit(self) -> int:
        """Latest time the timeline may reach, ns."""
        return INFINITY


class SteppedClock:
    """Time goes only as far as somebody stepped it: hardware in the loop, another process, a debugger."""

    def __init__(self, start: int = 0) -> None:
        self._limit = start

    def limit(self) -> int:
        """Latest time the timeline may reach, ns."""
        return self._limit

    def step(self, ns: int) -> None:
        """Allow ``ns`` more nanoseconds."""
        self._limit += ns

    def hold(self, time: int) -> None:
        """Nothing may happen after ``time`` ns until the next step."""
        self._limit = time
