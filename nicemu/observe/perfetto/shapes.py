"""What events look like, as tables for the encoder: of the device from ``FIELDS``, of the host as they come."""

from __future__ import annotations

from typing import Any

import numpy as np

from nicemu.observe.event_log import LAYOUT, Field
from nicemu.observe.perfetto.state import DTYPES, Slot
from nicemu.observe.perfetto.words import (
    FIXED,
    MM_EVENTS,
    MOST_SPANS,
    POSTS,
    PROGRAM,
    WAITS,
    Action,
    Block,
)
from nicemu.tables.trace import Ev
from nicemu.tables.world import address_of, lazy_bytes

FIRST_HOST = 64
"""Kinds from here on are shapes of host events."""
TEXT_BYTES = 1 << 26
ROWS = {Slot.SHAPE: 1 << 12, Slot.FIELD: 1 << 15, Slot.NAME: 1 << 15, Slot.TEXT: 1 << 20}
DEVICE: dict[Ev, tuple[Action, Block]] = {
    Ev.SEND: (Action.SEND, Block.PORT), Ev.RECEIVE: (Action.RECEIVE, Block.PORT),
    Ev.DMA: (Action.INSTANT, Block.DMA), Ev.CQE: (Action.CQE, Block.CQ), Ev.EQE: (Action.EQE, Block.EVENTS),
    Ev.INTERRUPT: (Action.INTERRUPT, Block.EVENTS), Ev.COMMAND: (Action.COMMAND, Block.COMMANDS),
    Ev.COMMAND_DONE: (Action.COMMAND_DONE, Block.COMMANDS), Ev.FAULT: (Action.FAULT, Block.PAGE_FAULTS),
    Ev.RESUME: (Action.RESUME, Block.PAGE_FAULTS), Ev.MTT_UPDATE: (Action.MTT_UPDATE, Block.TRANSLATION),
    Ev.MTT_ZAP: (Action.INSTANT, Block.TRANSLATION), Ev.RNR_NAK: (Action.INSTANT, Block.RESPONDER),
    Ev.NAK: (Action.INSTANT, Block.RESPONDER), Ev.RETRANSMIT: (Action.QP_INSTANT, Block.REQUESTER),
    Ev.TIMEOUT: (Action.QP_INSTANT, Block.REQUESTER), Ev.QP_STATE: (Action.QP_STATE, Block.REQUESTER),
    Ev.VIOLATION: (Action.INSTANT, Block.DMA), Ev.IOTLB_MISS: (Action.IOTLB_MISS, Block.IOTLB),
    Ev.BACKUP_RING: (Action.INSTANT, Block.RESPONDER), Ev.DOORBELL: (Action.QP_INSTANT, Block.REQUESTER),
    Ev.WQE: (Action.WQE, Block.REQUESTER), Ev.WQE_DONE: (Action.WQE_DONE, Block.REQUESTER),
    Ev.RECV_TAKEN: (Action.INSTANT, Block.RESPONDER), Ev.RNR_WAIT: (Action.RNR_WAIT, Block.REQUESTER),
    Ev.RNR_OVER: (Action.RNR_OVER, Block.REQUESTER), Ev.SQ_HELD: (Action.SQ_HELD, Block.REQUESTER),
    Ev.LINK_OUT: (Action.LINK, Block.PORT), Ev.LINK_IN: (Action.LINK, Block.PORT),
    Ev.QP_PATH: (Action.QP_PATH, Block.REQUESTER), Ev.RATE: (Action.QP_INSTANT, Block.REQUESTER),
    Ev.QP_CACHE_MISS: (Action.QP_INSTANT, Block.REQUESTER), Ev.LINK_DROP: (Action.LOST, Block.PORT),
}  # fmt: skip
"""How device events are drawn, and on the track of which block; others: at once, on the port's."""
SHOWN = {
    Ev.DMA: "DMA", Ev.IOTLB_MISS: "IOTLB miss", Ev.DROP: "drop", Ev.RNR_NAK: "RNR NAK", Ev.TIMEOUT: "ACK timeout",
    Ev.RNR_WAIT: "RNR wait", Ev.RNR_OVER: "RNR wait over", Ev.MTT_UPDATE: "MTT update", Ev.MTT_ZAP: "MTT zap",
    Ev.RETRANSMIT: "go back", Ev.DOORBELL: "doorbell", Ev.RECV_TAKEN: "receive WQE taken", Ev.RESUME: "resume",
    Ev.QP_PATH: "path", Ev.RATE: "rate", Ev.QP_CACHE_MISS: "QP context miss", Ev.VIOLATION: "DMA VIOLATION",
    Ev.BACKUP_RING: "into the backup ring", Ev.WQE_DONE: "retired", Ev.WQE: "fetched", Ev.INTERRUPT: "interrupt",
    Ev.INJECT: "injected fault", Ev.ECN_MARK: "ECN mark", Ev.LINK_PAUSE: "pause", Ev.LINK_DROP: "lost on the link",
}  # fmt: skip
NAMED_BY = {
    Ev.SEND: "opcode", Ev.RECEIVE: "opcode", Ev.LINK_OUT: "opcode", Ev.LINK_IN: "opcode", Ev.COMMAND: "opcode",
    Ev.COMMAND_DONE: "opcode", Ev.QP_STATE: "state", Ev.SQ_HELD: "reason", Ev.EQE: "type", Ev.CQE: "status",
}  # fmt: skip
SPANS = {
    "thread_wait": ("thread_wake", "waits", "what"), "fault_in": ("fault_in_done", "fault pages in", ""),
    "mtt_update": ("mtt_update_done", "update MTT", ""), "invalidate": ("invalidate_done", "take pages back", ""),
    "notifier_start": ("notifier_end", "invalidate range", ""), "poll": ("poll_done", "poll CQ", ""),
    "wait": ("wait_done", "wait", "what"),
}  # fmt: skip
"""Spans of host threads: what ends them, how they are shown, the field that names them."""
ENDS = {end: begin for begin, (end, _, _) in SPANS.items()}
assert len(SPANS) <= 1 << 8 and MOST_SPANS < 8
HOST: dict[str, tuple[Action, list[str]]] = {
    "doorbell": (Action.POST, ["thread", "nic", "bank", "number", "producer"]),
    "thread_start": (Action.THREAD_START, ["thread", "name", "delay"]), "thread_end": (Action.THREAD_END, ["thread"]),
    "fault_work": (Action.FAULT_WORK, ["thread", "nic", "qpn", "type"]),
    "fault_resolved": (Action.THREAD_INSTANT, ["thread"]),
}  # fmt: skip
"""Host events that are drawn their own way, with the fields that they must begin with."""
HOST_SHOWN = {"doorbell": "post", "fault_work": "resolve page fault", "fault_resolved": "resolved"}


