"""Advice about memory under a region (madvise), and mlock."""

from __future__ import annotations

import errno

import pytest
from pyverbs import mem_alloc
from pyverbs.pyverbs_error import PyverbsRDMAError

from .libc import call
from .mappings import COLD, FREE, PAGEOUT, POPULATE_READ, POPULATE_WRITE, REMOVE, SHARED, WILLNEED, Mapping
from .memory import DONTNEED, PAGE, make_pattern
from .odp import MAPPERS, arrived, filled, joined, on_demand, page, transfer, without

PAGES = 4
ADVICE = {"willneed": WILLNEED, "cold": COLD, "pageout": PAGEOUT, "populate_read": POPULATE_READ,
          "populate_write": POPULATE_WRITE}  # fmt: skip


def advise(region, advice, offset=0, length=None):
    """By whoever maps the region."""
    if isinstance(region, Mapping):
        region.advise(advice, offset, length)
    else:
        mem_alloc.madvise(region.address + offset, region.length - offset if length is None else length, advice)


@pytest.fixture(params=MAPPERS)
def memory(request, near, far):
    """Two filled regions that the device knows: mapped by pyverbs.mem_alloc, or by the program."""
    return filled(request.param, near, far, PAGES)


@pytest.mark.parametrize("advice", ADVICE.values(), ids=ADVICE)
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_advice_that_keeps_the_bytes_keeps_them(memory, op, advice):
    ends, source, target = memory
    advise(source, advice)
    advise(target, advice)
    arrived(op, ends, source, target)
    assert target.bytes() == source.bytes() == make_pattern(1, source.length)


@pytest.mark.parametrize("advice", [POPULATE_READ, POPULATE_WRITE], ids=["read", "write"])
def test_pages_that_were_populated_before_the_first_message(near, far, advice):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    advise(source, advice)
    advise(target, advice)
    source.fill(1, PAGE)
    arrived("write", ends, source, target)
    assert target.bytes() == bytes(PAGE) + make_pattern(1, source.length - PAGE)


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_pages_discarded_between_messages_are_zeros_in_the_next(memory, op):
    ends, source, target = memory
    for round in range(10):
        gone = {round % PAGES, (round * 3 + 1) % PAGES}
        source.fill(round)
        for number in gone:
            source.discard(number * PAGE, PAGE)
        target.discard(0, 2 * PAGE)
        arrived(op, ends, source, target)
        assert target.bytes() == without(make_pattern(round, source.length), gone)


def test_discarding_what_nobody_touched_changes_nothing(near, far):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    for region in (source, target):
        region.discard()
    target.fill(2)
    arrived("write", ends, source, target)
    assert target.bytes() == bytes(target.length)


def test_the_program_sees_zeros_after_it_discarded_what_the_device_wrote(memory):
    ends, source, target = memory
    arrived("write", ends, source, target)
    target.discard(PAGE, 2 * PAGE)
    assert target.bytes() == without(make_pattern(1, target.length), (1, 2))


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_freed_pages_are_old_or_zero(memory, op):
    """MADV_FREE: the kernel may take the pages until the program writes them."""
    ends, source, target = memory
    advise(source, FREE)
    advise(target, FREE)
    arrived(op, ends, source, target)
    for number in range(PAGES):
        assert page(target.bytes(), number) in (page(make_pattern(1, source.length), number), bytes(PAGE))


def test_freed_pages_that_the_program_writes_again_are_kept(memory):
    ends, source, target = memory
    advise(source, FREE)
    source.fill(3)
    arrived("write", ends, source, target)
    assert target.bytes() == source.bytes() == make_pattern(3, source.length)


def test_freed_pages_that_the_device_writes_are_kept(memory):
    ends, source, target = memory
    advise(target, FREE)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)
    advise(target, COLD)
    assert target.bytes() == make_pattern(1, source.length)


def test_locked_memory_serves_as_any(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, PAGES), Mapping(far, PAGES)
    call("mlock", target.address, target.length)
    call("mlock", source.address, source.length)
    source.fill(1)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


def test_locked_memory_cannot_be_discarded_under_a_region(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, PAGES), Mapping(far, PAGES)
    source.fill(1)
    call("mlock", source.address, source.length)
    with pytest.raises(OSError) as refused:
        source.discard()
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(PyverbsRDMAError) as refused_too:
        mem_alloc.madvise(source.address, source.length, DONTNEED)
    assert refused_too.value.error_code == errno.EINVAL
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


def test_shared_pages_that_are_removed_are_zeros(near, far):
    """MADV_DONTNEED of shared memory drops the entries and keeps the page; MADV_REMOVE frees it."""
    ends = joined(near, far)
    source, target = Mapping(near, PAGES, flags=SHARED), Mapping(far, PAGES)
    source.fill(1)
    arrived("write", ends, source, target)
    source.discard()
    target.fill(2)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)
    source.advise(REMOVE, PAGE, 2 * PAGE)
    arrived("write", ends, source, target)
    assert target.bytes() == without(make_pattern(1, source.length), (1, 2))


# -- the same on pinned memory, which is what on-demand paging does away with


@pytest.mark.parametrize("op", ["send", "write", "read"])
@pytest.mark.parametrize("how", ["discarded", "mapped_anew"])
def test_pinned_pages_that_the_program_gave_up_are_still_sent(near, far, op, how):
    """The program gets fresh zeros; the device keeps the pages that were pinned."""
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    if how == "discarded":
        source.discard()
    else:
        source.unmap()
        source.map_anew()
    arrived(op, ends, source, target)
    assert source.bytes() == bytes(source.length)
    assert target.bytes() == make_pattern(1, source.length)


def test_a_program_that_discarded_pinned_pages_does_not_see_what_comes(near, far):
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.discard()
    assert transfer("write", ends, source, target) == "SUCCESS"
    assert target.bytes() == bytes(target.length)
