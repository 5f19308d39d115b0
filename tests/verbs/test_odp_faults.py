"""Messages over pages that are not there yet, or not any more: they are faulted in, and no byte is lost."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import PAGE, make_pattern
from .odp import OPS, arrived, discard, joined, on_demand, outcome, page, transfer, without
from .sides import atomic, read, recv, send, write
from .waiting import leftovers, successes

PAGES = 5
PLACES = {"first": (0,), "middle": (2,), "last": (4,), "every_second": (1, 3)}
places = pytest.mark.parametrize("gone", PLACES.values(), ids=PLACES)
ops = pytest.mark.parametrize("op", OPS)


def known_pages(near, far, op):
    """Two filled regions whose pages the device has used before."""
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    arrived(op, ends, source, target)
    target.fill(2)
    return ends, source, target


@places
@ops
def test_pages_that_the_source_lost_arrive_as_zeros(near, far, op, gone):
    ends, source, target = known_pages(near, far, op)
    discard(source, gone)
    arrived(op, ends, source, target)
    assert target.bytes() == without(make_pattern(1, source.length), gone)


@places
@ops
def test_pages_that_the_target_lost_take_the_message(near, far, op, gone):
    ends, source, target = known_pages(near, far, op)
    discard(target, gone)
    arrived(op, ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


@places
@ops
def test_both_sides_fault_in_one_message(near, far, op, gone):
    ends, source, target = known_pages(near, far, op)
    discard(source, gone)
    discard(target, range(PAGES))
    arrived(op, ends, source, target)
    assert target.bytes() == without(make_pattern(1, source.length), gone)


@ops
def test_memory_that_nobody_touched_is_zeros(near, far, op):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    target.fill(2)
    arrived(op, ends, source, target)
    assert target.bytes() == bytes(target.length)


@ops
def test_a_message_into_memory_that_nobody_touched_leaves_the_rest_zero(near, far, op):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    arrived(op, ends, source, target, PAGE + 100)
    assert target.bytes() == make_pattern(1, PAGE + 100) + bytes(target.length - PAGE - 100)


def test_a_write_after_a_discard_finds_zeros_in_the_rest_of_the_page(near, far):
    ends, source, target = known_pages(near, far, "write")
    discard(target, (0,))
    arrived("write", ends, source, target, 8)
    kept = make_pattern(2, target.length)
    assert target.bytes() == make_pattern(1, 8) + bytes(PAGE - 8) + kept[PAGE:]


def test_elements_of_a_list_may_lie_on_absent_pages(near, far):
    a, b = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    discard(source, (3,))
    recv(b, [target.sge(4 * PAGE, PAGE), target.sge(0, PAGE), target.sge(2 * PAGE, PAGE)])
    send(a, [source.sge(0, PAGE), source.sge(3 * PAGE, PAGE), source.sge(PAGE, PAGE)])
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 3 * PAGE
    sent = make_pattern(1, source.length)
    assert page(target.bytes(), 4) == page(sent, 0)
    assert page(target.bytes(), 0) == bytes(PAGE)
    assert page(target.bytes(), 2) == page(sent, 1)
    assert page(target.bytes(), 1) == page(target.bytes(), 3) == bytes(PAGE)


def test_a_write_with_immediate_faults_and_consumes_one_receive(near, far):
    a, b = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    recv(b, target.sge(0, 8), wr_id=9)
    write(a, source.sge(), target.remote(), imm=0x01020304)
    successes(near.cq, 1)
    (done,) = successes(far.cq, 1)
    assert (done.wr_id, done.opcode, done.byte_len) == (9, e.IBV_WC_RECV_RDMA_WITH_IMM, target.length)
    assert target.bytes() == make_pattern(1, source.length)


def test_writes_that_all_fault_complete_in_order(near, far):
    a, _b = joined(near, far)
    source, target = on_demand(near, far, 16)
    source.fill(1)
    discard(source, range(0, 16, 3))
    for number in range(16):
        write(a, source.sge(number * PAGE, PAGE), target.remote(number * PAGE), wr_id=number)
    assert [done.wr_id for done in successes(near.cq, 16)] == list(range(16))
    assert target.bytes() == without(make_pattern(1, source.length), range(0, 16, 3))


def test_reads_that_all_fault_complete_in_order(near, far):
    a, _b = joined(near, far)
    target, source = on_demand(near, far, 16)
    source.fill(1)
    for number in range(16):
        read(a, target.sge(number * PAGE, PAGE), source.remote(number * PAGE), wr_id=number)
    assert [done.wr_id for done in successes(near.cq, 16)] == list(range(16))
    assert target.bytes() == make_pattern(1, source.length)


def test_a_send_behind_a_faulting_write_stays_behind_it(near, far):
    a, b = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    flag = far.region()
    source.fill(1)
    recv(b, flag.sge(0, 8))
    write(a, source.sge(), target.remote(), flags=0)
    send(a, source.sge(0, 8))
    successes(far.cq, 1)
    assert target.bytes() == make_pattern(1, source.length)
    successes(near.cq, 1)


def test_a_fault_of_one_qp_leaves_others_alone(near, far):
    faulting, _there = joined(near, far)
    other, _elsewhere = joined(near, far)
    source, target = on_demand(near, far, 32)
    plain, there = near.region(2), far.region(2)
    plain.fill(3)
    write(faulting, source.sge(), target.remote(), wr_id=1)
    for _number in range(8):
        write(other, plain.sge(), there.remote(), wr_id=2)
    assert sorted(done.wr_id for done in successes(near.cq, 9)) == [1] + 8 * [2]
    assert there.bytes() == make_pattern(3, there.length)


def test_qps_that_fault_on_the_same_page_all_succeed(near, far):
    pairs = [joined(near, far) for _ in range(4)]
    source, target = on_demand(near, far, 4)
    source.fill(1)
    for number, (a, _b) in enumerate(pairs):
        write(a, source.sge(number * PAGE, 1024), target.remote())
    successes(near.cq, 4)
    got = target.bytes(0, PAGE)
    assert got[:1024] in [make_pattern(1, source.length)[n * PAGE : n * PAGE + 1024] for n in range(4)]
    assert got[1024:] == bytes(PAGE - 1024)


# -- atomics


@pytest.mark.parametrize("offset", [0, 2048, PAGE - 8], ids=["first", "middle", "last"])
def test_a_fetch_and_add_faults_its_target(near, far, offset):
    a, _b = joined(near, far)
    result, target = on_demand(near, far, 1)
    target.fill(2)
    before = make_pattern(2, PAGE)
    atomic(a, result.sge(0, 8), target.remote(offset), add=5)
    successes(near.cq, 1)
    old = int.from_bytes(before[offset : offset + 8], "little")
    assert result.bytes(0, 8) == before[offset : offset + 8]
    assert target.bytes() == before[:offset] + (old + 5).to_bytes(8, "little") + before[offset + 8 :]


def test_a_fetch_and_add_on_a_discarded_page_begins_at_zero(near, far):
    a, _b = joined(near, far)
    result, target = on_demand(near, far, 1)
    target.fill(2)
    atomic(a, result.sge(0, 8), target.remote(64), add=5)
    successes(near.cq, 1)
    target.discard()
    atomic(a, result.sge(0, 8), target.remote(64), add=7)
    successes(near.cq, 1)
    assert result.bytes(0, 8) == bytes(8)
    assert target.bytes() == bytes(64) + (7).to_bytes(8, "little") + bytes(PAGE - 72)


@pytest.mark.parametrize("compare", [0, 1], ids=["equal", "unequal"])
def test_a_compare_and_swap_faults_its_target(near, far, compare):
    a, _b = joined(near, far)
    result, target = on_demand(near, far, 1)
    atomic(a, result.sge(0, 8), target.remote(8), compare=compare, swap=9)
    successes(near.cq, 1)
    assert result.bytes(0, 8) == bytes(8)
    assert target.bytes() == bytes(8) + (0 if compare else 9).to_bytes(8, "little") + bytes(PAGE - 16)


def test_an_atomic_is_done_once_although_its_result_page_faults(near, far):
    a, _b = joined(near, far)
    result, target = on_demand(near, far, 1)
    target.fill((40).to_bytes(8, "little"))
    for _ in range(5):
        result.discard()
        atomic(a, result.sge(0, 8), target.remote(), add=1)
        successes(near.cq, 1)
    assert result.bytes(0, 8) == (44).to_bytes(8, "little")
    assert target.bytes(0, 8) == (45).to_bytes(8, "little")


def test_atomics_behind_each_other_fault_and_add_up(near, far):
    a, _b = joined(near, far)
    result, target = on_demand(near, far, 4)
    for number in range(4):
        for _ in range(3):
            atomic(a, result.sge(number * PAGE, 8), target.remote(number * PAGE), add=number + 1)
    successes(near.cq, 12)
    assert [target.bytes(n * PAGE, 8) for n in range(4)] == [(3 * n + 3).to_bytes(8, "little") for n in range(4)]


def test_a_message_larger_than_what_was_faulted_before(near, far):
    """The device has some of the pages: a message over all of them faults the rest."""
    ends = joined(near, far)
    source, target = on_demand(near, far, 24)
    source.fill(1)
    for length in (PAGE, 2 * PAGE, 7 * PAGE, 24 * PAGE):
        arrived("write", ends, source, target, length)
    assert target.bytes() == make_pattern(1, source.length)


def test_every_message_faults_anew(near, far):
    ends, source, target = known_pages(near, far, "write")
    for seed in range(10, 30):
        source.fill(seed)
        target.discard()
        assert transfer("write", ends, source, target) == "SUCCESS"
        assert target.bytes() == make_pattern(seed, source.length)


def test_a_receive_posted_before_its_pages_went_takes_the_message(near, far):
    (a, b), source, target = known_pages(near, far, "send")
    recv(b, target.sge())
    target.discard()
    send(a, source.sge())
    assert (outcome(a), outcome(b)) == ("SUCCESS", "SUCCESS")
    assert target.bytes() == make_pattern(1, source.length)
    assert leftovers(near.cq, 4) + leftovers(far.cq, 4) == []
