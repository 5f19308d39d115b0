"""The event log: device events (TRACE rows) and host events in one order, one text line each.

A line is ``time_ns who event name=value ...``. Only canonical values go in: MR numbers, page numbers, frame ids; never
a host address. One seed gives one log, byte for byte.
"""

from __future__ import annotations

import os
from typing import TextIO

from nicemu.abi.command import Command
from nicemu.abi.rings import EqeType, FaultType
from nicemu.abi.verbs import QpState, WcStatus
from nicemu.tables.fabric_records import LinkDrop
from nicemu.tables.records import ViolationKind
from nicemu.tables.trace import Ev
from nicemu.tables.world import World
from nicemu.wire.opcode import RcOpcode

FIELDS: dict[Ev, tuple[str, ...]] = {
    Ev.SEND: ("opcode:rc", "psn", "qpn", "bytes"),
    Ev.RECEIVE: ("opcode:rc", "psn", "qpn", "bytes"), Ev.DROP: ("opcode:rc", "psn", "qpn"),
    Ev.DMA: ("mr", "page", "bytes", "write"), Ev.CQE: ("cqn", "qpn", "status:wc", "opcode"),
    Ev.EQE: ("eqn", "type:eqe", "subtype", "data"), Ev.INTERRUPT: ("vector",), Ev.COMMAND: ("opcode:command", "slot"),
    Ev.COMMAND_DONE: ("opcode:command", "slot", "status"), Ev.FAULT: ("type:fault", "qpn", "mr", "page"),
    Ev.RESUME: ("type:fault", "qpn", "error", "merged"), Ev.MTT_UPDATE: ("mr", "page", "pages"),
    Ev.MTT_ZAP: ("mr", "page", "pages", "drain_ns"), Ev.RNR_NAK: ("qpn", "psn", "timer"),
    Ev.NAK: ("qpn", "psn", "syndrome"), Ev.RETRANSMIT: ("qpn", "psn"), Ev.TIMEOUT: ("qpn", "psn"),
    Ev.QP_STATE: ("qpn", "state:qp"), Ev.VIOLATION: ("kind:violation", "mr", "page", "frame"),
    Ev.IOTLB_MISS: ("mr", "page"), Ev.BACKUP_RING: ("qpn", "psn", "bytes", "held"),
    Ev.INJECT: ("impairment", "number", "opcode:rc", "psn"),
    Ev.LINK_DROP: ("opcode:rc", "psn", "qpn", "reason:link"), Ev.ECN_MARK: ("opcode:rc", "psn", "qpn", "queued"),
    Ev.LINK_PAUSE: ("paused",), Ev.CNP: ("sent", "qpn", "peer"),
}  # fmt: skip
NAMES = {"rc": RcOpcode, "wc": WcStatus, "eqe": EqeType, "command": Command, "fault": FaultType, "qp": QpState,
         "violation": ViolationKind, "link": LinkDrop}  # fmt: skip


def _fields(event: Ev) -> list[tuple[str, dict[int, str]]]:
    """Field names of an event with the names of their values."""
    parts = [name.partition(":") for name in FIELDS[event]]
    return [(name, {int(m): m.name for m in NAMES[kind]} if kind else {}) for name, _, kind in parts]


LAYOUT = {int(event): (event.name, _fields(event)) for event in Ev}


class EventLog:
    """Writes the log to ``stream`` (a file, or any list-like with ``write``)."""

    def __init__(self, world: World, stream: TextIO) -> None:
        self.world, self.stream = world, stream
        self.lines = 0
        self.pid = os.getpid()
        world.control[0].trace = 1

    def drain(self, world: World | None = None) -> None:
        """Move the device's rows into the log."""
        control = self.world.control[0]
        count = int(control.trace_count)
        if not count or os.getpid() != self.pid:  # a forked child has a copy of the parent's rows
            return
        control.trace_count = 0
        write = self.stream.write
        for time, _, kind, nic, *values in self.world.trace[:count].tolist():
            name, fields = LAYOUT[kind]
            named = zip(fields, values, strict=False)
            text = " ".join([f"{field}={names.get(value, value)}" for (field, names), value in named])
            write(f"{time:>12} nic{nic - 1} {name} {text}\n")
        self.lines += count

    def host(self, kind: str, **fields: int | str) -> None:
        """One event of the host: driver or mm."""
        self.drain()
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        self.stream.write(f"{self.world.now:>12} host {kind} {text}\n")
        self.lines += 1

    def flush(self) -> None:
        """The file is complete up to here. Before a fork: the child has a copy of what is not written yet."""
        self.drain()
        self.stream.flush()

    def close(self) -> None:
        """Write what is left."""
        self.drain()
        self.stream.close()
