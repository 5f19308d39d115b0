"""The bare loop for Python: two buffers, and messages between them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nicemu import _jit
from nicemu.bench.event_loop import kernel
from nicemu.bench.event_loop.tables import (
    CONTROL,
    EVENT,
    IOTLB_LINES,
    LINE,
    PACKET,
    PAGE_BITS,
    PAYLOAD_BYTES,
    QP,
    Slot,
)
from nicemu.bench.measure import Batch, Counts, Opener, Watch
from nicemu.tables.world import lazy_bytes

ROWS = {Slot.CONTROL: (CONTROL, 1), Slot.EVENT: (EVENT, 1 << 16), Slot.PACKET: (PACKET, 4096), Slot.QP: (QP, 1024),
        Slot.SOURCE_LINE: (LINE, IOTLB_LINES), Slot.TARGET_LINE: (LINE, IOTLB_LINES)}  # fmt: skip
WINDOW, PS_PER_BYTE, DELAY_NS = 128, 80, 1000
BATCH_BYTES, BATCH_MOST = 64 << 20, 65536


class Loop:
    """Messages of ``size`` bytes in packets of ``mtu``, over so many QPs."""

    def __init__(self, size: int, mtu: int, qps: int = 1, copies: bool = True) -> None:
        self.size, self.mtu, self.qps = size, mtu, qps
        tables: list[Any] = [np.zeros(rows, dtype).view(np.recarray) for dtype, rows in ROWS.values()]
        self.vector = np.array([(table.ctypes.data, len(table)) for table in tables], np.int64)
        self.tables, self.address = tables, self.vector.ctypes.data
        _jit.WORLDS[self.address] = tables
        self.payload = lazy_bytes(len(tables[Slot.PACKET]) * PAYLOAD_BYTES)
        self.source, self.target = lazy_bytes(size), lazy_bytes(size)
        self.source[:] = np.frombuffer(random.Random(1).randbytes(size), np.uint8)
        self.mtts = [self._mtt(buffer) for buffer in (self.source, self.target)]
        self._reset(copies)

    @staticmethod
    def _mtt(buffer: np.ndarray) -> np.ndarray:
        """A word a page of the buffer."""
        pages = -(-len(buffer) // PAYLOAD_BYTES)
        return buffer.ctypes.data + (np.arange(pages, dtype=np.int64) << PAGE_BITS)

    def _reset(self, copies: bool) -> None:
        control, packets = self.tables[Slot.CONTROL][0], self.tables[Slot.PACKET]
        packets.next = np.arange(1, len(packets) + 1)
        for line in (self.tables[Slot.SOURCE_LINE], self.tables[Slot.TARGET_LINE]):
            line.page = -1
        control.payload, control.copies = self.payload.ctypes.data, int(copies)
        control.source_mtt, control.target_mtt = (mtt.ctypes.data for mtt in self.mtts)
        control.mtu, control.message, control.window = self.mtu, self.size, max(2, WINDOW // self.qps)
        control.ps_per_byte, control.delay_ns = PS_PER_BYTE, DELAY_NS

    def batch(self, watch: Watch) -> Counts:
        """Send some messages of each QP."""
        control, qp = self.tables[Slot.CONTROL][0], self.tables[Slot.QP]
        each = max(1, min(BATCH_MOST, BATCH_BYTES // self.size) // self.qps)
        qp.left[: self.qps] = each
        events = self.tables[Slot.EVENT]
        for row in range(self.qps):
            events[row].time, events[row].kind, events[row].row = control.now, kernel.SEND, row
        control.pending, ran, began = self.qps, int(control.ran), int(control.now)
        with watch:
            kernel.run(self.address)
        messages = each * self.qps
        packets = messages * max(1, -(-self.size // self.mtu))
        assert int(qp.msn[: self.qps].sum()) % messages == 0, "a message is missing"
        return {"messages": messages, "packets": packets, "bytes": messages * self.size,
                "events": int(control.ran) - ran, "virtual_ns": int(control.now) - began}  # fmt: skip

    def close(self) -> None:
        """The bytes arrived; the tables go."""
        control = self.tables[Slot.CONTROL][0]
        assert control.trap == 0 and (not control.copies or (self.source == self.target).all()), (
            "the bare loop is wrong"
        )
        _jit.WORLDS.pop(self.address)


def event_loop(size: int, mtu: int = 4096, qps: int = 1, copies: bool = True) -> Opener:
    """Opener of a bare loop."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        loop = Loop(size, mtu, qps, copies)
        yield loop.batch
        loop.close()

    return opener