class Shapes:
    """The tables, and which shape a host event has. ``fresh``: strings that the file does not know yet."""

    def __init__(self) -> None:
        self.tables: dict[Slot, Any] = {
            slot: lazy_bytes(rows * DTYPES[slot].itemsize).view(DTYPES[slot]).view(np.recarray)
            for slot, rows in ROWS.items()
        }
        self._pool = lazy_bytes(TEXT_BYTES)
        self._pool_at, self._pool_end = address_of(self._pool), 0
        self._iids: dict[str, int] = {}
        self._host: dict[tuple[Any, ...], int] = {}
        self._fields = self._names = 1
        self.fresh: list[tuple[int, str]] = []
        self._next = FIRST_HOST
        for text in FIXED:
            self.intern(text)
        for kind, (name, words) in LAYOUT.items():
            self._device(Ev(kind), name, words)

    def intern(self, text: str) -> int:
        """The iid of a string."""
        iid = self._iids.get(text)
        if iid is None:
            iid = self._iids[text] = len(self._iids) + 1
            data = text.encode()
            row = self.tables[Slot.TEXT][iid]
            row.address, row.length, row.worker = self._pool_at + self._pool_end, len(data), int("/" in text)
            self._pool[self._pool_end : self._pool_end + len(data)] = np.frombuffer(data, np.uint8)
            self._pool_end += len(data)
            self.fresh.append((iid, text))
        return iid

    def host(self, kind: str, fields: dict[str, int | str]) -> int:
        """The shape of a host event."""
        key = kind, *fields, *map(type, fields.values())
        found = self._host.get(key)
        if found is None:
            found = self._host[key] = self._next
            self._next += 1
            self._add_host(found, kind, fields)
        return found

    def _device(self, event: Ev, name: str, words: list[list[Field]]) -> None:
        row = self.tables[Slot.SHAPE][int(event)]
        row.first = self._fields
        row.action, row.place = DEVICE.get(event, (Action.INSTANT, Block.PORT))
        for number, fields in enumerate(words):
            for part, (field, names) in enumerate(fields, start=len(fields) > 1):
                if NAMED_BY.get(event) == field:
                    row.name_field = self._fields
                self._field(number, part, field, names)
        row.fields = self._fields - row.first
        row.category, row.name = self.intern(name), self.intern(SHOWN.get(event, name))

    def _field(self, word: int, part: int, name: str, names: dict[int, str]) -> None:
        row = self.tables[Slot.FIELD][self._fields]
        self._fields += 1
        row.word, row.part, row.name = word, part, self.intern(name)
        if names:
            row.names, row.named = self._enum(names)

    def _enum(self, names: dict[int, str]) -> tuple[int, int]:
        """Rows of NAME for the values of an enum."""
        first, count = self._names, max(names) + 1
        for value, text in names.items():
            if value >= 0:
                self.tables[Slot.NAME][first + value].iid = self.intern(text)
        self._names += count
        return first, count

    def _add_host(self, at: int, kind: str, fields: dict[str, int | str]) -> None:
        row = self.tables[Slot.SHAPE][at]
        row.first, row.fields = self._fields, len(fields)
        row.category = self.intern(kind)
        shown, row.place, row.action, named = self._drawn(row, kind, fields)
        row.name = self.intern(shown)
        for number, (name, value) in enumerate(fields.items()):
            if name == "thread":
                row.thread = number
            if name == named:
                row.name_field = self._fields
            self._field(number, 0, name, {})
            self.tables[Slot.FIELD][self._fields - 1].text = int(isinstance(value, str))

    def _drawn(self, row: Any, kind: str, fields: dict[str, int | str]) -> tuple[str, int, Action, str]:
        """What a host event is shown as, its track, its action, and the field that names it."""
        places = {"doorbell": POSTS, "poll": WAITS, "poll_done": WAITS, "wait": WAITS, "wait_done": WAITS}
        place = places.get(kind, PROGRAM if kind.startswith("thread_") else MM_EVENTS)
        if kind in SPANS and "thread" in fields:
            row.span = 1 + list(SPANS).index(kind)
            return SPANS[kind][1], place, Action.SPAN, SPANS[kind][2]
        if kind in ENDS and "thread" in fields:
            row.span = 1 + list(SPANS).index(ENDS[kind])
            return kind, place, Action.SPAN_DONE, ""
        action, wanted = HOST.get(kind, (Action.HOST_INSTANT, []))
        if list(fields)[: len(wanted)] != wanted:
            action = Action.HOST_INSTANT
        return HOST_SHOWN.get(kind, kind), place, action, "name" if kind == "thread_start" else ""
