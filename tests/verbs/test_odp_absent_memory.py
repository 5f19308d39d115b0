"""On-demand regions over memory that is not there: before, any more, or again."""

from __future__ import annotations

import errno

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.pyverbs_error import PyverbsRDMAError

from .memory import ALL, PAGE, make_pattern
from .odp import FLUSHED, RECEIVED, arrived, broke_off, join, joined, on_demand, outcome, page, transfer
from .sides import atomic, move_to, read, recv, refusal, send, state, write
from .waiting import leftovers, successes

PAGES = 4
HOLE = 2
ON_DEMAND = ALL | e.IBV_ACCESS_ON_DEMAND
REGISTERED = "open: IBA knows only memory that is there; Linux looks at none when a region is made (ib_umem_odp_get)"


def with_a_hole(near, far, hole_at, hole=HOLE):
    """Connected QPs, and filled regions of which `hole_at` (source or target) has lost a page."""
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    target.fill(2)
    (source if hole_at == "source" else target).unmap(hole * PAGE, PAGE)
    return ends, source, target


# -- registration


@pytest.mark.parametrize("lost", [(0, PAGES), (1, 1), (2, 2)], ids=["everything", "a_hole", "the_end"])
def test_registering_memory_that_is_not_there(near, accept, lost):
    region = near.region(PAGES, odp=True)
    region.unmap(lost[0] * PAGE, lost[1] * PAGE)
    said = refusal(MR, near.pd, region.length, ON_DEMAND, region.address)
    accept("registration on demand", said, spec={"accepted", "EFAULT"}, why=REGISTERED)
    assert refusal(MR, near.pd, region.length, ALL, region.address) == "EFAULT"


def test_memory_that_comes_after_its_region_is_used(near, far):
    a, _b = joined(near, far)
    source, later = near.region(PAGES, odp=True), far.region(PAGES)
    later.unmap()
    mr = MR(far.pd, later.length, ON_DEMAND, later.address)
    later.map_anew()
    source.fill(1)
    write(a, source.sge(), later.remote()._replace(rkey=mr.rkey))
    successes(near.cq, 1)
    assert later.bytes() == make_pattern(1, source.length)


def test_a_hole_that_is_filled_is_used(near, far):
    ends, source, target = with_a_hole(near, far, "target")
    target.map_anew(HOLE * PAGE, PAGE)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


def test_an_on_demand_region_has_a_length(near):
    region = near.region(odp=True)
    with pytest.raises(PyverbsRDMAError) as refused:
        MR(near.pd, 0, ON_DEMAND, region.address)
    assert refused.value.error_code == errno.EINVAL


# -- what is missing ends in an error


@pytest.mark.parametrize("hole", [0, 2, 3], ids=["first", "middle", "last"])
def test_a_write_to_a_missing_page_is_a_remote_access_error(near, far, hole):
    ends, source, target = with_a_hole(near, far, "target", hole)
    assert transfer("write", ends, source, target) == "REM_ACCESS_ERR"
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), hole)
    assert (state(ends[0]), state(ends[1])) == ("ERR", "ERR")


@pytest.mark.parametrize("hole", [0, 2, 3], ids=["first", "middle", "last"])
def test_a_read_of_a_missing_page_is_a_remote_access_error(near, far, hole):
    ends, source, target = with_a_hole(near, far, "source", hole)
    assert transfer("read", ends, source, target) == "REM_ACCESS_ERR"
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), hole)
    assert target.bytes(hole * PAGE, PAGE) == page(make_pattern(2, target.length), hole)
    assert (state(ends[0]), state(ends[1])) == ("ERR", "ERR")


def test_a_read_into_a_missing_page_is_a_local_protection_error(near, far):
    ends, source, target = with_a_hole(near, far, "target")
    assert transfer("read", ends, source, target) == "LOC_PROT_ERR"
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), HOLE)
    assert state(ends[1]) == "ERR"


@pytest.mark.parametrize("op", ["send", "write"])
def test_a_message_from_a_missing_page_is_a_local_protection_error(near, far, accept, op):
    ends, source, target = with_a_hole(near, far, "source")
    accept("status", transfer(op, ends, source, target), spec="LOC_PROT_ERR", rxe="WR_FLUSH_ERR", why=FLUSHED)
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), HOLE)
    assert target.bytes(HOLE * PAGE, PAGE) == page(make_pattern(2, target.length), HOLE)
    assert state(ends[0]) == "ERR"
    assert leftovers(far.cq) == []


def test_a_receive_into_a_missing_page_fails_on_both_sides(near, far, accept):
    ends, source, target = with_a_hole(near, far, "target")
    assert transfer("send", ends, source, target) == "REM_OP_ERR"
    accept("the receive's status", outcome(ends[1]), spec="LOC_PROT_ERR", rxe="LOC_QP_OP_ERR", why=RECEIVED)
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), HOLE)


def test_an_atomic_on_a_missing_page_changes_nothing(near, far):
    (a, _b), source, target = with_a_hole(near, far, "target")
    atomic(a, source.sge(0, 8), target.remote(HOLE * PAGE), add=1)
    assert outcome(a) == "REM_ACCESS_ERR"
    assert source.bytes() == make_pattern(1, source.length)


