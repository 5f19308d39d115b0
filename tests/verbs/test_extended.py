"""The extended posting calls: batches, and what only they have, atomic write and flush."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.qp import QPCap, QPEx, QPInitAttrEx

from .memory import ALL, make_pattern
from .sides import CAPS, RC, connect, needs, recv, refusal, state, write
from .waiting import completions, leftovers, status, successes

COMMON = e.IBV_QP_EX_WITH_RDMA_WRITE | e.IBV_QP_EX_WITH_SEND | e.IBV_QP_EX_WITH_RDMA_READ
FLUSHABLE = ALL | e.IBV_ACCESS_FLUSH_GLOBAL


class ExtendedQP(QPEx):
    """An RC QP for the extended calls that knows its side; the test is skipped where it cannot have `operations`."""

    def __init__(self, side, operations=COMMON, **caps):
        self.side = side
        init = QPInitAttrEx(
            qp_type=RC, scq=side.cq, rcq=side.cq, pd=side.pd, cap=QPCap(**{**CAPS, **caps}),
            send_ops_flags=operations, comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        )  # fmt: skip
        with needs("these operations"):
            super().__init__(side.context, init)


class Pair:
    """An extended QP, connected to a plain one."""

    def __init__(self, near, far, operations=COMMON, access=ALL, sq_psn=0x1000, **caps):
        self.near, self.far = near, far
        self.a, self.b = ExtendedQP(near, operations, **caps), far.qp()
        connect(self.a, self.b, access=access, sq_psn=sq_psn)
        self.source = near.region(2)
        self.target = far.region(2, access=access)
        self.source.fill(1)

    def begin(self, wr_id, flags=e.IBV_SEND_SIGNALED):
        self.a.wr_id, self.a.wr_flags = wr_id, flags

    def write(self, wr_id, offset, length, flags=e.IBV_SEND_SIGNALED):
        """One request of a batch: from and to the same offset."""
        self.begin(wr_id, flags)
        self.a.wr_rdma_write(self.target.rkey, self.target.address + offset)
        self.a.wr_set_sge(self.source.sge(offset, length))


def test_a_batch_is_carried_out_in_order(near, far):
    pair = Pair(near, far)
    pair.a.wr_start()
    for index in range(10):
        pair.write(index, 100 * index, 100)
    pair.a.wr_complete()
    assert [each.wr_id for each in successes(near.cq, 10)] == list(range(10))
    assert pair.target.bytes(0, 1000) == pair.source.bytes(0, 1000)


def test_a_batch_that_is_dropped_leaves_nothing(near, far):
    pair = Pair(near, far)
    pair.a.wr_start()
    for index in range(5):
        pair.write(index, 100 * index, 100)
    pair.a.wr_abort()
    assert leftovers(near.cq) == []
    pair.a.wr_start()
    pair.write(9, 1000, 10)
    pair.a.wr_complete()
    assert successes(near.cq, 1)[0].wr_id == 9
    assert pair.target.bytes(0, 1010) == bytes(1000) + pair.source.bytes(1000, 10)


def test_a_batch_that_does_not_fit_is_not_posted_at_all(near, far, accept):
    pair = Pair(near, far, max_send_wr=8)
    room = pair.a.query(0)[1].cap.max_send_wr
    pair.a.wr_start()
    for index in range(2 * room + 2):
        pair.write(index, 8 * index, 8)
    why = "ibv_wr_complete(3) names no errno; post_send's is ENOMEM, librxe's for a batch is ENOSPC"
    accept("a batch that does not fit", refusal(pair.a.wr_complete), spec={"ENOMEM", "ENOSPC"}, why=why)
    assert leftovers(near.cq) == []
    assert pair.target.bytes() == bytes(pair.target.length)


def test_batches_and_plain_posts_keep_their_order(near, far):
    pair = Pair(near, far)
    for index in range(0, 9, 3):
        pair.a.wr_start()
        pair.write(index, 8 * index, 8)
        pair.write(index + 1, 8 * index + 8, 8)
        pair.a.wr_complete()
        write(pair.a, pair.source.sge(8 * index + 16, 8), pair.target.remote(8 * index + 16), wr_id=index + 2)
    assert [each.wr_id for each in successes(near.cq, 9)] == list(range(9))
    assert pair.target.bytes(0, 72) == pair.source.bytes(0, 72)


def test_a_batch_of_different_operations(near, far):
    pair = Pair(near, far)
    recv(pair.b, pair.target.sge(4096, 1000))
    pair.target.fill(6, 100)
    a, remote = pair.a, pair.target
    a.wr_start()
    pair.write(0, 0, 64)
    pair.begin(1)
    a.wr_rdma_read(remote.rkey, remote.address + 100)
    a.wr_set_sge(pair.source.sge(4096, 50))
    pair.begin(2)
    a.wr_send()
    a.wr_set_sge(pair.source.sge(0, 70))
    a.wr_complete()
    done = successes(near.cq, 3)
    assert [each.opcode for each in done] == [e.IBV_WC_RDMA_WRITE, e.IBV_WC_RDMA_READ, e.IBV_WC_SEND]
    assert successes(far.cq, 1)[0].byte_len == 70
    assert remote.bytes(0, 64) == pair.source.bytes(0, 64)
    assert pair.source.bytes(4096, 50) == make_pattern(6, 50)
    assert remote.bytes(4096, 70) == pair.source.bytes(0, 70)


def test_a_request_of_a_batch_gathers(near, far, accept):
    pair = Pair(near, far)
    recv(pair.b, pair.target.sge())
    pair.a.wr_start()
    pair.begin(2)
    pair.a.wr_send()
    pair.a.wr_set_sge_list(2, [pair.source.sge(0, 30), pair.source.sge(60, 40)])
    pair.a.wr_complete()
    successes(near.cq, 1)
    length = successes(far.cq, 1)[0].byte_len
    why = "the message is as long as its elements together; librxe 56.1 adds up the length of the first one for each"
    accept("bytes of a message of 30 and 40", length, spec=70, rxe=60, why=why)
    expected = pair.source.bytes(0, 30) + pair.source.bytes(60, 40)
    assert pair.target.bytes(0, length) == expected[:length]


@pytest.mark.parametrize("flag", [0, e.IBV_SEND_INLINE], ids=["without_the_flag", "with_the_flag"])
def test_inline_data_of_a_batch_is_copied_when_it_is_named(near, far, accept, flag):
    pair = Pair(near, far, max_inline_data=64)
    data = pair.source.bytes(0, 40)
    pair.a.wr_start()
    pair.begin(1, e.IBV_SEND_SIGNALED | flag)
    pair.a.wr_rdma_write(pair.target.rkey, pair.target.address)
    pair.a.wr_set_inline_data(pair.source.address, 40)
    pair.source.fill(2)
    pair.a.wr_complete()
    found = status(completions(near.cq, 1)[0])
    why = (
        "ibv_wr_post(3): the call says that the data is inline. librxe 56.1 copies it and does not set the flag, "
        "so the driver takes the bytes for elements"
    )
    accept("inline data of a batch", found, spec="SUCCESS", rxe="SUCCESS" if flag else "WR_FLUSH_ERR", why=why)
    assert pair.target.bytes(0, 41) == (data if found == "SUCCESS" else bytes(40)) + bytes(1)


# -- atomic write


def atomic_write(pair, offset, data, wr_id=1, flags=e.IBV_SEND_SIGNALED):
    pair.a.wr_start()
    pair.begin(wr_id, flags)
    pair.a.wr_atomic_write(pair.target.rkey, pair.target.address + offset, data)
    pair.a.wr_complete()


@pytest.mark.parametrize("offset", [0, 8, 4088, 8184])
def test_an_atomic_write_stores_eight_bytes(near, far, offset):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_ATOMIC_WRITE)
    pair.target.fill(2)
    atomic_write(pair, offset, b"\x01\x23\x45\x67\x89\xab\xcd\xef")
    assert successes(near.cq, 1)[0].opcode == e.IBV_WC_ATOMIC_WRITE
    before = make_pattern(2, pair.target.length)
    assert pair.target.bytes() == before[:offset] + b"\x01\x23\x45\x67\x89\xab\xcd\xef" + before[offset + 8 :]


def test_atomic_writes_and_writes_to_one_place_keep_their_order(near, far):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_ATOMIC_WRITE)
    for index in range(10):
        write(pair.a, pair.source.sge(8 * index, 8), pair.target.remote(), flags=0)
        atomic_write(pair, 0, bytes([index]) * 8, wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 10)] == list(range(10))
    assert pair.target.bytes(0, 16) == bytes([9]) * 8 + bytes(8)


@pytest.mark.parametrize("offset", [1, 4])
def test_an_atomic_write_to_an_unaligned_address_fails_and_changes_nothing(near, far, accept, offset):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_ATOMIC_WRITE)
    pair.target.fill(2)
    atomic_write(pair, offset, b"\xff" * 8)
    found = status(completions(near.cq, 1)[0])
    accept("atomic write to an unaligned address", found, spec="REM_INV_REQ_ERR")
    assert pair.target.bytes() == make_pattern(2, pair.target.length)
    assert state(pair.a) == "ERR"


# -- flush


def flush(pair, length=64, placement=e.IBV_FLUSH_GLOBAL, level=e.IBV_FLUSH_RANGE, wr_id=2):
    pair.a.wr_start()
    pair.begin(wr_id)
    pair.a.wr_flush(pair.target.rkey, pair.target.address, length, placement, level)
    pair.a.wr_complete()


@pytest.mark.parametrize("level", [e.IBV_FLUSH_RANGE, e.IBV_FLUSH_MR], ids=["range", "whole_region"])
def test_a_flush_comes_after_the_writes_before_it(near, far, level):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_FLUSH, access=FLUSHABLE)
    write(pair.a, pair.source.sge(0, 5000), pair.target.remote(), wr_id=1)
    flush(pair, 5000, level=level)
    done = successes(near.cq, 2)
    assert [(each.wr_id, each.opcode) for each in done] == [(1, e.IBV_WC_RDMA_WRITE), (2, e.IBV_WC_FLUSH)]
    assert pair.target.bytes(0, 5000) == pair.source.bytes(0, 5000)


def test_a_flush_needs_permission(near, far, accept):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_FLUSH, access=FLUSHABLE)
    pair.target = far.region(access=ALL)
    flush(pair)
    found = status(completions(near.cq, 1)[0])
    accept("flush of a region without IBV_ACCESS_FLUSH_GLOBAL", found, spec="REM_ACCESS_ERR")


def test_a_flush_beyond_the_region_fails(near, far, accept):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_FLUSH, access=FLUSHABLE)
    flush(pair, pair.target.length + 1)
    accept("flush beyond the region", status(completions(near.cq, 1)[0]), spec="REM_ACCESS_ERR")


@pytest.mark.parametrize("psn", [0xFFFFFE, 0xFFFFFF])
def test_atomic_writes_across_the_psn_wrap_arrive(near, far, psn):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_ATOMIC_WRITE, sq_psn=psn)
    for index in range(5):
        atomic_write(pair, 8 * index, bytes([index + 1]) * 8, wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 5)] == list(range(5))
    assert pair.target.bytes(0, 40) == b"".join(bytes([index + 1]) * 8 for index in range(5))


@pytest.mark.parametrize("psn", [0xFFFFFE, 0xFFFFFF])
def test_flushes_across_the_psn_wrap_complete(near, far, psn):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_FLUSH, access=FLUSHABLE, sq_psn=psn)
    for index in range(4):
        write(pair.a, pair.source.sge(100 * index, 100), pair.target.remote(100 * index), flags=0)
        flush(pair, 4096, wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 4)] == list(range(4))
    assert pair.target.bytes(0, 400) == pair.source.bytes(0, 400)


def test_writes_after_a_flush_are_carried_out(near, far):
    pair = Pair(near, far, COMMON | e.IBV_QP_EX_WITH_FLUSH, access=FLUSHABLE)
    for index in range(6):
        write(pair.a, pair.source.sge(1000 * index, 1000), pair.target.remote(1000 * index), wr_id=2 * index)
        flush(pair, 8, wr_id=2 * index + 1)
    assert [each.wr_id for each in successes(near.cq, 12)] == list(range(12))
    assert pair.target.bytes(0, 6000) == pair.source.bytes(0, 6000)
