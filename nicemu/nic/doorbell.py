"""Posted writes: doorbells rung from another process, a FIFO in shared memory.

A PCIe write to a doorbell is posted: it travels, in order, without an answer. A process that shares the rings puts
(offset, value) here; whoever steps the clock drains it into the device. One writer, one reader; a counter is one
8-byte store, after the words it covers.
"""

from __future__ import annotations

from typing import Protocol

SLOTS = 1024
BYTES = 16 + 16 * SLOTS
POSTED, TAKEN, FIRST = 0, 1, 2
"""Words: writes posted, writes taken, first slot."""


class DoorbellBar(Protocol):
    """What takes doorbells: ``nic.device.Device``."""

    def write_doorbell(self, offset: int, value: int) -> None:
        """A write to the doorbell BAR."""


class PostedWrites:
    """``memory``: at least ``BYTES`` zeroed bytes, aligned to 8, that both processes see."""

    def __init__(self, memory: memoryview) -> None:
        assert len(memory) >= BYTES, f"posted writes: expected {BYTES} bytes, given {len(memory)}"
        self.words = memory[:BYTES].cast("B").cast("q")

    def write_doorbell(self, offset: int, value: int) -> None:
        """Post a write.

        :raises BufferError: 1,024 writes wait already.
        """
        posted = self.words[POSTED]
        if posted - self.words[TAKEN] >= SLOTS:
            raise BufferError("posted writes: the reader is 1,024 doorbells behind")
        at = FIRST + posted % SLOTS * 2
        self.words[at], self.words[at + 1] = offset, value
        self.words[POSTED] = posted + 1

    def drain(self, device: DoorbellBar) -> int:
        """Hand what was posted to the device; how many."""
        taken = self.words[TAKEN]
        posted = min(self.words[POSTED], taken + SLOTS)
        for count in range(taken, posted):
            at = FIRST + count % SLOTS * 2
            device.write_doorbell(self.words[at], self.words[at + 1])
        self.words[TAKEN] = posted
        return posted - taken
