"""Memory windows with the library on the emulated NIC: both types, bound, used and closed by work requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.base import inc_rkey
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mr import MR, MW, MWBind, MWBindInfo
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.pyverbs.on_the_nic import Pair, lab

__all__ = ["lab"]
RIGHTS = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
SUCCESS, REM_ACCESS, SIGNALED = e.IBV_WC_SUCCESS, e.IBV_WC_REM_ACCESS_ERR, e.IBV_SEND_SIGNALED


@pytest.fixture
def pair() -> Iterator[Pair]:
    """``target`` belongs to the right QP and may be bound."""
    with Context(name=get_device_list()[0].name.decode()) as ctx:
        made = Pair(ctx, CQ(ctx, 64))
        made.target = MR(made.pd, 8192, e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_MW_BIND)
        yield made


def write(pair: Pair, rkey: int, at: int = 0) -> int:
    """WRITE 8 bytes from left: its status."""
    wr = SendWR(num_sge=1, sg=[SGE(pair.source.buf, 8, pair.source.lkey)], opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(rkey, pair.target.buf + at)
    pair.left.post_send(wr)
    return int(pair.poll(1)[0].status)


def bind_type_1(pair: Pair, mw: MW, length: int = 4096) -> int:
    info = MWBindInfo(pair.target, pair.target.buf, length, RIGHTS)
    pair.right.bind_mw(mw, MWBind(info, SIGNALED))
    done = pair.poll(1)[0]
    assert done.opcode == e.IBV_WC_BIND_MW or done.status
    return int(done.status)


def bind_type_2(pair: Pair, mw: MW) -> tuple[int, int]:
    """(status, the new key)."""
    wr = SendWR(opcode=e.IBV_WR_BIND_MW)
    wr.set_bind_wr(mw, MWBindInfo(pair.target, pair.target.buf, 4096, RIGHTS))
    pair.right.post_send(wr)
    return int(pair.poll(1)[0].status), inc_rkey(mw.rkey)


def test_type_1(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_1)
    assert bind_type_1(pair, mw) == SUCCESS
    assert write(pair, mw.rkey, 4088) == SUCCESS
    assert write(pair, mw.rkey, 4089) == REM_ACCESS


def test_type_1_bound_to_nothing(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_1)
    assert bind_type_1(pair, mw) == SUCCESS and bind_type_1(pair, mw, 0) == SUCCESS
    assert write(pair, mw.rkey) == REM_ACCESS


def test_type_2(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_2)
    status, rkey = bind_type_2(pair, mw)
    assert (status, write(pair, rkey)) == (SUCCESS, SUCCESS)


def test_type_2_closed_by_its_program(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_2)
    _, rkey = bind_type_2(pair, mw)
    mw.close()
    assert write(pair, rkey) == REM_ACCESS


def test_type_2_invalidated_here(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_2)
    _, rkey = bind_type_2(pair, mw)
    pair.right.post_send(SendWR(opcode=e.IBV_WR_LOCAL_INV, imm_data=rkey))
    assert pair.poll(1)[0].status == SUCCESS
    assert write(pair, rkey) == REM_ACCESS and mw.handle


def test_type_2_invalidated_by_the_peer(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_2)
    _, rkey = bind_type_2(pair, mw)
    pair.right.post_recv(RecvWR())
    pair.left.post_send(SendWR(opcode=e.IBV_WR_SEND_WITH_INV, imm_data=rkey))
    done = {wc.opcode: wc for wc in pair.poll(2)}
    assert {wc.status for wc in done.values()} == {SUCCESS}
    assert done[e.IBV_WC_RECV].wc_flags & e.IBV_WC_WITH_INV and done[e.IBV_WC_RECV].imm_data == rkey
    assert write(pair, rkey) == REM_ACCESS and mw.handle


def test_a_local_invalidate_of_what_is_no_window_fails(pair: Pair) -> None:
    pair.right.post_send(SendWR(opcode=e.IBV_WR_LOCAL_INV, imm_data=pair.target.rkey))
    assert pair.poll(1)[0].status == e.IBV_WC_LOC_QP_OP_ERR


def test_a_bind_that_is_refused_says_so(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_1)
    assert bind_type_1(pair, mw, 8193) == e.IBV_WC_MW_BIND_ERR


def test_a_region_with_a_window_is_not_deregistered(pair: Pair) -> None:
    mw = MW(pair.pd, e.IBV_MW_TYPE_1)
    bind_type_1(pair, mw)
    with pytest.raises(PyverbsRDMAError, match="Failed to dereg MR"):
        pair.target.close()
    mw.close()
    pair.target.close()
