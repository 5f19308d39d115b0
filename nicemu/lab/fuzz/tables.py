"""The tables of a fuzz bench, beside the world's: what the kernels that play peer, program and driver must know.

Row accessors work as those of the world: ``target(f, i)``, ``f`` being the address of the table of (base, count).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from nicemu import _jit
from nicemu.tables.record import record

FUZZ = record(
    "trap", "trap_row",      # as in CONTROL: an index out of range
    "random",                # state of the generator, 32 bits
    "number",                # packets or WQEs made so far
    "targets", "live",       # QPs; the first ``live`` of them take packets
    "regions", "queues", "srqs",
    "slot",                  # next command slot
    "events", "most_events",  # run since the last packet; more than so many is endless work
    "stuck",                 # Stuck: why the kernel gave up, 0: it did not
    "stuck_at",              # QP, queue or event kind of it
    "last_packet",           # row of the last packet made
    "last_target", "last_state", "multicast",  # whom it is for, and in which state that was; it goes to a group
    "classify",              # 1: count what became of each packet
    "dropped", "malformed", "bad_keys", "sender", "pushed",  # counters before it arrived
    "burst",                 # packets of a flood still to come: to the same target, at one moment
    "pace",                  # ns between two inputs
)  # fmt: skip

TARGET = record(
    "qp", "nic", "number", "kind",  # QP row, NIC number, QP number, Kind
    "state",                 # the state it is brought to, and back to
    "mailbox", "mask",       # QP_CONTEXT that sets it up, and what of it counts
    "record", "send_ring", "send_stride", "send_slots", "recv_ring", "recv_stride", "recv_slots",
    "peer",                  # row of the target it talks to (WQE fuzzing)
    "posts",                 # send WQEs posted when it is revived
)  # fmt: skip

REGION = record(
    "nic", "index", "key", "va", "length", "pages",
    "usable",                # PD of the targets, valid, in one piece: what a friendly peer would use
    "frames",                # host address of its frame numbers, int64 each
    "cold",                  # 1: the driver takes its pages away and brings them in
    "mailbox",               # host address of room for MTT entries
)  # fmt: skip

QUEUE = record("row", "nic", "number", "is_eq", "ring", "slots", "record", "eqn")

SHARED = record("row", "nic", "number", "ring", "slots", "stride", "record", "xrc")

HEALTHY = record(
    "qp", "record", "cq", "peer_record", "peer_cq",
    "source", "drop", "peer_source", "peer_written", "peer_received",  # host addresses of pages
    "rounds", "seen",
)  # fmt: skip
"""An honest pair between the others."""

COUNT = record("count")
"""Counters of what became of packets, then of completion statuses, then of async events."""


class Slot(IntEnum):
    """Position of each table."""

    FUZZ, TARGET, REGION, QUEUE, SHARED, HEALTHY, COUNT = range(7)


class Kind(IntEnum):
    """What a target is."""

    RC, RC_SRQ, UC, UC_SRQ, UD, UD_SRQ, XRC_INI, XRC_TGT = range(8)


class Stuck(IntEnum):
    """Why a kernel gave up."""

    NOTHING, TRAP, ENDLESS, HEALTHY_LATE, HEALTHY_FAILED, HEALTHY_BYTES, COMMAND, NOT_IDLE, LEAK = range(9)


class Outcome(IntEnum):
    """What became of a packet."""

    (
        MALFORMED,
        NOT_HEARD,
        BAD_KEY,
        DROPPED,
        QUEUED,
        ACCEPTED,
        REPLAYED,
        ACKED,
        RNR,
        NAK_SEQUENCE,
        NAK_INVALID,
        NAK_ACCESS,
        NAK_OPERATIONAL,
        IGNORED,
        HEEDED,
        DATA,
    ) = range(16)


KINDS, STATES, OPERATIONS, OUTCOMES = len(Kind), 7, 32, len(Outcome)
STATUSES_AT = KINDS * STATES * OPERATIONS * OUTCOMES
ASYNCS_AT = STATUSES_AT + 32
COUNTERS = ASYNCS_AT + 32

_TRAP = FUZZ.fields["trap"][1]  # type: ignore[index]


def _rows(slot: Slot, dtype: np.dtype) -> Any:
    return _jit.row_accessor(dtype, int(slot), _TRAP)


fuzz = _rows(Slot.FUZZ, FUZZ)
target = _rows(Slot.TARGET, TARGET)
region = _rows(Slot.REGION, REGION)
queue = _rows(Slot.QUEUE, QUEUE)
shared = _rows(Slot.SHARED, SHARED)
healthy = _rows(Slot.HEALTHY, HEALTHY)
counter = _rows(Slot.COUNT, COUNT)


class FuzzTables:
    """The tables; ``address`` is what kernels get."""

    # recarrays; numpy's types do not know record fields
    fuzz: Any
    target: Any
    region: Any
    queue: Any
    shared: Any
    healthy: Any
    count: Any

    def __init__(self, targets: int = 128, regions: int = 64, queues: int = 192) -> None:
        sizes = {
            Slot.FUZZ: (FUZZ, 1), Slot.TARGET: (TARGET, targets), Slot.REGION: (REGION, regions),
            Slot.QUEUE: (QUEUE, queues), Slot.SHARED: (SHARED, 32), Slot.HEALTHY: (HEALTHY, 1),
            Slot.COUNT: (COUNT, COUNTERS),
        }  # fmt: skip
        self.tables: list[np.recarray] = []
        self._vector = np.zeros((len(Slot), 2), np.int64)
        for slot, (dtype, count) in sizes.items():
            table = np.zeros(count, dtype).view(np.recarray)
            self.tables.append(table)
            self._vector[slot] = table.ctypes.data, count
            setattr(self, slot.name.lower(), table)
        self.address: int = self._vector.ctypes.data
        _jit.WORLDS[self.address] = self.tables

    def close(self) -> None:
        """Forget the tables."""
        _jit.WORLDS.pop(self.address, None)
