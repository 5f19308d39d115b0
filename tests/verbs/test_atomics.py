"""Atomics: values, alignment, and that each counts once."""

from __future__ import annotations

import threading

import pytest
from pyverbs import enums as e

from .memory import PAGE
from .sides import atomic, atomic_request, chain, connect, pair, read, write
from .waiting import completions, successes

TOP = 2**64 - 1


@pytest.fixture(autouse=True)
def _has_atomics(near):
    if near.context.query_device().atomic_caps == e.IBV_ATOMIC_NONE:
        pytest.skip("the device has no atomics")


def word(value):
    return (value % 2**64).to_bytes(8, "little")


def number(region, offset=0):
    return int.from_bytes(region.bytes(offset, 8), "little")


@pytest.mark.parametrize(
    ("start", "add"), [(0, 0), (0, 1), (5, 3), (TOP, 1), (1 << 63, 1 << 63), (7, TOP), (0x0123456789ABCDEF, 0x1111)]
)
def test_fetch_and_add_gives_the_old_value_and_stores_the_sum(near, far, start, add):
    a, _b = pair(near, far)
    result, target = near.region(), far.region()
    target.fill(word(start), 64)
    atomic(a, result.sge(0, 8), target.remote(64), add=add)
    completion = successes(near.cq, 1)[0]
    assert completion.opcode == e.IBV_WC_FETCH_ADD
    assert number(result) == start
    assert target.bytes(0, 128) == bytes(64) + word(start + add) + bytes(56)


@pytest.mark.parametrize("compare", [9, 8, 9 | 1 << 63, 0], ids=["equal", "smaller", "high_bit", "zero"])
def test_compare_and_swap_swaps_only_what_is_equal(near, far, compare):
    a, _b = pair(near, far)
    result, target = near.region(), far.region()
    target.fill(word(9))
    atomic(a, result.sge(0, 8), target.remote(), compare=compare, swap=TOP - 1)
    completion = successes(near.cq, 1)[0]
    assert completion.opcode == e.IBV_WC_COMP_SWAP
    assert number(result) == 9
    assert target.bytes(0, 16) == word(TOP - 1 if compare == 9 else 9) + bytes(8)


@pytest.mark.parametrize("offset", [0, 8, PAGE - 8, 2 * PAGE - 8])
def test_any_aligned_word_of_the_region_will_do(near, far, offset):
    a, _b = pair(near, far)
    result, target = near.region(), far.region(2)
    atomic(a, result.sge(0, 8), target.remote(offset), add=11)
    successes(near.cq, 1)
    assert target.bytes() == bytes(offset) + word(11) + bytes(2 * PAGE - 8 - offset)


@pytest.mark.parametrize("offset", [1, 4, PAGE - 4])
def test_the_old_value_may_go_to_any_local_address(near, far, offset):
    """Only the remote address has to be aligned (IBA 9.4.5, recalled)."""
    a, _b = pair(near, far)
    result, target = near.region(2), far.region()
    target.fill(word(0x1122334455667788))
    atomic(a, result.sge(offset, 8), target.remote(), add=1)
    successes(near.cq, 1)
    assert result.bytes() == bytes(offset) + word(0x1122334455667788) + bytes(2 * PAGE - 8 - offset)


def test_the_old_value_is_scattered(near, far):
    a, _b = pair(near, far)
    result, target = near.region(), far.region()
    target.fill(word(0x0807060504030201))
    a.post_send(atomic_request([result.sge(0, 3), result.sge(100, 5)], target.remote(), add=1))
    successes(near.cq, 1)
    assert result.bytes(0, 3) + result.bytes(100, 5) == bytes(range(1, 9))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_more_atomics_than_may_be_outstanding_are_all_done_in_order(near, far, depth):
    a, _b = pair(near, far, max_rd_atomic=depth, max_dest_rd_atomic=depth)
    result, target = near.region(), far.region()
    wrs = [atomic_request(result.sge(8 * index, 8), target.remote(), add=1, wr_id=index) for index in range(30)]
    a.post_send(chain(*wrs))
    assert [each.wr_id for each in successes(near.cq, 30)] == list(range(30))
    assert result.bytes(0, 240) == b"".join(word(index) for index in range(30))


def test_a_chain_of_compare_and_swaps_counts(near, far):
    a, _b = pair(near, far)
    result, target = near.region(), far.region()
    wrs = [atomic_request(result.sge(8 * index, 8), target.remote(), compare=index, swap=index + 1)
           for index in range(20)]  # fmt: skip
    a.post_send(chain(*wrs))
    successes(near.cq, 20)
    assert number(target) == 20 and result.bytes(0, 160) == b"".join(word(index) for index in range(20))


def test_an_atomic_sees_the_write_before_it_and_a_read_sees_the_atomic(near, far):
    a, _b = pair(near, far)
    own, target = near.region(), far.region()
    own.fill(word(100))
    write(a, own.sge(0, 8), target.remote(), flags=0)
    atomic(a, own.sge(8, 8), target.remote(), add=1, flags=0)
    read(a, own.sge(16, 8), target.remote())
    successes(near.cq, 1)
    assert (number(own, 8), number(own, 16)) == (100, 101)


def test_the_atomics_of_many_qps_to_one_word_each_count_once(near, far):
    target = far.region()
    results = [near.region() for _ in range(4)]
    askers = [pair(near, far)[0] for _ in results]
    for index in range(10):
        for qp, result in zip(askers, results, strict=True):
            atomic(qp, result.sge(8 * index, 8), target.remote(), add=1)
    successes(near.cq, 40)
    assert number(target) == 40
    seen = [number(result, 8 * index) for result in results for index in range(10)]
    assert sorted(seen) == list(range(40))


def test_atomics_of_both_sides_to_one_word_each_count_once(near, far):
    target, own_near, own_far = far.region(), near.region(), far.region()
    (a, _), (b, _) = pair(near, far), pair(far, far)
    for index in range(15):
        atomic(a, own_near.sge(8 * index, 8), target.remote(), add=1)
        atomic(b, own_far.sge(8 * index, 8), target.remote(), add=1)
    successes(near.cq, 15)
    successes(far.cq, 15)
    assert number(target) == 30
    seen = [number(own, 8 * index) for own in (own_near, own_far) for index in range(15)]
    assert sorted(seen) == list(range(30))


def test_a_lock_of_compare_and_swap_lets_one_in(near, far):
    """Eight QPs try to take a lock that is free: one finds it free, the others see who has it."""
    target = far.region()
    results = [near.region() for _ in range(8)]
    for index, result in enumerate(results):
        qp, _ = pair(near, far)
        atomic(qp, result.sge(0, 8), target.remote(), compare=0, swap=index + 1)
    successes(near.cq, 8)
    winner = number(target)
    assert [number(result) for result in results] == [0 if index + 1 == winner else winner for index in range(8)]


def test_two_threads_add_through_their_own_qps(near, far):
    target = far.region()
    cqs = [near.new_cq() for _ in range(2)]
    results = [near.region() for _ in range(2)]
    askers = []
    for cq in cqs:
        qp, peer = near.qp(scq=cq), far.qp()
        connect(qp, peer)
        askers.append((qp, peer))
    failures = []

    def add(index):
        try:
            for _ in range(20):
                atomic(askers[index][0], results[index].sge(0, 8), target.remote(), add=1)
                failures.extend(each.status for each in completions(cqs[index], 1) if each.status)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and number(target) == 40
