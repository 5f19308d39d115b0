"""Kinds of memory with the library on the emulated NIC: zero-based, device memory, re-registration, implicit."""

from __future__ import annotations

import gc

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import DM, AllocDmAttr, Context, get_device_list
from nicemu.pyverbs.mem_alloc import madvise, mmap, munmap, read, write
from nicemu.pyverbs.mr import DMMR, MR, MW
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import session
from tests.pyverbs.on_the_nic import ACCESS, Pair, ctx, lab, pair

__all__ = ["ctx", "lab", "pair"]
ODP = ACCESS | e.IBV_ACCESS_ON_DEMAND
OPERATIONS = (e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ, e.IBV_WR_SEND, e.IBV_WR_ATOMIC_FETCH_AND_ADD)
DATA = bytes(range(1, 201))


def go(pair: Pair, opcode: int, local: SGE, remote: int, rkey: int) -> list[int]:
    """One operation from left to right: the statuses."""
    wr = SendWR(num_sge=1, sg=[local], opcode=opcode)
    if opcode == e.IBV_WR_ATOMIC_FETCH_AND_ADD:
        wr.set_wr_atomic(rkey, remote, 1)
    else:
        wr.set_wr_rdma(rkey, remote)
    count = 1
    if opcode == e.IBV_WR_SEND:
        pair.right.post_recv(RecvWR(num_sge=1, sg=[SGE(remote, local.length, rkey)]))
        count = 2
    pair.left.post_send(wr)
    return [int(wc.status) for wc in pair.poll(count)]


def moves(pair: Pair, opcode: int, source: tuple, target: tuple) -> None:
    """The operation carries ``DATA``; a side is (MR for its keys, address the NIC uses, read, write)."""
    size = 8 if opcode == e.IBV_WR_ATOMIC_FETCH_AND_ADD else len(DATA)
    giver, taker = (target, source) if opcode in (OPERATIONS[1], OPERATIONS[3]) else (source, target)
    giver[3](DATA[:size])
    assert set(go(pair, opcode, SGE(source[1], size, source[0].lkey), target[1], target[0].rkey)) == {0}
    assert taker[2](size) == DATA[:size]
    if size == 8:
        assert target[2](8) == (int.from_bytes(DATA[:8], "little") + 1).to_bytes(8, "little")


def plain(mr: MR, address: int) -> tuple:
    return mr, address, lambda size: read(address, size), lambda data: write(address, data, len(data))


@pytest.mark.parametrize("opcode", OPERATIONS)
@pytest.mark.parametrize("access", [ACCESS, ODP])
def test_zero_based_regions(pair: Pair, access: int, opcode: int) -> None:
    address = mmap(length=4 * 4096) + 4000
    mr = MR(pair.pd, 8192, access | e.IBV_ACCESS_ZERO_BASED, address=address)
    zero = mr, 104, lambda size: read(address + 104, size), lambda data: write(address + 104, data, len(data))
    moves(pair, opcode, plain(pair.source, pair.source.buf), zero)
    moves(pair, opcode, zero, plain(pair.target, pair.target.buf))


@pytest.mark.parametrize("opcode", OPERATIONS)
def test_device_memory(pair: Pair, ctx: Context, opcode: int) -> None:
    dm = DM(ctx, AllocDmAttr(4096))
    mr = DMMR(pair.pd, 2048, ACCESS | e.IBV_ACCESS_ZERO_BASED, dm, 0)
    device = mr, 64, lambda size: mr.read(size, 64), lambda data: mr.write(data, len(data), 64)
    moves(pair, opcode, plain(pair.source, pair.source.buf), device)
    moves(pair, opcode, device, plain(pair.target, pair.target.buf))


@pytest.mark.parametrize("opcode", OPERATIONS)
def test_implicit_regions_on_both_sides(pair: Pair, opcode: int) -> None:
    everything = MR(pair.pd, 0, ODP, implicit=True)
    here, there = mmap(length=8192), mmap(length=8192)
    for _ in range(2):
        moves(pair, opcode, plain(everything, here + 4000), plain(everything, there + 4000))
        madvise(here, 8192)
        madvise(there, 8192)
    munmap(here, 8192)
    munmap(there, 8192)
    assert session.current().driver.mrs.get(everything.handle).umem.mapped == 0


def test_an_implicit_region_does_not_reach_what_is_not_mapped(pair: Pair) -> None:
    everything = MR(pair.pd, 0, ODP, implicit=True)
    gone = mmap(length=4096)
    munmap(gone, 4096)
    local = SGE(pair.source.buf, 8, pair.source.lkey)
    assert go(pair, OPERATIONS[0], local, gone, everything.rkey) == [e.IBV_WC_REM_ACCESS_ERR]


