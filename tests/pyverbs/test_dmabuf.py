"""Dma-bufs with the library on the emulated NIC: traffic, moves in the middle of it, lifetimes."""

from __future__ import annotations

import errno
import gc
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.dmabuf import DmaBuf
from nicemu.pyverbs.mr import MR, DmaBufMR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session
from tests.pyverbs.on_the_nic import ACCESS, Pair, ctx, pair
from tests.pyverbs.test_memory_on_the_nic import OPERATIONS, moves, plain

__all__ = ["ctx", "pair"]
PAGE = 4096


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    session.reset()
    yield
    assert session.current().violations == 0
    session.reset()


def side(mr: DmaBufMR, at: int) -> tuple[Any, ...]:
    """A side of :func:`moves`: the region's byte ``at``."""
    return mr, mr.offset + at, lambda size: mr.read(size, at), lambda data: mr.write(data, len(data), at)


@pytest.mark.parametrize("gtt", [0, 1])
@pytest.mark.parametrize("opcode", OPERATIONS)
def test_traffic(pair: Pair, opcode: int, gtt: int) -> None:
    mr = DmaBufMR(pair.pd, 2 * PAGE, ACCESS, offset=PAGE, gtt=gtt)
    moves(pair, opcode, plain(pair.source, pair.source.buf), side(mr, 4000))
    moves(pair, opcode, side(mr, 4000), plain(pair.target, pair.target.buf))


@pytest.mark.parametrize("opcode", OPERATIONS)
def test_the_gpu_moves_the_buffer_before_each_operation(pair: Pair, opcode: int) -> None:
    buffer = DmaBuf(4 * PAGE)
    mr = DmaBufMR(pair.pd, 4 * PAGE, ACCESS, buffer)
    moved = session.current().host.counters["dma_buf_move"]
    for gtt in (True, False, None):
        session.current().move_dma_buf(buffer.fd, gtt)
        moves(pair, opcode, plain(pair.source, pair.source.buf), side(mr, 4000))
        session.current().move_dma_buf(buffer.fd)
        moves(pair, opcode, side(mr, 4000), plain(pair.target, pair.target.buf))
    assert session.current().host.counters["dma_buf_move"] == moved + 6


