"""Free pages of simulated RAM that compaction sets aside are not taken meanwhile."""

from __future__ import annotations

import numpy as np

from nicemu.memory.slots import Slots


def test_neither_freed_nor_fresh_pages_of_the_block_are_taken() -> None:
    slots = Slots(32)
    taken = [slots.take() for _ in range(10)]
    for slot in taken[4:8]:
        slots.give(slot)
    aside = slots.set_aside(4, 16)
    assert sorted(aside.tolist()) == [4, 5, 6, 7, *range(10, 16)] and slots.free == 16
    assert all(slots.take() >= 16 for _ in range(16)) and slots.free == 0


def test_they_come_back_and_are_zero_when_taken() -> None:
    slots = Slots(8)
    for slot in [slots.take() for _ in range(8)]:
        slots.page(slot)[:] = 1
        slots.give(slot)
    slots.give_back(slots.set_aside(0, 8))
    assert slots.free == 8
    for slot in slots.take_many(8):
        assert not np.any(slots.page(int(slot)))


def test_fresh_pages_before_the_block_stay_available() -> None:
    slots = Slots(32)
    assert not len(slots.set_aside(8, 16)) and slots.take() == 0
