"""Prefetch advice for on-demand regions (ibv_advise_mr)."""

from __future__ import annotations

import os

import pytest
from pyverbs import enums as e
from pyverbs.mem_alloc import MAP_PRIVATE_, MAP_SHARED_
from pyverbs.mr import MR
from pyverbs.wr import SGE

from .mappings import READ_ONLY, Mapping, file_of
from .memory import PAGE, make_pattern
from .odp import arrived, joined, transfer
from .sides import needs, refusal

PAGES = 4
READ, WRITE = e._IBV_ADVISE_MR_ADVICE_PREFETCH, e._IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE
NO_FAULT = e._IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT
FLUSH = e._IBV_ADVISE_MR_FLAG_FLUSH
ADVICE = pytest.mark.parametrize("advice", [READ, WRITE, NO_FAULT], ids=["read", "write", "no_fault"])
FLAGS = pytest.mark.parametrize("flags", [0, FLUSH], ids=["background", "flush"])
OUTSIDE = "ibv_advise_mr(3): EFAULT for an address out of the MR's bounds"


@pytest.fixture
def region(near):
    """An on-demand region of a device that takes advice."""
    made = near.region(PAGES, odp=True)
    with needs("advice for memory regions"):
        advise(near, READ, FLUSH, made.sge())
    return made


def advise(side, advice, flags, *sges):
    side.pd.advise_mr(advice, flags, list(sges))


@ADVICE
@FLAGS
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_messages_work_after_any_advice(near, far, region, op, advice, flags):
    """Advice harms nothing. What it does is in test_advice_that_is_waited_for_faults_the_pages and in the refusals."""
    ends, target = joined(near, far), far.region(PAGES, odp=True)
    region.fill(1)
    advise(near, advice, flags, region.sge())
    advise(far, advice, flags, target.sge())
    arrived(op, ends, region, target)
    assert target.bytes() == make_pattern(1, region.length)


@pytest.mark.parametrize(
    "advice, blocks", [(READ, PAGES), (WRITE, PAGES), (NO_FAULT, 0)], ids=["read", "write", "no_fault"]
)
def test_advice_that_is_waited_for_faults_the_pages(near, region, advice, blocks):
    """The pages of a hole in a shared file begin to exist when they are touched."""
    fd = file_of(b"")
    os.ftruncate(fd, PAGES * PAGE)
    memory = Mapping(near, PAGES, flags=MAP_SHARED_, fd=fd)
    assert os.fstat(fd).st_blocks == 0
    advise(near, advice, FLUSH, memory.sge())
    assert os.fstat(fd).st_blocks * 512 == blocks * PAGE
    os.close(fd)


@ADVICE
@FLAGS
def test_advice_about_pages_that_nobody_touched(near, far, region, advice, flags):
    ends, target = joined(near, far), far.region(PAGES, odp=True)
    target.fill(2)
    advise(near, advice, flags, region.sge(PAGE, 2 * PAGE))
    arrived("write", ends, region, target)
    assert target.bytes() == bytes(target.length)


@ADVICE
def test_pages_that_went_after_the_advice_fault_again(near, far, region, advice):
    ends, target = joined(near, far), far.region(PAGES, odp=True)
    region.fill(1)
    advise(near, advice, FLUSH, region.sge())
    region.discard(PAGE, PAGE)
    arrived("write", ends, region, target)
    kept = make_pattern(1, region.length)
    assert target.bytes() == kept[:PAGE] + bytes(PAGE) + kept[2 * PAGE :]


def test_advice_about_several_ranges_and_regions(near, far, region):
    other = near.region(PAGES, odp=True)
    advise(near, WRITE, FLUSH, region.sge(0, 100), other.sge(PAGE, PAGE), region.sge(3 * PAGE, 1))
    ends, target = joined(near, far), far.region(PAGES)
    other.fill(1)
    arrived("write", ends, other, target)
    assert target.bytes() == make_pattern(1, target.length)


def test_advice_may_begin_and_end_within_pages(near, region):
    advise(near, WRITE, FLUSH, region.sge(PAGE - 1, 2))
    assert region.bytes() == bytes(region.length)


@ADVICE
def test_an_unknown_key_is_refused(near, region, advice, accept):
    wrong = SGE(region.address, PAGE, region.lkey ^ 0xFF00)
    why = "ibv_advise_mr(3) does not say: mlx5 has ENOENT for a key that no region has, rxe EINVAL"
    accept("errno", refusal(advise, near, advice, FLUSH, wrong), spec={"ENOENT", "EINVAL"}, why=why)


