"""Rows of a table that belong to a device, handed out in runs: context memory of queues."""

from __future__ import annotations


class RowPool:
    """Rows ``first .. first + count``. A run that was given back serves the next wish for one of its length."""

    def __init__(self, first: int, count: int) -> None:
        self._next, self._end = first, first + count
        self._free: dict[int, list[int]] = {}

    def take(self, count: int, refusal: str) -> int:
        """First row of a run of ``count``.

        :raises MemoryError: no room; ``refusal`` says for what.
        """
        free = self._free.get(count)
        if free:
            return free.pop(0)
        first = self._next
        if first + count >= self._end:
            raise MemoryError(refusal)
        self._next = first + count
        return first

    def give(self, first: int, count: int) -> None:
        """The run is free again."""
        self._free.setdefault(count, []).append(first)
