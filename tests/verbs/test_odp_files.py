"""On-demand regions over files in memory: shared and private mappings, truncation, holes."""

from __future__ import annotations

import os

import pytest
from pyverbs import mem_alloc

from .libc import call
from .mappings import KEEP_SIZE, PUNCH_HOLE, SHARED, Mapping, file_of
from .memory import PAGE, make_pattern
from .odp import arrived, joined, outcome, page, transfer, without
from .sides import atomic

PAGES = 4
SIZE = PAGES * PAGE
FILE_SHARED, FILE_PRIVATE = mem_alloc.MAP_SHARED_, mem_alloc.MAP_PRIVATE_


@pytest.fixture
def file(request):
    """A file of PAGES pages of pattern 5."""
    fd = file_of(make_pattern(5, SIZE))
    yield fd
    os.close(fd)


def contents(fd):
    return os.pread(fd, 2 * SIZE, 0)


def of_file(side, fd, flags=FILE_SHARED):
    return Mapping(side, PAGES, flags=flags, fd=fd)


def plain(side):
    region = side.region(PAGES)
    region.fill(1)
    return region


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_a_message_into_a_shared_mapping_is_in_the_file(near, far, file, op):
    ends = joined(near, far)
    arrived(op, ends, plain(near), of_file(far, file))
    assert contents(file) == make_pattern(1, SIZE)


@pytest.mark.parametrize("op", ["send", "write", "read"])
@pytest.mark.parametrize("flags", [FILE_SHARED, FILE_PRIVATE], ids=["shared", "private"])
def test_a_message_from_a_mapping_is_what_the_file_has(near, far, file, op, flags):
    ends = joined(near, far)
    source, target = of_file(near, file, flags), plain(far)
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(5, SIZE)
    assert contents(file) == make_pattern(5, SIZE)


def test_what_is_written_to_the_file_arrives(near, far, file):
    ends = joined(near, far)
    source, target = of_file(near, file), plain(far)
    arrived("write", ends, source, target)
    os.pwrite(file, make_pattern(8, PAGE), PAGE)
    arrived("write", ends, source, target)
    assert page(target.bytes(), 1) == make_pattern(8, PAGE)


@pytest.mark.parametrize("before", ["nothing", "loads", "a_read"])
def test_a_write_into_a_private_mapping_stays_out_of_the_file(near, far, file, before):
    """Also where the device has the file's own page to read from: a write needs a copy of it."""
    ends = joined(near, far)
    source, target = plain(near), of_file(far, file, FILE_PRIVATE)
    if before == "loads":
        assert target.bytes() == make_pattern(5, SIZE)
    if before == "a_read":
        assert transfer("read", ends[::-1], target, source) == "SUCCESS"
        assert source.bytes() == make_pattern(5, SIZE)
        source.fill(1)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, SIZE)
    assert contents(file) == make_pattern(5, SIZE)


def test_an_atomic_on_a_private_mapping_stays_out_of_the_file(near, far, file):
    a, _b = joined(near, far)
    result, target = near.region(), of_file(far, file, FILE_PRIVATE)
    atomic(a, result.sge(0, 8), target.remote(8), add=1)
    assert outcome(a) == "SUCCESS"
    old = int.from_bytes(make_pattern(5, 16)[8:], "little")
    assert target.bytes(8, 8) == (old + 1).to_bytes(8, "little")
    assert contents(file) == make_pattern(5, SIZE)


def test_a_read_of_a_private_mapping_may_leave_it_the_files(near, far, file, accept):
    ends = joined(near, far)
    source, target = of_file(near, file, FILE_PRIVATE), plain(far)
    arrived("read", ends, source, target)
    os.pwrite(file, make_pattern(8, SIZE), 0)
    shared = source.bytes() == make_pattern(8, SIZE)
    assert shared or source.bytes() == make_pattern(5, SIZE)
    why = (
        "open: a driver that faults pages of a region with local write for writing gives the program its own copies "
        "(mlx5); one that faults for reading leaves the file's pages mapped (rxe)"
    )
    accept("the pages are", "the file's" if shared else "copies", spec={"the file's", "copies"}, why=why)


