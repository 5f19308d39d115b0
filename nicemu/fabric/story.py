"""Injected faults in words: for pcap comments, reports and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicemu.fabric.cable import name_of
from nicemu.fabric.fired import row_of
from nicemu.tables.records import FIRED_ROWS, ImpairKind, PacketField
from nicemu.tables.world import World
from nicemu.wire.opcode import name_of as opcode_name


def deed(kind: int, did: int, rule: Any) -> str:
    """What an impairment did; ``did`` is the row's detail, ``rule`` its IMPAIR row."""
    if kind == ImpairKind.REORDER:
        return f"held back {did} ns"
    if kind == ImpairKind.DUPLICATE:
        return f"duplicated, the copy {did} ns later"
    if kind == ImpairKind.CORRUPT:
        return f"flipped bit {did} from the BTH on"
    if kind == ImpairKind.DELAY:
        return f"delayed {did} ns"
    if kind == ImpairKind.REWRITE:
        new = did + int(rule.value) if rule.add else int(rule.value)
        return f"changed {PacketField(int(rule.field)).name.lower()} from {did:#x} to {new:#x}"
    return "lost"


def describe(world: World, names: Sequence[str], number: int) -> str:
    """Fault ``number`` in a line, with those that had hit the same packet before; ``names`` are the impairments'."""
    if not 0 < number <= int(world.fabric[0].fired):
        return f"fault {number}: there is none"
    row = world.fired[int(row_of(number))]
    if int(row.number) != number:
        return f"fault {number}: no longer kept (the last {FIRED_ROWS - 1} are)"
    i = int(row.impairment)
    rule = world.impair[i]
    text = deed(int(rule.kind), int(row.did), rule)
    name = opcode_name(int(row.transport) << 5 | int(row.operation))
    line = (
        f"fault {number} at {int(row.time)} ns on {name_of(int(row.link))}: impairment '{names[i - 1]}': {text}: "
        f"{name} psn {int(row.psn)} for qp {int(row.qpn)}"
    )
    previous = int(row.previous)
    return f"{line}; before it: {describe(world, names, previous)}" if previous else line
