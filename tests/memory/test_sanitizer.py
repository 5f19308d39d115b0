"""The sanitizer's judgement of one DMA: every combination of stamps, generation, direction."""

import itertools

import pytest

from nicemu._jit import entry
from nicemu.abi.command import mtt_entry
from nicemu.memory import sanitizer
from nicemu.tables import World
from nicemu.tables.records import ViolationKind
from nicemu.tables.rows import segment
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=3, sq_entries=8, packets=8, frames=8, nodes=8, violations=1024, trace=64)
INVALIDATED, FREED, PROTECTED = ViolationKind.INVALIDATED, ViolationKind.FREED, ViolationKind.WRITE_PROTECTED


@entry("void(int64, int64, int64)")
def check(world, index, write):
    """``sanitizer.check`` of a segment row for Python."""
    sanitizer.check(world, 1, segment(world, index), write)


@pytest.fixture
def world():
    """A world with the sanitizer on and one segment that translates to frame 3."""
    made = World(SMALL)
    made.control[0].sanitizer = 1
    made.mkey.number[2] = 77
    row = made.segment[1]
    row.frame, row.mkey, row.page, row.generation = 3, 2, 5, 4
    made.frame.generation[3] = 4
    yield made
    made.close()


def judge(world, made: int, write: bool) -> list[ViolationKind]:
    """Move the segment now, translated at stamp ``made``."""
    world.control[0].violations = 0
    world.segment[1].entry = mtt_entry(3, True, made)
    check(world.address, 1, int(write))
    return [ViolationKind(int(row.kind)) for row in world.violation[: int(world.control[0].violations)]]


@pytest.mark.parametrize(
    "made, invalidated, protected, write", list(itertools.product([5, 6, 7], [0, 6], [0, 6], [False, True]))
)
def test_a_translation_older_than_what_happened_to_its_page_is_a_violation(world, made, invalidated, protected, write):
    world.frame_stamp.invalidated[3], world.frame_stamp.protected[3] = invalidated, protected
    expected = []
    if made < invalidated:
        expected = [INVALIDATED]
    elif write and made < protected:
        expected = [PROTECTED]
    assert judge(world, made, write) == expected


def test_a_frame_freed_since_is_worse_than_all_else(world):
    world.frame.generation[3] = 5
    world.frame_stamp.invalidated[3] = world.frame_stamp.protected[3] = 100
    assert judge(world, 1, True) == [FREED]
    assert judge(world, 200, False) == [FREED]


def test_switched_off_it_says_nothing(world):
    world.control[0].sanitizer = 0
    world.frame.generation[3] = 5
    assert judge(world, 1, True) == []


def test_the_report_keeps_both_histories(world):
    world.control[0].now = 1000
    world.segment[1].time = 400
    world.frame_stamp.invalidated[3], world.frame_stamp.operation[3] = 9, 2
    judge(world, 8, False)
    row = world.violation[0]
    assert (row.nic, row.mkey, row.page, row.frame, row.write) == (1, 77, 5, 3, 0)
    assert (row.time, row.translated_at, row.made_stamp, row.taken_stamp, row.operation) == (1000, 400, 8, 9, 2)


def test_the_table_does_not_overflow(world):
    world.frame.generation[3] = 5
    world.segment[1].entry = mtt_entry(3, True, 1)
    for _ in range(1100):
        check(world.address, 1, 1)
    assert world.control[0].violations == 1100 and world.control[0].trap == 0