def test_a_discarded_private_mapping_is_the_files_again(near, far, file):
    ends = joined(near, far)
    source, target = plain(near), of_file(far, file, FILE_PRIVATE)
    arrived("write", ends, source, target)
    target.discard()
    assert target.bytes() == make_pattern(5, SIZE)
    assert transfer("read", ends[::-1], target, source) == "SUCCESS"
    assert source.bytes() == make_pattern(5, SIZE)


@pytest.mark.parametrize("flags", [FILE_SHARED, FILE_PRIVATE], ids=["shared", "private"])
def test_a_write_behind_the_end_of_a_file_is_a_remote_access_error(near, far, file, flags):
    ends = joined(near, far)
    source, target = plain(near), of_file(far, file, flags)
    arrived("write", ends, source, target)
    os.ftruncate(file, 2 * PAGE)
    source.fill(6)
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    assert len(contents(file)) == 2 * PAGE


def test_a_read_behind_the_end_of_a_file_is_a_remote_access_error(near, far, file):
    ends = joined(near, far)
    source, target = of_file(near, file), plain(far)
    arrived("read", ends, source, target)
    os.ftruncate(file, 2 * PAGE)
    target.fill(1)
    assert transfer("read", ends, source, target) == "REM_ACCESS_ERR"
    assert target.bytes(2 * PAGE) == make_pattern(1, SIZE)[2 * PAGE :]


def test_pages_before_the_end_of_a_truncated_file_work(near, far, file):
    ends = joined(near, far)
    source, target = plain(near), of_file(far, file)
    arrived("write", ends, source, target)
    os.ftruncate(file, 2 * PAGE)
    source.fill(6)
    arrived("write", ends, source, target, 2 * PAGE)
    assert contents(file) == make_pattern(6, 2 * PAGE)


def test_a_file_that_shrank_and_grew_has_zeros_there(near, far, file):
    ends = joined(near, far)
    source, target = of_file(near, file), plain(far)
    arrived("read", ends, source, target)
    os.ftruncate(file, PAGE)
    os.ftruncate(file, SIZE)
    arrived("read", ends, source, target)
    assert target.bytes() == make_pattern(5, PAGE) + bytes(SIZE - PAGE)


def test_a_file_that_grows_under_its_region_is_used(near, far, file):
    ends = joined(near, far)
    os.ftruncate(file, PAGE)
    source, target = plain(near), of_file(far, file)
    os.ftruncate(file, SIZE)
    arrived("write", ends, source, target)
    assert contents(file) == make_pattern(1, SIZE)


def test_a_hole_punched_into_a_file_is_zeros(near, far, file):
    ends = joined(near, far)
    source, target = of_file(near, file), plain(far)
    arrived("write", ends, source, target)
    call("fallocate", file, KEEP_SIZE | PUNCH_HOLE, PAGE, 2 * PAGE)
    arrived("write", ends, source, target)
    assert target.bytes() == without(make_pattern(5, SIZE), (1, 2))


def test_a_write_into_a_punched_hole_is_in_the_file(near, far, file):
    ends = joined(near, far)
    source, target = plain(near), of_file(far, file)
    arrived("write", ends, source, target)
    call("fallocate", file, KEEP_SIZE | PUNCH_HOLE, PAGE, PAGE)
    arrived("write", ends, source, target, PAGE + 512)
    kept = make_pattern(1, SIZE)
    assert contents(file) == kept[: PAGE + 512] + bytes(PAGE - 512) + kept[2 * PAGE :]


def test_two_mappings_of_a_file_are_the_same_memory(near, far, file):
    ends = joined(near, far)
    one, other = of_file(far, file), of_file(far, file)
    source = plain(near)
    arrived("write", ends, source, one)
    assert other.bytes() == make_pattern(1, SIZE)
    source.fill(3)
    arrived("write", ends, source, other, PAGE)
    assert one.bytes(0, PAGE) == make_pattern(3, PAGE)


def test_shared_anonymous_memory_faults_as_private_does(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, PAGES, flags=SHARED), Mapping(far, PAGES, flags=SHARED)
    source.fill(1, 2 * PAGE)
    arrived("write", ends, source, target)
    assert target.bytes() == bytes(2 * PAGE) + make_pattern(1, 2 * PAGE)