def test_a_range_behind_the_end_of_the_region_is_refused(near, region):
    beyond = SGE(region.address + PAGE, region.length, region.lkey)
    assert refusal(advise, near, READ, FLUSH, beyond) == "EFAULT", OUTSIDE


def test_write_advice_for_a_region_without_local_write_is_refused(near, region):
    reader = MR(near.pd, region.length, e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_ON_DEMAND, region.address)
    element = SGE(region.address, region.length, reader.lkey)
    assert refusal(advise, near, WRITE, FLUSH, element) == "EPERM"
    assert refusal(advise, near, READ, FLUSH, element) == "accepted"
    reader.close()


def test_a_region_of_another_domain_is_refused(near, far, region, accept):
    why = "ibv_advise_mr(3) has EPERM for a region of another PD; rxe finds no such key in the PD"
    accept("errno", refusal(advise, far, READ, FLUSH, region.sge()), spec={"EPERM", "ENOENT"}, rxe="EINVAL", why=why)


def test_a_missing_page_is_refused_by_who_waits_for_it(near, region):
    region.unmap(PAGE, PAGE)
    for advice in (READ, WRITE):
        assert refusal(advise, near, advice, FLUSH, region.sge()) == "EFAULT"


@ADVICE
def test_nobody_hears_of_a_missing_page_in_the_background(near, region, advice):
    region.unmap(PAGE, PAGE)
    assert refusal(advise, near, advice, 0, region.sge()) == "accepted"


def test_a_missing_page_is_no_matter_where_nothing_is_faulted(near, region):
    region.unmap(PAGE, PAGE)
    assert refusal(advise, near, NO_FAULT, FLUSH, region.sge()) == "accepted"


def test_write_advice_for_read_only_memory_is_refused(near, region):
    memory = Mapping(near, PAGES)
    memory.fill(1)
    memory.protect(READ_ONLY)
    assert refusal(advise, near, WRITE, FLUSH, memory.sge()) == "EFAULT"
    assert memory.bytes() == make_pattern(1, memory.length)


def test_read_advice_for_read_only_memory_is_taken(near, region):
    memory = Mapping(near, PAGES)
    memory.fill(1)
    memory.protect(READ_ONLY)
    assert refusal(advise, near, READ, FLUSH, memory.sge()) == "accepted"


def test_read_advice_leaves_a_private_page_the_files(near, far, region):
    """Prefetch for reading asks for no right to write: the page stays the file's until somebody writes."""
    fd = file_of(make_pattern(5, PAGE))
    memory = Mapping(near, 1, flags=MAP_PRIVATE_, fd=fd)
    advise(near, READ, FLUSH, memory.sge())
    os.pwrite(fd, make_pattern(6, PAGE), 0)
    assert memory.bytes() == make_pattern(6, PAGE)
    ends, source = joined(far, near), far.region(1)
    source.fill(1)
    assert transfer("write", ends, source, memory) == "SUCCESS"
    assert memory.bytes() == make_pattern(1, PAGE)
    assert os.pread(fd, PAGE, 0) == make_pattern(6, PAGE)
    os.close(fd)


def test_write_advice_makes_a_private_page_the_programs_own(near, region):
    """Prefetch for writing copies the page: what is written to the file afterwards is not in it."""
    fd = file_of(make_pattern(5, PAGE))
    memory = Mapping(near, 1, flags=MAP_PRIVATE_, fd=fd)
    advise(near, WRITE, FLUSH, memory.sge())
    os.pwrite(fd, make_pattern(6, PAGE), 0)
    assert memory.bytes() == make_pattern(5, PAGE)
    os.close(fd)


@pytest.mark.parametrize("advice", [3, 99])
def test_unknown_advice_is_refused(near, region, advice):
    assert refusal(advise, near, advice, FLUSH, region.sge()) == "ENOTSUP"


def test_an_unknown_flag_is_refused(near, region):
    assert refusal(advise, near, READ, FLUSH | 4, region.sge()) == "EINVAL"


def test_advice_goes_on_while_its_region_is_deregistered(near, region):
    memory = Mapping(near, 64)
    advise(near, WRITE, 0, memory.sge())
    memory.mr.close()
    memory.fill(1)
    assert memory.bytes() == make_pattern(1, memory.length)


def test_advice_goes_on_while_its_memory_goes(near, far, region):
    memory = Mapping(far, 64)
    advise(far, WRITE, 0, memory.sge())
    memory.discard()
    ends, source = joined(near, far), near.region(64)
    source.fill(1)
    arrived("write", ends, source, memory)
    assert memory.bytes() == make_pattern(1, memory.length)
