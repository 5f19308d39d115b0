"""Check mode of firmware: each call of a hook is compared with what a hook may do.

A hook may write the image's own state (rows of NIC_STATE and QP_STATE) and nothing else; its answer lies in the range
that :mod:`nicemu.nic.hook_table` states; asked twice in one state it answers the same and leaves the same state. What
breaks a rule stops the run, as a :class:`ConfigError` of one line.

The hook vector then holds Python functions that call the image's code: nothing is compiled for it, and without check
mode nothing of it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nicemu._jit.foreign import Unit, expose, unit_at
from nicemu.config.errors import ConfigError
from nicemu.nic.device import Device
from nicemu.nic.hook_table import ASKS, text_of_values
from nicemu.nic.hooks import Hook
from nicemu.tables.records import FAULTS_PER_QP, Slot

Place = tuple[str, int]
"""Table and row."""


def watch_hooks(device: Device) -> list[object]:
    """Put the check around every hook of a NIC. What is returned has to live as long as the NIC."""
    kept = []
    for hook in Hook:
        row = device.world.hook[int(device.row.hook_base) + hook]
        row.address, thunk = expose(_Watch(device, hook, unit_at(int(row.address))))
        kept.append(thunk)
    return kept


class _Watch:
    """A hook of one NIC, and what is looked at around its calls."""

    def __init__(self, device: Device, hook: Hook, unit: Unit) -> None:
        self.device, self.hook, self.unit, self.world = device, hook, unit, device.world
        self.rows = {slot.name.lower(): self.world.tables[slot].view(np.ndarray) for slot in WATCHED}

    def __call__(self, world: int, row: int, arg: int) -> int:
        rows, state = self._rows(row, arg), self._state(row)
        before, state_before = self._copies(rows), self._copies(state)
        answer = self.unit(world, row, arg)
        state_after = self._copies(state)
        self._nothing_written(rows, before, row)
        self._put(state, state_before)
        again = self.unit(world, row, arg)
        self._expect(again == answer and self._copies(state) == state_after, row,
                     f"the same answer and state when asked twice, given {answer}, then {again}")  # fmt: skip
        self._put(state, state_after)
        low_high = ASKS[self.hook].values
        in_range = any(low <= answer <= high for low, high in low_high)
        self._expect(in_range, row, f"an answer of {text_of_values(low_high)}, given {answer}")
        return answer if in_range else low_high[0][0]

    def _rows(self, row: int, arg: int) -> list[Place]:
        """The rows that the hook's object, its argument and their neighbours are."""
        found = [("control", 0), ("fabric", 0), ("nic", self.device.index + 1)]
        found += _OF[ASKS[self.hook].row](self.world, row)
        if self.hook == Hook.IOTLB_VICTIM:
            found += [("iotlb", arg + way) for way in range(int(self.device.row.iotlb_ways))]
        elif self.hook == Hook.IOTLB_FILL:
            found.append(("mkey", arg))
        return [(table, at) for table, at in dict.fromkeys(found) if 0 <= at < len(self.rows[table])]

    def _state(self, row: int) -> list[Place]:
        """The image's own records of them."""
        mine = [("nic_state", self.device.index + 1)]
        return [*mine, ("qp_state", row)] if ASKS[self.hook].row == "qp" else mine

    def _copies(self, places: list[Place]) -> list[tuple[int, ...]]:
        return [self.rows[table][at].item() for table, at in places]

    def _put(self, places: list[Place], copies: list[tuple[int, ...]]) -> None:
        for (table, at), copy in zip(places, copies, strict=True):
            self.rows[table][at] = copy

    def _nothing_written(self, rows: list[Place], before: list[tuple[int, ...]], row: int) -> None:
        for (table, at), old, new in zip(rows, before, self._copies(rows), strict=True):
            if old != new:
                fields = zip(self.rows[table].dtype.names or (), old, new, strict=True)
                self._expect(False, row, _written(table, at, *next(each for each in fields if each[1] != each[2])))

    def _expect(self, fine: bool, row: int, what: str) -> None:
        """Else the run ends here. The first complaint stays."""
        if fine or self.world.complaint is not None:
            return
        image, control = self.device.image.owner(self.hook), self.world.control[0]
        place = f"{ASKS[self.hook].row} row {row} of {self.device.name} at {int(control.now)} ns"
        text = f"hook {self.hook.name.lower()}, asked about {place}: expected {what}"
        self.world.complaint = ConfigError(text, file=str(image.path), line=image.line(self.hook))
        control.trap, control.trap_row = Slot.HOOK + 1, int(self.hook)


WATCHED = (Slot.CONTROL, Slot.NIC, Slot.QP, Slot.CQ, Slot.EQ, Slot.MSIX, Slot.MKEY, Slot.IOTLB, Slot.FAULT, Slot.SRQ,
           Slot.FABRIC, Slot.NIC_STATE, Slot.QP_STATE)  # fmt: skip


def _written(table: str, at: int, field: str, old: int, new: int) -> str:
    if table == "control" and field == "trap":
        return f"rows that exist, given a row of table {Slot(new - 1).name} out of range"
    return f"writes to its own state only, given {table} row {at} field {field}: {old} -> {new}"


def _of_qp(world: Any, row: int) -> Iterator[Place]:
    q, faults = world.qp[row], [row * FAULTS_PER_QP + i for i in range(FAULTS_PER_QP)]
    yield from (("qp", row), ("cq", int(q.send_cq)), ("cq", int(q.recv_cq)), ("srq", int(q.srq)))
    yield from (("fault", at) for at in faults)
    yield from (("mkey", int(world.fault[at].mkey)) for at in faults)
    yield "mkey", int(q.message_mkey)


def _of_eq(_: Any, row: int) -> Iterator[Place]:
    yield from (("eq", row), ("msix", row))


_OF = {
    "qp": _of_qp,
    "nic": lambda _, row: [("nic", row)],
    "cq": lambda _, row: [("cq", row)],
    "eq": _of_eq,
}
