"""The event log: device events (TRACE rows) and host events in one order, one text line each.

A line is ``time_ns who event name=value ...``. Only canonical values go in: MR numbers, page numbers, frame ids; never
a host address. One seed gives one log, byte for byte.
"""

from __future__ import annotations

import os
from typing import TextIO

import numpy as np

from nicemu.abi.command import Command
from nicemu.abi.rings import Doorbell, EqeType, FaultType
from nicemu.abi.verbs import QpState, QpType, WcStatus, WrOpcode
from nicemu.observe.limited import Limited
from nicemu.tables.fabric_records import LinkDrop
from nicemu.tables.records import ViolationKind
from nicemu.tables.trace import Ev, Held
from nicemu.tables.world import World
from nicemu.wire.opcode import RcOpcode

FIELDS: dict[Ev, tuple[str, ...]] = {
    Ev.SEND: ("opcode:rc", "psn", "qpn", "bytes|source"),
    Ev.RECEIVE: ("opcode:rc", "psn", "qpn", "bytes|source"), Ev.DROP: ("opcode:rc", "psn", "qpn"),
    Ev.DMA: ("mr", "page", "bytes", "write"), Ev.CQE: ("cqn", "qpn", "status:wc", "opcode|index"),
    Ev.EQE: ("eqn", "type:eqe", "subtype", "data"), Ev.INTERRUPT: ("vector", "lost", "flight_ns"),
    Ev.COMMAND: ("opcode:command", "slot"),
    Ev.COMMAND_DONE: ("opcode:command", "slot", "status"), Ev.FAULT: ("type:fault", "qpn|index", "mr", "page"),
    Ev.RESUME: ("type:fault", "qpn", "error", "merged"), Ev.MTT_UPDATE: ("mr", "page", "pages"),
    Ev.MTT_ZAP: ("mr", "page", "pages", "drain_ns"), Ev.RNR_NAK: ("qpn", "psn", "timer"),
    Ev.NAK: ("qpn", "psn", "syndrome"), Ev.RETRANSMIT: ("qpn", "psn"), Ev.TIMEOUT: ("qpn", "psn"),
    Ev.QP_STATE: ("qpn", "state:qp"), Ev.VIOLATION: ("kind:violation", "mr", "page", "frame"),
    Ev.IOTLB_MISS: ("mr", "page", "ns"), Ev.BACKUP_RING: ("qpn", "psn", "bytes", "held"),
    Ev.DOORBELL: ("qpn", "bank:doorbell", "producer"),
    Ev.WQE: ("qpn", "index", "opcode:wr|first_psn", "bytes|last_psn"),
    Ev.WQE_DONE: ("qpn", "index", "status:wc", "opcode:wr|signaled"),
    Ev.RECV_TAKEN: ("qpn", "index", "srqn", "bytes"), Ev.RNR_WAIT: ("qpn", "psn", "ns"), Ev.RNR_OVER: ("qpn",),
    Ev.SQ_HELD: ("qpn", "index", "reason:held"), Ev.LINK_OUT: ("opcode:rc", "psn", "qpn", "wire_ns"),
    Ev.LINK_IN: ("opcode:rc", "psn", "qpn", "wire_ns"), Ev.QP_PATH: ("qpn", "peer", "peer_qpn", "type:qptype"),
    Ev.RATE: ("qpn", "kbps"), Ev.QP_CACHE_MISS: ("qpn", "ns"),
    Ev.INJECT: ("impairment", "number", "opcode:rc", "psn"),
    Ev.LINK_DROP: ("opcode:rc", "psn", "qpn", "reason:link"), Ev.ECN_MARK: ("opcode:rc", "psn", "qpn", "queued"),
    Ev.LINK_PAUSE: ("paused",), Ev.CNP: ("sent", "qpn", "peer"),
}  # fmt: skip
"""Of each of the four words its field, or two that share it, the first in the low 32 bits; after a colon what names its
values."""
NAMES = {"rc": RcOpcode, "wc": WcStatus, "eqe": EqeType, "command": Command, "fault": FaultType, "qp": QpState,
         "violation": ViolationKind, "link": LinkDrop, "doorbell": Doorbell, "wr": WrOpcode, "held": Held,
         "qptype": QpType}  # fmt: skip
Field = tuple[str, dict[int, str]]


def _field(text: str) -> Field:
    """Name of a field, and the names of its values."""
    name, _, kind = text.partition(":")
    return name, {int(m): m.name for m in NAMES[kind]} if kind else {}


LAYOUT: dict[int, tuple[str, list[list[Field]]]] = {
    int(event): (event.name, [[_field(text) for text in word.split("|")] for word in FIELDS[event]]) for event in Ev
}


def said(fields: list[Field], value: int) -> str:
    """`` name=value`` of the fields of one word."""
    if len(fields) == 1:
        ((name, names),) = fields
        return f" {name}={names.get(value, value)}"
    return said(fields[:1], value & 0xFFFFFFFF) + said(fields[1:], value >> 32)


def word(value: int | str) -> int | str:
    """A value without spaces."""
    return value.replace(" ", "_") if isinstance(value, str) else int(value)


class EventLog:
    """Writes the log to ``stream`` (a file, or any list-like with ``write``)."""

    def __init__(self, world: World, stream: TextIO | Limited) -> None:
        self.world, self.stream = world, stream
        self.lines = 0
        self.pid = os.getpid()
        control = world.control.view(np.ndarray)
        self._count, self._now = (control[name].data for name in ("trace_count", "now"))
        world.control[0].trace = 1

    def drain(self, world: World | None = None) -> None:
        """Move the device's rows into the log."""
        count = self._count[0]
        if not count or os.getpid() != self.pid:  # a forked child has a copy of the parent's rows
            return
        self._count[0] = 0
        write = self.stream.write
        for time, _, kind, nic, *values in self.world.trace[:count].tolist():
            name, words = LAYOUT[kind]
            text = "".join(map(said, words, values))
            write(f"{time:>12} nic{nic - 1} {name}{text}\n")
        self.lines += count

    def host(self, kind: str, **fields: int | str) -> None:
        """One event of the host: program, driver or mm."""
        if self._count[0]:
            self.drain()
        text = "".join([f" {name}={word(value)}" for name, value in fields.items()])
        self.stream.write(f"{self._now[0]:>12} host {kind}{text}\n")
        self.lines += 1

    def flush(self) -> None:
        """The file is complete up to here. Before a fork: the child has a copy of what is not written yet."""
        self.drain()
        self.stream.flush()

    def close(self) -> None:
        """Write what is left."""
        self.drain()
        self.stream.close()
