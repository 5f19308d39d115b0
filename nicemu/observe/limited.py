"""A file of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Limited:
    """A file that takes ``limit`` bytes: the write that would be too much, and all after it, are left out, and
    ``full()`` is called once. Each write is whole packets or lines, so the file can be read to its end."""

    def __init__(self, stream: Any, limit: int, full: Callable[[], None]) -> None:
        self.stream, self.left, self.full = stream, limit, full

    def write(self, data: Any) -> int:
        """Write, as far as it fits."""
        if len(data) > self.left >= 0:
            self.left = -1
            self.full()
        if self.left < 0:
            return len(data)
        self.left -= len(data)
        return int(self.stream.write(data))

    def flush(self) -> None:
        """What was written is in the file."""
        self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()
