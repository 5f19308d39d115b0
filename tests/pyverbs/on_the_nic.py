"""The library on the emulated NIC: a lab for each test file, and two RC QPs of one context, connected to each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ, CQEX, WC
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session

ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
SIZE = 8192


class Pair:
    """`left` and `right`, with one MR each, on one CQ."""

    def __init__(self, ctx: Context, cq: CQ | CQEX, access: int = ACCESS, pd: PD | None = None) -> None:
        self.ctx, self.cq, self.pd = ctx, cq, pd or PD(ctx)
        cap = QPCap(max_send_wr=8, max_recv_wr=8, max_inline_data=64)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=cap)
        self.left, self.right = QP(self.pd, init), QP(self.pd, init)
        self.source, self.target = (MR(self.pd, SIZE, access) for _ in range(2))
        self.connect()

    def connect(self) -> None:
        for qp, peer in ((self.left, self.right), (self.right, self.left)):
            attr = QPAttr()
            attr.qp_access_flags, attr.dest_qp_num = ACCESS, peer.qp_num
            attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
            attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 14, 7, 7, 12
            route = GlobalRoute(dgid=self.ctx.query_gid(1, 1), sgid_index=1)
            attr.ah_attr = AHAttr(is_global=1, gr=route)
            qp.to_rts(attr)

    def write(self, length: int, **options: int) -> SendWR:
        wr = SendWR(num_sge=1, sg=[SGE(self.source.buf, length, self.source.lkey)], opcode=e.IBV_WR_RDMA_WRITE)
        wr.set_wr_rdma(options.get("rkey", self.target.rkey), self.target.buf)
        return wr

    def poll(self, count: int) -> list[WC]:
        done: list[WC] = []
        for _ in range(100):
            done += self.cq.poll(count - len(done))[1]
            if len(done) == count:
                break
        assert len(done) == count
        return done


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context(name=get_device_list()[0].name.decode()) as context:
        yield context


@pytest.fixture
def pair(ctx: Context) -> Pair:
    return Pair(ctx, CQ(ctx, 64))
