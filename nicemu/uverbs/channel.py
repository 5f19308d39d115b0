"""Event channels (``ib_uverbs_completion_event_file``, ``..._async_event_file``): a queue of events and a pipe.

The pipe's read end is readable while events wait, so programs may ``select`` on it; it holds one byte per event as far
as the pipe's buffer goes. Events are taken by commands, never by reading the pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class EventFile(Generic[T]):
    """Events of one kind, oldest first."""

    def __init__(self) -> None:
        self.events: deque[T] = deque()
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._bytes = 0
        self.closed = False
        self.broken = False
        """The device is dead: nothing more will come."""

    def put(self, event: T) -> None:
        """An event came. A full pipe is readable anyway."""
        self.events.append(event)
        with contextlib.suppress(BlockingIOError):
            self._bytes += os.write(self._write_fd, b"\0")

    def take(self) -> T:
        """The oldest event. There must be one."""
        event = self.events.popleft()
        if self._bytes > len(self.events):
            os.read(self.fd, 1)
            self._bytes -= 1
        return event

    def discard(self, event: T) -> None:
        """Forget all events equal to ``event`` (their object is destroyed)."""
        for _ in range(self.events.count(event)):
            self.events.remove(event)
        while self._bytes > len(self.events):
            os.read(self.fd, 1)
            self._bytes -= 1

    @property
    def ready(self) -> bool:
        """A waiter need not wait (any more)."""
        return bool(self.events) or self.closed or self.broken

    @property
    def blocking(self) -> bool:
        """The program has not set ``O_NONBLOCK`` on the fd."""
        return not fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_NONBLOCK

    def close(self) -> None:
        """Close both ends; the program may have closed its own."""
        if self.closed:
            return
        self.closed = True
        for fd in (self.fd, self._write_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


class CompChannel(EventFile[int]):
    """A completion channel: events are CQ handles. ``users``: CQs that report into it."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.context = context
        self.handle = 0
        self.users = 0
