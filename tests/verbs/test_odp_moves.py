"""Regions whose memory moves (mremap) or is shared with a child (fork)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest
from pyverbs import enums as e
from pyverbs import mem_alloc
from pyverbs.mr import MR
from pyverbs.wr import SGE

from .libc import AT_ADDRESS, MAY_MOVE, call
from .mappings import DONTFORK, SHARED, WIPEONFORK, Mapping
from .memory import ALL, PAGE, make_pattern
from .odp import FLUSHED, arrived, joined, on_demand, outcome, transfer
from .sides import read, write

PAGES = 3
ON_DEMAND = ALL | e.IBV_ACCESS_ON_DEMAND
KINDS = pytest.mark.parametrize("kind", ["mem_alloc", "libc"])


def memory_of(kind, near, far):
    """Connected QPs and two filled regions that the device knows."""
    ends = joined(near, far)
    source, target = (Mapping(near, PAGES), Mapping(far, PAGES)) if kind == "libc" else on_demand(near, far, PAGES)
    source.fill(1)
    arrived("write", ends, source, target)
    target.fill(2)
    return ends, source, target


# -- mremap


@KINDS
def test_memory_that_moved_is_registered_anew(near, far, kind):
    (a, _b), source, target = memory_of(kind, near, far)
    moved = source.move()
    mr = MR(near.pd, source.length, ON_DEMAND, moved)
    write(a, SGE(moved, source.length, mr.lkey), target.remote())
    assert outcome(a) == "SUCCESS"
    assert target.bytes() == make_pattern(1, source.length)
    mr.close()


@KINDS
def test_a_read_of_where_memory_was_is_a_remote_access_error(near, far, kind):
    ends, source, target = memory_of(kind, near, far)
    source.move()
    assert transfer("read", ends, source, target) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)


@KINDS
def test_a_write_from_where_memory_was_is_a_local_protection_error(near, far, accept, kind):
    ends, source, target = memory_of(kind, near, far)
    source.move()
    accept("status", transfer("write", ends, source, target), spec="LOC_PROT_ERR", rxe="WR_FLUSH_ERR", why=FLUSHED)
    assert target.bytes() == make_pattern(2, target.length)


@KINDS
def test_a_write_to_where_memory_was_does_not_reach_where_it_is(near, far, kind):
    ends, source, target = memory_of(kind, near, far)
    moved = target.move()
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    assert mem_alloc.read(moved, target.length) == make_pattern(2, target.length)


@KINDS
def test_new_memory_in_the_place_of_what_moved_is_the_regions(near, far, kind):
    ends, source, target = memory_of(kind, near, far)
    moved = target.move()
    target.map_anew()
    arrived("write", ends, source, target, PAGE)
    assert target.bytes() == make_pattern(1, PAGE) + bytes(target.length - PAGE)
    assert mem_alloc.read(moved, target.length) == make_pattern(2, target.length)


def test_memory_that_was_cut_short_serves_what_is_left(near, far, accept):
    ends, source, target = memory_of("libc", near, far)
    call("mremap", source.address, source.length, PAGE, 0, None)
    arrived("write", ends, source, target, PAGE)
    assert target.bytes(0, PAGE) == make_pattern(1, PAGE)
    accept("the rest", transfer("write", ends, source, target), spec="LOC_PROT_ERR", rxe="WR_FLUSH_ERR", why=FLUSHED)


def test_memory_that_moves_and_comes_back_is_the_regions_again(near, far):
    ends, source, target = memory_of("libc", near, far)
    moved = source.move()
    call("mremap", moved, source.length, source.length, MAY_MOVE | AT_ADDRESS, source.address)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


# -- fork


class Child:
    """A forked child that waits to be told, runs `work`, and says whether it gave True. Close the pipes by `answer`."""

    def __init__(self, work: Callable[[], bool]) -> None:
        told, self._tell = os.pipe()
        self._said, say = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._tell)
            os.read(told, 1)
            try:
                os.write(say, b"y" if work() else b"n")
            finally:
                os._exit(0)
        os.close(told)
        os.close(say)

    def answer(self) -> bool:
        os.write(self._tell, b"!")
        said = os.read(self._said, 1)
        os.waitpid(self._pid, 0)
        os.close(self._tell)
        os.close(self._said)
        return said == b"y"


def looks_like(region, pattern: bytes) -> Callable[[], bool]:
    return lambda: ctypes.string_at(region.address, len(pattern)) == pattern


def overwrite(region) -> Callable[[], bool]:
    def work() -> bool:
        ctypes.memset(region.address, 0x77, region.length)
        return ctypes.string_at(region.address, region.length) == bytes([0x77]) * region.length

    return work


@KINDS
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_what_a_child_writes_stays_the_childs(near, far, kind, op):
    ends, source, target = memory_of(kind, near, far)
    assert Child(overwrite(source)).answer()
    arrived(op, ends, source, target)
    assert target.bytes() == source.bytes() == make_pattern(1, source.length)


@KINDS
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_what_the_parent_writes_after_a_fork_arrives(near, far, kind, op):
    ends, source, target = memory_of(kind, near, far)
    child = Child(looks_like(source, make_pattern(1, source.length)))
    source.fill(4)
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(4, source.length)
    assert child.answer()


@KINDS
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_what_the_device_writes_after_a_fork_is_the_parents(near, far, kind, op):
    """The page is shared with the child: the device's write needs a copy, as the program's would."""
    ends, source, target = memory_of(kind, near, far)
    child = Child(looks_like(target, make_pattern(2, target.length)))
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)
    assert child.answer()


@KINDS
def test_a_device_that_only_read_after_a_fork_still_copies_before_it_writes(near, far, kind):
    (a, b), source, target = memory_of(kind, near, far)
    elsewhere = near.region(PAGES)
    child = Child(looks_like(target, make_pattern(2, target.length)))
    read(a, elsewhere.sge(), target.remote())
    assert outcome(a) == "SUCCESS"
    arrived("write", (a, b), source, target)
    assert target.bytes() == make_pattern(1, source.length)
    assert elsewhere.bytes() == make_pattern(2, target.length)
    assert child.answer()


def test_a_child_sees_what_the_device_writes_to_shared_memory(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, PAGES), Mapping(far, PAGES, flags=SHARED)
    source.fill(1)
    child = Child(looks_like(target, make_pattern(1, source.length)))
    arrived("write", ends, source, target)
    assert child.answer()


def test_the_device_sends_what_a_child_writes_to_shared_memory(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, PAGES, flags=SHARED), Mapping(far, PAGES)
    source.fill(1)
    arrived("write", ends, source, target)
    assert Child(overwrite(source)).answer()
    arrived("write", ends, source, target)
    assert target.bytes() == bytes([0x77]) * target.length


@KINDS
def test_memory_kept_from_a_child_stays_the_parents(near, far, kind):
    ends, source, target = memory_of(kind, near, far)
    mem_alloc.madvise(source.address, source.length, DONTFORK)
    child = Child(lambda: True)
    source.fill(4)
    arrived("write", ends, source, target)
    assert child.answer()
    assert target.bytes() == make_pattern(4, source.length)


@KINDS
def test_memory_wiped_for_a_child_stays_the_parents(near, far, kind):
    ends, source, target = memory_of(kind, near, far)
    mem_alloc.madvise(source.address, source.length, WIPEONFORK)
    child = Child(looks_like(source, bytes(source.length)))
    arrived("write", ends, source, target)
    assert child.answer()
    assert target.bytes() == make_pattern(1, source.length)


def test_many_forks_between_messages(near, far):
    ends, source, target = memory_of("libc", near, far)
    for seed in range(5, 13):
        children = [Child(looks_like(target, target.bytes())) for _ in range(2)]
        source.fill(seed)
        arrived("write", ends, source, target)
        assert target.bytes() == make_pattern(seed, source.length)
        assert all([child.answer() for child in children])


def test_a_pinned_page_of_the_parent_stays_the_parents_after_a_fork(near, far):
    """Linux copies pinned pages for the child at the fork (since 5.12), so the device's page is the parent's."""
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.fill(2)
    child = Child(looks_like(target, make_pattern(2, target.length)))
    source.fill(4)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(4, source.length)
    assert child.answer()
