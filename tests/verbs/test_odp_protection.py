"""Memory whose protection changes under an on-demand region: no right is used that the program has not."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs import mem_alloc
from pyverbs.mr import MR

from .mappings import READ_ONLY, Mapping
from .memory import ALL, PAGE, READ_WRITE, make_pattern
from .odp import FLUSHED, MAPPERS, RECEIVED, arrived, filled, joined, outcome, page, transfer
from .sides import atomic, refusal

NONE = mem_alloc.PROT_NONE_
PAGES = 3
READERS = e.IBV_ACCESS_REMOTE_READ
WHOLE = (
    "open: IBA has no page rights. A driver may fault pages of a region with local write for writing, whatever the "
    "request does (mlx5: pagefault_mr), or only for what it does (rxe)"
)


@pytest.fixture(params=MAPPERS)
def memory(request, near, far):
    """Two filled regions that the device knows: mapped by pyverbs.mem_alloc, or by the program."""
    return filled(request.param, near, far, PAGES)


def test_a_write_to_a_read_only_page_is_a_remote_access_error(memory):
    ends, source, target = memory
    target.protect(READ_ONLY)
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)


def test_a_write_stops_at_a_read_only_page(memory):
    ends, source, target = memory
    target.protect(READ_ONLY, PAGE, PAGE)
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    kept = make_pattern(2, target.length)
    assert target.bytes(PAGE) == kept[PAGE:]
    assert target.bytes(0, PAGE) in (page(kept, 0), make_pattern(1, PAGE))


def test_a_read_into_a_read_only_page_is_a_local_protection_error(memory):
    ends, source, target = memory
    target.protect(READ_ONLY)
    assert transfer("read", ends, source, target) == "LOC_PROT_ERR"
    assert target.bytes() == make_pattern(2, target.length)


def test_a_receive_into_a_read_only_page_fails_on_both_sides(memory, accept):
    ends, source, target = memory
    target.protect(READ_ONLY)
    assert transfer("send", ends, source, target) == "REM_OP_ERR"
    accept("the receive's status", outcome(ends[1]), spec="LOC_PROT_ERR", rxe="LOC_QP_OP_ERR", why=RECEIVED)
    assert target.bytes() == make_pattern(2, target.length)


def test_an_atomic_on_a_read_only_page_changes_nothing(memory):
    (a, _b), source, target = memory
    target.protect(READ_ONLY)
    atomic(a, source.sge(0, 8), target.remote(), add=1)
    assert outcome(a) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)
    assert source.bytes() == make_pattern(1, source.length)


def test_a_read_of_read_only_memory_through_a_writable_region(memory, accept):
    ends, source, target = memory
    source.protect(READ_ONLY)
    said = transfer("read", ends, source, target)
    accept("status", said, spec={"SUCCESS", "REM_ACCESS_ERR"}, why=WHOLE)
    assert target.bytes() == make_pattern(1 if said == "SUCCESS" else 2, target.length)


@pytest.mark.parametrize("op", ["send", "write"])
def test_a_message_from_read_only_memory_through_a_writable_region(memory, accept, op):
    ends, source, target = memory
    source.protect(READ_ONLY)
    said = transfer(op, ends, source, target)
    accept("status", said, spec={"SUCCESS", "LOC_PROT_ERR"}, why=WHOLE)
    assert target.bytes() == make_pattern(1 if said == "SUCCESS" else 2, target.length)


@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_a_region_without_local_write_serves_read_only_memory(near, far, op):
    ends = joined(near, far)
    source, target = near.region(PAGES, READERS, odp=True), far.region(PAGES, odp=True)
    source.fill(1)
    source.protect(READ_ONLY)
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


@pytest.mark.parametrize("op", ["send", "write"])
def test_a_message_from_memory_without_access_is_a_local_protection_error(memory, accept, op):
    ends, source, target = memory
    source.protect(NONE)
    accept("status", transfer(op, ends, source, target), spec="LOC_PROT_ERR", rxe="WR_FLUSH_ERR", why=FLUSHED)
    assert target.bytes() == make_pattern(2, target.length)


def test_a_read_of_memory_without_access_is_a_remote_access_error(memory):
    ends, source, target = memory
    source.protect(NONE)
    assert transfer("read", ends, source, target) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)


def test_a_write_to_memory_without_access_is_a_remote_access_error(memory):
    ends, source, target = memory
    target.protect(NONE)
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    target.protect(READ_WRITE)
    assert target.bytes() == make_pattern(2, target.length)


@pytest.mark.parametrize("between", [READ_ONLY, NONE], ids=["read_only", "none"])
@pytest.mark.parametrize("op", ["send", "write", "read"])
def test_memory_that_gets_its_rights_back_works(memory, op, between):
    ends, source, target = memory
    for region in (source, target):
        region.protect(between)
        region.protect(READ_WRITE)
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


def test_memory_keeps_its_bytes_while_it_has_no_rights(memory):
    ends, source, target = memory
    source.protect(NONE)
    source.protect(READ_WRITE)
    assert source.bytes() == make_pattern(1, source.length)
    source.fill(3)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(3, source.length)


def test_read_only_memory_registers_on_demand(near, far):
    """An on-demand region asks for rights when they are used; a pinned one asks for all when it is made."""
    region = Mapping(near, PAGES, prot=READ_ONLY)
    said = refusal(MR, near.pd, region.length, ALL, region.address)
    assert said == "EFAULT"
    assert refusal(MR, near.pd, region.length, READERS, region.address) == "accepted"
    ends, source = joined(near, far), far.region(PAGES)
    assert transfer("write", (ends[1], ends[0]), source, region) == "REM_ACCESS_ERR"
