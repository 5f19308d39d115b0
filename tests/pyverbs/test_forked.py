"""Forked children with the library: what works on the parent's objects, what is refused, and what ends with a child."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

from nicemu.pyverbs import _kernel
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import DM, AllocDmAttr, Context
from nicemu.pyverbs.mem_alloc import free, posix_memalign, read, write
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR
from nicemu.uverbs import session
from tests.pyverbs.on_the_nic import ACCESS, Pair, ctx, lab, pair
from tests.uverbs.test_fork import in_child

__all__ = ["ctx", "lab", "pair"]


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        call()
    assert caught.value.error_code == errno.EOPNOTSUPP


def works(pair: Pair) -> None:
    """The parent's objects are as they were."""
    pair.source.write("after the child", 15)
    pair.left.post_send(pair.write(15))
    assert pair.poll(1)[0].status == e.IBV_WC_SUCCESS
    assert pair.target.read(15, 0) == b"after the child"


def test_a_multiprocessing_child_allocates_device_memory(ctx: Context) -> None:
    queue = multiprocessing.get_context("fork").Queue()
    children = [
        multiprocessing.get_context("fork").Process(target=lambda: queue.put(DM(ctx, AllocDmAttr(64)).handle))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len({queue.get() for _ in children}) == 3
    assert not len(session.current().driver.dms), "their own objects went out of scope in the children"


def test_queues_are_the_parents(pair: Pair, ctx: Context) -> None:
    srq = SRQ(pair.pd, SrqInitAttr(SrqAttr()))
    receive = RecvWR(num_sge=1, sg=[SGE(pair.source.buf, 8, pair.source.lkey)])

    def child() -> None:
        for call in (
            lambda: pair.left.post_send(pair.write(8)), lambda: pair.left.post_recv(receive),
            lambda: srq.post_recv(receive), lambda: pair.cq.poll(), lambda: pair.cq.req_notify(),
            lambda: MR(pair.pd, 4096, ACCESS), lambda: CQ(ctx, 4), lambda: Context(name="nicemu0"),
        ):  # fmt: skip
            refused(call)

    in_child(child)
    works(pair)


def test_control_goes_through(pair: Pair, ctx: Context) -> None:
    def child() -> None:
        assert ctx.query_device().max_cqe and ctx.query_gid(1, 1) and pair.left.query(1)[0].qp_state == e.IBV_QPS_RTS
        with PD(ctx) as pd:
            assert pd.handle != pair.pd.handle
        with Context(cmd_fd=os.dup(ctx.cmd_fd)) as other, PD(other, handle=pair.pd.handle) as pd:
            assert MR(pd, handle=pair.source.handle).rkey == pair.source.rkey

    in_child(child)
    works(pair)


def test_a_child_reads_and_writes_its_copy(pair: Pair) -> None:
    pair.source.write("of the parent", 13)

    def child() -> None:
        assert pair.source.read(13, 0) == b"of the parent"
        pair.source.write("of the child!", 13)
        assert pair.source.read(13, 0) == b"of the child!"
        address = posix_memalign(100)
        write(address, b"own", 3)
        assert read(address, 3) == b"own"
        free(address)

    in_child(child)
    assert pair.source.read(13, 0) == b"of the parent"
    works(pair)


def test_what_a_child_forgets_is_not_closed(ctx: Context) -> None:
    """As in a child that unwinds its stack on the way out."""
    pairs = [Pair(ctx, CQ(ctx, 64))]

    def child() -> None:
        pairs.clear()
        gc.collect()

    in_child(child)
    works(pairs[0])


def test_what_a_child_closes_is_closed(ctx: Context) -> None:
    """As on Linux: the command is the parent's as much as the child's."""
    pd = PD(ctx)
    in_child(pd.close)
    with pytest.raises(PyverbsRDMAError) as gone:
        pd.close()
    assert gone.value.error_code == errno.EINVAL
    pd._handle = None


def test_a_child_frees_its_copy_of_a_region_that_it_closes(pair: Pair) -> None:
    mr = MR(pair.pd, 4096, ACCESS)
    mr.write("stays", 5)
    address = mr.buf

    def child() -> None:
        mr.close()
        with pytest.raises(OSError, match="Bad address"):
            read(address, 1)

    in_child(child)
    assert read(address, 5) == b"stays"
    with pytest.raises(PyverbsRDMAError):
        mr.close()
    mr._handle = None


def test_generations_are_counted() -> None:
    before = _kernel.generation

    def child() -> None:
        assert _kernel.generation == before + 1

    in_child(child)
    assert _kernel.generation == before