@pytest.mark.parametrize("opcode", [e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ])
@pytest.mark.parametrize("after_ns", [0, 500, 2_000, 5_000, 20_000, 60_000])
def test_moves_in_the_middle_of_traffic_lose_no_byte(pair: Pair, opcode: int, after_ns: int) -> None:
    """Eight operations of sixteen pages between buffers that both move twice meanwhile."""
    size = 16 * PAGE
    buffers = DmaBuf(8 * size), DmaBuf(8 * size, gtt=1)
    left, right = (DmaBufMR(pair.pd, 8 * size, ACCESS, buffer) for buffer in buffers)
    data = bytes((7 * at + at // PAGE) & 0xFF for at in range(8 * size))
    source, target = (left, right) if opcode == e.IBV_WR_RDMA_WRITE else (right, left)
    source.write(data, len(data))
    for times in (1, 2):
        for buffer in buffers:
            session.current().move_dma_buf(buffer.fd, after_ns=times * after_ns)
    for at in range(0, 8 * size, size):
        wr = SendWR(at, num_sge=1, sg=[SGE(at, size, left.lkey)], opcode=opcode)
        wr.set_wr_rdma(right.rkey, at)
        pair.left.post_send(wr)
    assert {wc.status for wc in pair.poll(8)} == {e.IBV_WC_SUCCESS}
    session.current().endpoint.settle(lambda: False, 1_000_000_000)
    assert target.read(len(data), 0) == data and session.current().violations == 0


def test_a_driver_that_does_not_wait_for_the_device_is_caught() -> None:
    """The order that the moves rely on: without it DMA in flight meets pages that are gone."""
    saved = session._lab, session._endpoint
    session._lab = session._endpoint = None
    session.configure(load_config(None, {"mutants": ["skip_device_wait"]}))
    try:
        with Context(name=get_device_list()[0].name.decode()) as ctx:
            pair = Pair(ctx, CQ(ctx, 64))
            buffer = DmaBuf(64 * PAGE)
            mr = DmaBufMR(pair.pd, 64 * PAGE, ACCESS, buffer)
            for at in range(8):
                wr = SendWR(
                    num_sge=1, sg=[SGE(pair.source.buf, 2 * PAGE, pair.source.lkey)], opcode=e.IBV_WR_RDMA_WRITE
                )
                wr.set_wr_rdma(mr.rkey, at * 8 * PAGE)
                pair.left.post_send(wr)
            for after_ns in range(1_000, 40_000, 3_000):
                session.current().move_dma_buf(buffer.fd, after_ns=after_ns)
            pair.poll(8)
        assert session.current().violations > 0
    finally:
        session.reset()
        session._lab, session._endpoint = saved


# What is given and refused


def test_properties(ctx: Context) -> None:
    buffer = DmaBuf(5000)
    mr = DmaBufMR(PD(ctx), 4000, ACCESS, buffer, offset=1000)
    assert (mr.buf, mr.length, mr.offset, mr.dmabuf) == (0, 4000, 1000, buffer)
    assert buffer.size == 5000 and buffer.handle and buffer.map_offset == 0
    mr.write("through the mapping", 19, 100)
    with mmap.mmap(buffer.drm_fd, 5000, offset=buffer.map_offset) as mapping:
        assert mapping[1100:1119] == b"through the mapping"
    assert mr.read(19, 100) == b"through the mapping"


@pytest.mark.parametrize(
    ("arguments", "number"), [((0,), errno.EINVAL), ((4096, 1), errno.ENOENT), ((1 << 60,), errno.ENOMEM)]
)
def test_buffers_that_cannot_be_had(arguments: tuple[int, ...], number: int) -> None:
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate dmabuf of size") as refused:
        DmaBuf(*arguments)
    assert refused.value.error_code == number


def test_a_negative_size_is_no_size() -> None:
    with pytest.raises(OverflowError):
        DmaBuf(-1)


def test_regions_that_cannot_be_had(ctx: Context) -> None:
    pd, buffer = PD(ctx), DmaBuf(2 * PAGE)
    for fd, number in ((9999, errno.EBADF), (-1, errno.EBADF), (0, errno.EINVAL), (ctx.cmd_fd, errno.EINVAL)):
        with pytest.raises(PyverbsRDMAError, match=r"Failed to register a dma-buf MR\. length: 64") as refused:
            DmaBufMR(pd, 64, ACCESS, fd)
        assert refused.value.error_code == number
    for access in (e.IBV_ACCESS_REMOTE_WRITE, e.IBV_ACCESS_ON_DEMAND, e.IBV_ACCESS_ZERO_BASED):
        with pytest.raises(PyverbsRDMAError, match="Failed to register a dma-buf MR") as refused:
            DmaBufMR(pd, 64, access)
        assert refused.value.error_code == errno.EINVAL
    with pytest.raises(PyverbsRDMAError):
        DmaBufMR(pd, 2 * PAGE, ACCESS, buffer, offset=1)
    assert session.current().host.gpu.buffers.keys() == {buffer.handle}


def test_access_past_the_buffer(ctx: Context) -> None:
    mr = DmaBufMR(PD(ctx), PAGE, ACCESS)
    for access in (lambda: mr.read(1, PAGE), lambda: mr.write("x", 1, -1)):
        with pytest.raises(PyverbsError, match="Failed to map dma-buf of size 1"):
            access()


# Lifetimes


def gpu_buffers() -> int:
    gc.collect()  # what tests before this one left behind
    return len(session.current().host.gpu.exported)


def test_an_internal_buffer_goes_with_its_region(ctx: Context) -> None:
    before = gpu_buffers()
    mr = DmaBufMR(PD(ctx), PAGE, ACCESS)
    inside = mr.dmabuf
    mr.close()
    mr.close()
    assert inside.handle == 0 and mr.dmabuf is None and gpu_buffers() == before
    with pytest.raises(PyverbsUserError):
        mr.read(1, 0)


def test_closing_the_buffer_closes_its_regions(ctx: Context) -> None:
    pd, buffer = PD(ctx), DmaBuf(PAGE)
    regions = [DmaBufMR(pd, PAGE, ACCESS, buffer) for _ in range(2)]
    buffer.close()
    buffer.close()
    for mr in regions:
        with pytest.raises(PyverbsUserError):
            mr.lkey  # noqa: B018
    pd.close()


def test_closing_an_internal_buffer_closes_its_region(ctx: Context) -> None:
    mr = DmaBufMR(PD(ctx), PAGE, ACCESS)
    mr.dmabuf.close()
    assert mr.dmabuf is None
    mr.close()


def test_closing_the_pd_leaves_the_buffer(ctx: Context) -> None:
    buffer = DmaBuf(PAGE)
    with PD(ctx) as pd:
        DmaBufMR(pd, PAGE, ACCESS, buffer).write("still", 5)
    with PD(ctx) as pd:
        assert DmaBufMR(pd, PAGE, ACCESS, buffer).read(5, 0) == b"still"


def test_a_region_of_a_duplicate_outlives_the_buffer(pair: Pair) -> None:
    before = gpu_buffers()
    buffer = DmaBuf(PAGE)
    copy = os.dup(buffer.fd)
    buffer.close()
    mr = DmaBufMR(pair.pd, PAGE, ACCESS, copy)
    os.close(copy)
    pair.source.write("orphaned", 8)
    wr = SendWR(num_sge=1, sg=[SGE(pair.source.buf, 8, pair.source.lkey)], opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(mr.rkey, 0)
    pair.left.post_send(wr)
    assert pair.poll(1)[0].status == e.IBV_WC_SUCCESS
    mr.close()
    DmaBuf(PAGE).close()
    assert gpu_buffers() == before


def test_a_region_that_is_imported(pair: Pair) -> None:
    mr = DmaBufMR(pair.pd, PAGE, ACCESS)
    other = MR(pair.pd, handle=mr.handle)
    assert (other.rkey, other.length) == (mr.rkey, PAGE)
    other.unimport()
    mr.write("x", 1)
