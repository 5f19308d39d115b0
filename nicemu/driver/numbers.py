"""Object numbers (qpn, cqn, mkey index): the one that has been free longest is used next."""

from __future__ import annotations

import errno
from collections import deque

from nicemu.driver.errors import DriverError


class Numbers:
    """Numbers ``first`` .. ``first + count - 1``, first in first out, so that a stale number stays invalid for long."""

    def __init__(self, what: str, count: int, first: int = 1) -> None:
        self.what, self._next, self._end = what, first, first + count
        self._free: deque[int] = deque()

    def take(self) -> int:
        """A free number. ENOMEM: all are in use."""
        if self._next < self._end:
            self._next += 1
            return self._next - 1
        if not self._free:
            raise DriverError(errno.ENOMEM, f"all {self.what} of the device are in use")
        return self._free.popleft()

    def give(self, number: int) -> None:
        """The number is free again."""
        self._free.append(number)
