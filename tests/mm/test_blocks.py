"""Blocks of consecutive frames: aligned, zeroed, made of freed ids when the fresh ones are gone."""

from __future__ import annotations

import numpy as np
import pytest

from nicemu.memory.blocks import Blocks
from nicemu.memory.frames import Frames, OutOfFrames
from nicemu.tables.records import FrameKind
from nicemu.tables.world import Capacity, World

PAGES = 512
SMALL = {"nodes": 64, "packets": 64, "events": 64, "qps": 4, "cqs": 4, "mkeys": 4, "sq_entries": 64}


@pytest.fixture
def frames() -> Frames:
    """Ids for seven blocks, RAM for six."""
    world = World(Capacity(frames=8 * PAGES, **SMALL))
    return Frames(world, 6 * PAGES, model_pages=6 * PAGES)


def test_a_block_is_aligned_and_consecutive(frames: Frames) -> None:
    frames.allocate(FrameKind.MODEL)
    head = Blocks(frames).allocate(9)
    rows = frames.table[head : head + PAGES]
    assert head == PAGES and (rows.refcount == 1).all() and (rows.kind == FrameKind.MODEL).all()
    assert frames.allocated == PAGES + 1
    assert not frames.bytes_of(head + 511).any()


def test_skipped_ids_are_used_for_single_frames(frames: Frames) -> None:
    blocks = Blocks(frames)
    for _ in range(5):
        blocks.allocate(9)
    got = [frames.allocate(FrameKind.MODEL) for _ in range(400)]
    assert len(set(got)) == 400 and frames.allocated == 5 * PAGES + 400


def test_a_block_forms_again_from_frames_freed_one_by_one(frames: Frames) -> None:
    blocks = Blocks(frames)
    heads = [blocks.allocate(9) for _ in range(6)]
    with pytest.raises(OutOfFrames):
        blocks.allocate(9)
    for frame in range(heads[2], heads[2] + PAGES):
        frames.bytes_of(frame)[:] = 7
        frames.free(frame)
    again = [blocks.allocate(9)]
    assert not frames.bytes_of(again[0]).any()
    frames.free_many(np.arange(heads[0], heads[0] + PAGES))
    frames.free_many(np.arange(heads[3], heads[3] + PAGES))
    again += [blocks.allocate(9), blocks.allocate(9)]
    assert len({*again, heads[1], heads[4], heads[5]}) == 6


def test_a_block_with_a_hole_is_no_block(frames: Frames) -> None:
    blocks = Blocks(frames)
    heads = [blocks.allocate(9) for _ in range(6)]
    frames._next = len(frames.table)  # no fresh ids
    frames.free_many(np.arange(heads[1], heads[1] + PAGES - 1))
    frames.free_many(np.arange(heads[2] + 1, heads[2] + PAGES))
    with pytest.raises(OutOfFrames, match="no 512 consecutive"):
        blocks.allocate(9)


def test_failure_takes_nothing(frames: Frames) -> None:
    frames._next = len(frames.table)
    blocks = Blocks(frames)
    slots = frames.slots.free
    with pytest.raises(OutOfFrames):
        blocks.allocate(9)
    assert frames.allocated == 0 and frames.slots.free == slots


def test_a_parked_block_shows_poison_until_it_is_used(frames: Frames) -> None:
    blocks = Blocks(frames)
    head = blocks.allocate(9)
    generation, pointer = int(frames.table[head].generation), int(frames.table[head].pointer)
    blocks.park(head, PAGES)
    row = frames.table[head]
    assert row.pointer == frames.graveyard and row.generation == generation + 1 and row.refcount == 0
    assert frames.allocated == PAGES
    blocks.unpark(head, PAGES)
    assert frames.table[head].pointer == pointer and frames.table[head].refcount == 1