def test_an_atomic_whose_result_page_is_missing_is_a_local_protection_error(near, far, accept):
    (a, _b), source, target = with_a_hole(near, far, "source")
    atomic(a, source.sge(HOLE * PAGE, 8), target.remote(8), add=1)
    assert outcome(a) == "LOC_PROT_ERR"
    before = int.from_bytes(make_pattern(2, 16)[8:], "little")
    done = int.from_bytes(target.bytes(8, 8), "little") - before
    why = "open: the responder may be done with the operation before its result finds no memory"
    accept("times that it was done", done, spec={0, 1}, why=why)
    assert target.bytes(16, PAGE - 16) == make_pattern(2, PAGE)[16:]


# -- what is not missing works


@pytest.mark.parametrize("hole_at", ["source", "target"])
def test_the_pages_around_a_hole_can_be_used(near, far, hole_at):
    (a, _b), source, target = with_a_hole(near, far, hole_at)
    for number in (0, 1, 3):
        write(a, source.sge(number * PAGE, PAGE), target.remote(number * PAGE))
    successes(near.cq, 3)
    for number in (0, 1, 3):
        assert target.bytes(number * PAGE, PAGE) == source.bytes(number * PAGE, PAGE)


def test_another_connection_uses_a_region_after_one_failed_on_it(near, far):
    first, source, target = with_a_hole(near, far, "target")
    second = joined(near, far)
    assert transfer("write", first, source, target) == "REM_ACCESS_ERR"
    arrived("write", second, source, target, HOLE * PAGE)
    target.map_anew(HOLE * PAGE, PAGE)
    arrived("write", second, source, target)
    assert target.bytes() == make_pattern(1, source.length)


def test_qps_that_failed_on_a_hole_work_after_a_reset(near, far):
    (a, b), source, target = with_a_hole(near, far, "target")
    assert transfer("write", (a, b), source, target) == "REM_ACCESS_ERR"
    target.map_anew(HOLE * PAGE, PAGE)
    for qp in (a, b):
        move_to(qp, e.IBV_QPS_RESET)
    join(a, b)
    arrived("write", (a, b), source, target)
    assert target.bytes() == make_pattern(1, source.length)


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_message_of_no_bytes_needs_no_memory(near, far, op):
    (a, _b), source, target = with_a_hole(near, far, "target")
    target.unmap(0, HOLE * PAGE)
    (write if op == "write" else read)(a, source.sge(0, 0), target.remote())
    successes(near.cq, 1)


def test_inline_data_needs_no_memory_once_it_is_posted(near, far):
    a, b = joined(near, far, max_inline_data=64)
    source, target = on_demand(near, far, 1)
    source.fill(1)
    recv(b, target.sge())
    send(a, source.sge(0, 64), flags=e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE)
    source.unmap()
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes() == make_pattern(1, 64) + bytes(PAGE - 64)


def test_a_receive_longer_than_its_message_may_miss_memory_at_its_end(near, far, accept):
    """Known pages take the message; whether an unneeded page may be missing shows only when a needed one faults."""
    ends, source, target = with_a_hole(near, far, "target", hole=3)
    said = transfer("send", ends, source, target, 3 * PAGE)
    why = "open: a driver may fault a receive's buffer as a whole and fail with it (mlx5), or what a packet needs (rxe)"
    accept("status", said, spec={"SUCCESS", "REM_OP_ERR"}, why=why)
    outcome(ends[1])
    broke_off(target, make_pattern(2, target.length), make_pattern(1, source.length), 3)
    if said == "SUCCESS":
        assert target.bytes(0, 3 * PAGE) == make_pattern(1, 3 * PAGE)


# -- unmapped, and mapped again


@pytest.mark.parametrize("op", ["write", "send"])
def test_what_is_mapped_anew_at_the_source_is_what_arrives(near, far, op):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    arrived(op, ends, source, target)
    source.unmap()
    source.map_anew()
    source.fill(7, PAGE)
    arrived(op, ends, source, target)
    assert target.bytes() == bytes(PAGE) + make_pattern(7, source.length - PAGE)


@pytest.mark.parametrize("op", ["write", "send", "read"])
def test_what_is_mapped_anew_at_the_target_takes_the_message(near, far, op):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    arrived(op, ends, source, target)
    target.map_anew()
    assert target.bytes() == bytes(target.length)
    arrived(op, ends, source, target, 2 * PAGE)
    assert target.bytes() == make_pattern(1, 2 * PAGE) + bytes(2 * PAGE)


def test_a_region_over_memory_that_went_can_be_deregistered(near, far):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    arrived("write", ends, source, target)
    target.unmap()
    target.mr.close()
    source.unmap(PAGE)
    source.mr.close()


def test_a_deregistered_region_is_nobodys(near, far):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    arrived("write", ends, source, target)
    remote = target.remote()
    target.mr.close()
    target.fill(2)
    write(ends[0], source.sge(), remote)
    assert outcome(ends[0]) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)


def test_memory_that_is_gone_is_an_error_of_the_remote_key_first(near, far):
    """A key without the right is refused whether or not the memory is there, and the memory stays absent."""
    ends = joined(near, far)
    source = near.region(PAGES, odp=True)
    target = far.region(PAGES, e.IBV_ACCESS_LOCAL_WRITE, odp=True)
    write(ends[0], source.sge(), target.remote())
    assert outcome(ends[0]) == "REM_ACCESS_ERR"
    assert target.bytes() == bytes(target.length)


def test_a_write_past_the_end_of_a_region_is_refused_whole(near, far, accept):
    (a, _b) = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    target.fill(2)
    write(a, source.sge(0, 2 * PAGE), target.remote(3 * PAGE))
    assert outcome(a) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)
