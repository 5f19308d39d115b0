"""The writer of Perfetto traces, in the place of ``EventLog``.

Events of the host become rows of the trace table, like those of the device; compiled code turns all of them into
packets. What is kept in memory is the tables of ``state`` and one buffer.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nicemu._jit import JIT, WORLDS
from nicemu._jit.object_code import folder_of
from nicemu.observe.limited import Limited
from nicemu.observe.perfetto import messages
from nicemu.observe.perfetto.encode import LONGEST, encode, finish, finish_qps
from nicemu.observe.perfetto.opening import first_track, gauge_track, opening
from nicemu.observe.perfetto.packets import SLOTS
from nicemu.observe.perfetto.shapes import Shapes
from nicemu.observe.perfetto.state import DTYPES, LANES, WORKS, Slot
from nicemu.observe.perfetto.threads import THREADS
from nicemu.observe.perfetto.words import CABLE_IN, CABLE_OUT, GAUGES
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.trace import CONTINUED, MAX_TRACE, TRACE_WORDS
from nicemu.tables.world import World, address_of, lazy_bytes

BUFFER_BYTES = 1 << 20
Encode = Callable[[int, int, int], int]
ROW = struct.Struct("<8q")


def _loaded(kernel: Any) -> Encode:
    """A kernel, ready to be called; compiled unless the cache has it, with a line that says so."""
    if not JIT:
        return kernel  # type: ignore[no-any-return]
    if not folder_of(Path(__file__).parent).exists():
        print("nicemu: compiling the trace writer (once per release)", file=sys.stderr, flush=True)
    return kernel.load()  # type: ignore[no-any-return]


class PerfettoLog:
    """Writes the trace to ``stream`` while the run goes on. ``names``: of the devices."""

    def __init__(self, world: World, stream: BinaryIO | Limited, names: list[str]) -> None:
        self.world, self.stream = world, stream
        self.lines = 0
        self.pid = os.getpid()
        self.shapes = Shapes()
        self._encode, self._finish_qps, self._finish = (_loaded(k) for k in (encode, finish_qps, finish))
        self._place(world, names)
        control = world.control.view(np.ndarray)
        self._on, self._count, self._now, self._ran = (
            control[name].data for name in ("trace", "trace_count", "now", "ran")
        )
        self._rows = world.trace.view(np.ndarray).view(np.uint8).data
        self._buffer = lazy_bytes(BUFFER_BYTES)
        self._view, self._start = self._buffer.data, address_of(self._buffer)
        self._at = self.tables[Slot.SCRIBE].view(np.ndarray)["at"].data
        self._scribe.end = self._start + BUFFER_BYTES - LONGEST
        self._tell_strings(messages.CLEARED)
        for packet in opening(names):
            stream.write(packet)
        world.control[0].trace = 1

    def _place(self, world: World, names: list[str]) -> None:
        """Make the tables and the vector that compiled code finds them by."""
        nics, qps = world.capacity.nics, world.capacity.qps
        rows = {
            Slot.SCRIBE: 1, Slot.QP: nics * qps + 1, Slot.WR: (nics * qps + 1) * LANES,
            Slot.FAULT: (nics * qps + 1) * FAULTS_PER_QP, Slot.WORK: 2 * (nics + 1) * WORKS, Slot.NIC: nics + 1,
            Slot.LINK: 2 * nics + 1, Slot.THREAD: THREADS + 1, Slot.COMMAND: (nics + 1) * SLOTS,
            Slot.COUNTER: (nics + 1) * len(GAUGES), Slot.LANE: 2 * LANES + 1, Slot.SEEN: nics * qps + 2,
        }  # fmt: skip
        tables = dict(self.shapes.tables)
        for slot, count in rows.items():
            dtype = DTYPES[slot]
            tables[slot] = lazy_bytes(count * dtype.itemsize).view(dtype).view(np.recarray)
        self.tables = [tables[slot] for slot in Slot]
        self._vector = np.array([(table.ctypes.data, len(table)) for table in self.tables], np.int64)
        self._address = int(self._vector.ctypes.data)
        WORLDS[self._address] = self.tables
        self._scribe = scribe = self.tables[Slot.SCRIBE][0]
        scribe.rows, scribe.links, scribe.nics, scribe.qps = world.trace.ctypes.data, 2 * nics, nics, qps
        scribe.tracks = first_track(nics)
        for k in range(len(names)):
            tables[Slot.NIC][k + 1].first = first_track(k)
            tables[Slot.LINK][2 * k + 1].track = first_track(k) + CABLE_OUT
            tables[Slot.LINK][2 * k + 2].track = first_track(k) + CABLE_IN
            for gauge in GAUGES:
                tables[Slot.COUNTER][(k + 1) * len(GAUGES) + gauge].track = gauge_track(k, gauge)

    def _tell_strings(self, flags: int = messages.NEEDED) -> None:
        """The file learns the strings that came up."""
        fresh, self.shapes.fresh = self.shapes.fresh, []
        self.stream.write(messages.packet(messages.strings(fresh), flags))

    def drain(self, world: World | None = None) -> None:
        """Move rows of the table into the file."""
        rows = self._count[0]
        if not rows or os.getpid() != self.pid:  # a forked child has a copy of the parent's rows
            return
        self._count[0] = 0
        done = 0
        while done < rows:
            done = self._written(self._encode, done, rows)
        self.lines += rows

    def _written(self, kernel: Encode, a: int, b: int) -> int:
        """Run a kernel with an empty buffer and write what it made; its answer."""
        self._at[0] = self._start
        answer = kernel(self._address, a, b)
        self.stream.write(self._view[: self._at[0] - self._start])
        return answer

    def host(self, kind: str, **fields: int | str) -> None:
        """One event of the host: program, driver or mm."""
        if not self._on[0] or os.getpid() != self.pid:
            return
        shape = self.shapes.host(kind, fields)
        values = [self.shapes.intern(v.replace(" ", "_")) if isinstance(v, str) else int(v) for v in fields.values()]
        if self.shapes.fresh:
            self._tell_strings()
        now, ran = self._now[0], self._ran[0]
        values += [0] * (-len(values) % TRACE_WORDS or (TRACE_WORDS if not values else 0))
        for first in range(0, len(values), TRACE_WORDS):
            self._row(now, ran, CONTINUED if first else shape, values[first : first + TRACE_WORDS])
        if self._count[0] >= MAX_TRACE:
            self.drain()

    def _row(self, now: int, ran: int, kind: int, values: list[int]) -> None:
        """A row of the trace table."""
        count = self._count[0]
        ROW.pack_into(self._rows, count * ROW.size, now, ran, kind, 0, *values)
        self._count[0] = count + 1

    def flush(self) -> None:
        """The file is complete up to here. Before a fork: the child has a copy of what is not written yet."""
        self.drain()
        self.stream.flush()

    def close(self) -> None:
        """Write what is left, and the ends of what is open."""
        self.drain()
        if os.getpid() == self.pid:
            now, row = self._now[0], 1
            while row:
                row = self._written(self._finish_qps, row, now)
            self._written(self._finish, now, 0)
        self.stream.close()
        WORLDS.pop(self._address, None)