@pytest.mark.parametrize("opcode", OPERATIONS)
def test_a_region_of_other_memory_after_rereg(pair: Pair, opcode: int) -> None:
    address = mmap(length=8192)
    pair.target.rereg(e.IBV_REREG_MR_CHANGE_TRANSLATION, None, address, 8192)
    assert pair.target.buf == address
    moves(pair, opcode, plain(pair.source, pair.source.buf), plain(pair.target, address + 100 - 4))


def test_the_old_memory_is_out_of_reach_after_rereg(pair: Pair) -> None:
    old = pair.target.buf
    pair.target.rereg(e.IBV_REREG_MR_CHANGE_TRANSLATION, None, mmap(length=8192), 8192)
    local = SGE(pair.source.buf, 8, pair.source.lkey)
    assert go(pair, OPERATIONS[0], local, old, pair.target.rkey) == [e.IBV_WC_REM_ACCESS_ERR]


def test_a_right_taken_by_rereg(pair: Pair) -> None:
    pair.target.rereg(e.IBV_REREG_MR_CHANGE_ACCESS, access=e.IBV_ACCESS_LOCAL_WRITE)
    local = SGE(pair.source.buf, 8, pair.source.lkey)
    assert go(pair, OPERATIONS[0], local, pair.target.buf, pair.target.rkey) == [e.IBV_WC_REM_ACCESS_ERR]


def test_another_pd_by_rereg(pair: Pair, ctx: Context) -> None:
    other = PD(ctx)
    pair.target.rereg(e.IBV_REREG_MR_CHANGE_PD, other)
    local = SGE(pair.source.buf, 8, pair.source.lkey)
    assert go(pair, OPERATIONS[0], local, pair.target.buf, pair.target.rkey) == [e.IBV_WC_REM_ACCESS_ERR]


@pytest.mark.parametrize("advice", [0, 1, 2])
@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("implicit", [False, True])
def test_prefetch(pair: Pair, implicit: bool, flags: int, advice: int) -> None:
    address = mmap(length=8192)
    mr = MR(pair.pd, 0 if implicit else 8192, ODP, address=None if implicit else address, implicit=implicit)
    write(address, DATA, len(DATA))  # present, but the NIC does not know yet
    counters = session.current().driver.mrs.get(mr.handle).counters
    assert pair.pd.advise_mr(advice, flags, [SGE(address, 4096, mr.lkey)]) == 0
    madvise(mmap(length=4096), 4096)  # lets a worker in the background finish
    moves(pair, OPERATIONS[0], plain(pair.source, pair.source.buf), plain(mr, address))
    assert counters.page_prefetch == 1
    assert counters.page_faults == 0 or not flags


def test_caps(ctx: Context) -> None:
    attr = ctx.query_device_ex()
    assert attr.odp_caps.general_caps == e.IBV_ODP_SUPPORT | e.IBV_ODP_SUPPORT_IMPLICIT
    assert attr.max_dm_size >= 1 << 17 and attr.orig_attr.max_mw > 0
    assert attr.orig_attr.device_cap_flags & e.IBV_DEVICE_MEM_WINDOW_TYPE_2B


def test_windows_are_allocated_and_freed(pair: Pair) -> None:
    first = MW(pair.pd, e.IBV_MW_TYPE_1)
    second = MW(pair.pd, e.IBV_MW_TYPE_2)
    assert first.rkey >> 8 != second.rkey >> 8
    first.close()
    with pytest.raises(PyverbsRDMAError):
        MW(pair.pd, 3)


@pytest.mark.filterwarnings("error")
def test_parents_and_children_in_one_garbage_go_without_a_word(ctx: Context) -> None:
    """A cycle's objects are finalised in the order of their creation, parents first."""
    lab = session.current()
    before = len(list(lab.driver.pds)), len(list(lab.driver.mrs)), len(list(lab.driver.qps))
    cycle: list[object] = []
    cycle += [cycle, PD(ctx)]
    pair = Pair(ctx, CQ(ctx, 16), pd=cycle[1])  # type: ignore[arg-type]
    cycle.append(pair)
    del pair, cycle
    gc.collect()
    assert (len(list(lab.driver.pds)), len(list(lab.driver.mrs)), len(list(lab.driver.qps))) == before


@pytest.mark.filterwarnings("error")
def test_a_context_and_all_that_is_on_it_in_one_garbage_go_without_a_word() -> None:
    """The context is the oldest of the cycle: when it is finalised first, the kernel lets go of the rest with it."""
    lab = session.current()
    before = len(list(lab.driver.pds)), len(list(lab.driver.mrs)), len(list(lab.driver.qps))
    cycle: list[object] = []
    cycle += [cycle, Context(name=get_device_list()[0].name.decode())]
    cycle.append(Pair(cycle[1], CQ(cycle[1], 16)))  # type: ignore[arg-type]
    del cycle
    gc.collect()
    assert (len(list(lab.driver.pds)), len(list(lab.driver.mrs)), len(list(lab.driver.qps))) == before
