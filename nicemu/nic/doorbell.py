"""Posted writes: doorbells rung from another process, a FIFO in shared memory.

A PCIe write to a doorbell is posted: it travels, in order, without an answer. A process that shares the rings puts
(offset, value) here; whoever steps the clock drains it into the device. One writer, one reader; the count is stored
after the words it covers.
"""

from __future__ import annotations

import struct
from typing import Protocol

WORD = struct.Struct("<q")
SLOTS = 1024
BYTES = 16 + 16 * SLOTS


class DoorbellBar(Protocol):
    """What takes doorbells: ``nic.device.Device``."""

    def write_doorbell(self, offset: int, value: int) -> None:
        """A write to the doorbell BAR."""


class PostedWrites:
    """``memory``: at least ``BYTES`` zeroed bytes that both processes see."""

    def __init__(self, memory: memoryview) -> None:
        assert len(memory) >= BYTES, f"posted writes: expected {BYTES} bytes, given {len(memory)}"
        self.memory = memory

    def _count(self, at: int) -> int:
        return int(WORD.unpack_from(self.memory, at)[0])

    def write_doorbell(self, offset: int, value: int) -> None:
        """Post a write.

        :raises BufferError: 1,024 writes wait already.
        """
        posted = self._count(0)
        if posted - self._count(8) >= SLOTS:
            raise BufferError("posted writes: the reader is 1,024 doorbells behind")
        at = 16 + posted % SLOTS * 16
        WORD.pack_into(self.memory, at, offset)
        WORD.pack_into(self.memory, at + 8, value)
        WORD.pack_into(self.memory, 0, posted + 1)

    def drain(self, device: DoorbellBar) -> int:
        """Hand what was posted to the device; how many."""
        posted, taken = self._count(0), self._count(8)
        posted = min(posted, taken + SLOTS)
        for count in range(taken, posted):
            at = 16 + count % SLOTS * 16
            device.write_doorbell(self._count(at), self._count(at + 8))
        WORD.pack_into(self.memory, 8, posted)
        return posted - taken
