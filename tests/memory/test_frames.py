"""Frames: ids, kinds, references, re-pointing, poison, quarantine; a property test against a simple model."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nicemu.memory import Frames, OutOfFrames
from nicemu.memory import frames as module
from nicemu.memory.frames import POISON
from nicemu.tables import World
from nicemu.tables.records import FrameKind
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=256, nodes=8, violations=8, trace=8)
MODEL, ARENA, PROGRAM, FREE = FrameKind.MODEL, FrameKind.ARENA, FrameKind.PROGRAM, FrameKind.FREE


@pytest.fixture
def frames():
    """40 frames of RAM, 20 pages of simulated RAM."""
    world = World(SMALL)
    yield Frames(world, 40, 20)
    world.close()


def test_frame_0_is_nobodys(frames):
    assert [frames.allocate(ARENA, 4096 * n) for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert frames.table.pointer[0] == 0 and frames.table.kind[0] == FREE


def test_a_model_frame_comes_zeroed_and_owns_its_bytes(frames):
    first, second = frames.allocate(MODEL), frames.allocate(MODEL)
    frames.bytes_of(first)[:] = 7
    assert not frames.bytes_of(second).any()
    frames.free(first)
    again = frames.allocate(MODEL)
    assert not frames.bytes_of(again).any()


def test_a_freed_model_page_is_poisoned(frames):
    frame = frames.allocate(MODEL)
    bytes_ = frames.bytes_of(frame)
    frames.free(frame)
    assert (bytes_ == POISON).all()


@pytest.mark.parametrize("kind", [MODEL, ARENA, PROGRAM])
def test_freeing_moves_the_generation_on_and_points_at_the_graveyard(frames, kind):
    frame = frames.allocate(kind, 0 if kind == MODEL else 0x1000)
    generation = int(frames.table.generation[frame])
    frames.free(frame)
    row = frames.table[frame]
    assert (row.generation, row.kind, row.pointer) == (generation + 1, FREE, frames.graveyard)


def test_references(frames):
    frame = frames.allocate(MODEL)
    frames.get(frame)
    assert not frames.put(frame)
    assert frames.put(frame)
    assert frames.table.kind[frame] == FREE and frames.allocated == 0


def test_a_retired_frame_lives_on_without_its_bytes(frames):
    frame = frames.allocate(ARENA, 0x1000)
    frames.retire(frame)
    row = frames.table[frame]
    assert (row.pointer, row.kind, row.refcount) == (frames.graveyard, ARENA, 1)


def test_ram_bounds_frames_of_any_kind(frames):
    for n in range(40):
        frames.allocate(MODEL if n < 20 else ARENA, 0 if n < 20 else 4096 * n)
    assert frames.available == 0
    with pytest.raises(OutOfFrames, match="40"):
        frames.allocate(ARENA, 1)
    frames.free(25)
    frames.allocate(PROGRAM, 1)
    assert frames.peak == 40


def test_simulated_ram_has_a_bound_of_its_own(frames):
    for _ in range(20):
        frames.allocate(MODEL)
    with pytest.raises(OutOfFrames, match="model pages"):
        frames.allocate(MODEL)
    assert frames.allocated == 20


@pytest.mark.parametrize("kind, count", [(MODEL, 21), (ARENA, 41)])
def test_many_are_all_or_none(frames, kind, count):
    with pytest.raises(OutOfFrames):
        frames.allocate_many(kind, count, np.arange(count) * 4096)
    assert frames.allocated == 0
    assert len(frames.allocate_many(kind, 20, np.arange(20) * 4096)) == 20


@pytest.mark.parametrize("kind", [MODEL, ARENA])
@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_many_are_like_one_by_one(frames, kind, count):
    pointers = np.arange(count) * 4096 + 0x100000
    many = frames.allocate_many(kind, count, pointers)
    assert len(set(many.tolist())) == count == frames.allocated
    for frame, pointer in zip(many.tolist(), pointers.tolist(), strict=True):
        row = frames.table[frame]
        assert (row.kind, row.refcount) == (kind, 1)
        assert row.pointer == (pointer if kind == ARENA else frames.slot_address(int(row.slot)))
    if count:
        frames.free_many(many)
    assert frames.allocated == 0 and not frames.table.kind[many].any()


def test_a_freed_id_rests_before_it_is_used_again(frames, monkeypatch):
    monkeypatch.setattr(module, "QUARANTINE", 10)
    first = frames.allocate(ARENA, 1)
    frames.free(first)
    seen = []
    for _ in range(12):
        frame = frames.allocate(ARENA, 1)
        seen.append(frame)
        frames.free(frame)
    assert first not in seen[:10] and first in seen


def test_operations_have_names(frames):
    assert frames.operation_name(frames.operation_index("munmap")) == "munmap"
    assert frames.operation_index("munmap") == frames.operation_index("munmap") != frames.operation_index("fork")
    assert frames.operation_name(0) == "none"


def test_stamps_grow_and_mark_frames(frames):
    a, b = frames.allocate(ARENA, 1), frames.allocate(ARENA, 2)
    frames.stamp_invalidated([a], "zap")
    frames.stamp_protected(np.array([a, b]), "fork")
    stamps = frames.world.frame_stamp
    assert stamps.invalidated[a] == 1 and stamps.invalidated[b] == 0
    assert stamps.protected[a] == stamps.protected[b] == 2
    assert frames.operation_name(int(stamps.operation[b])) == "fork"


def test_a_new_life_has_no_stamps(frames, monkeypatch):
    monkeypatch.setattr(module, "QUARANTINE", 0)
    frame = frames.allocate(MODEL)
    frames.stamp_invalidated(frame, "zap")
    frames.free(frame)
    frames.free(frames.allocate(MODEL))
    lives = [frames.allocate(MODEL) for _ in range(3)]
    assert frame in lives
    assert frames.world.frame_stamp.invalidated[frame] == 0 and frames.table.refcount[frame] == 1


class FrameLives(RuleBasedStateMachine):
    """Allocate, free, retire in any order: ids are unique, bytes are nobody else's, counts are right."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SMALL)
        self.frames = Frames(self.world, 30, 16)
        self.live: dict[int, int] = {}
        self.count = 0

    @rule(many=st.integers(1, 4))
    def allocate(self, many):
        room = min(self.frames.available, 16 - len(self.live))
        if many > room:
            with pytest.raises(OutOfFrames):
                self.frames.allocate_many(MODEL, many)
            return
        for frame in self.frames.allocate_many(MODEL, many).tolist():
            assert frame not in self.live and not self.frames.bytes_of(frame).any()
            self.count += 1
            self.live[frame] = self.count % 250 + 1
            self.frames.bytes_of(frame)[:] = self.live[frame]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data):
        frame = data.draw(st.sampled_from(sorted(self.live)))
        del self.live[frame]
        assert self.frames.put(frame)

    @invariant()
    def bytes_are_their_own(self):
        assert self.frames.allocated == len(self.live) <= self.frames.peak
        for frame, value in self.live.items():
            assert (self.frames.bytes_of(frame)[::512] == value).all()

    def teardown(self):
        self.world.close()


TestFrameLives = FrameLives.TestCase
TestFrameLives.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
