"""SENDs whose gather faults: the pages are in the CPU's page table, and the NIC has not got them (a minor fault)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, madvise, mmap, write
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import session
from tests.lab.transports import poll

PAGE, MADV_DONTNEED = 4096, 4
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
NPF: dict[str, Any] = {"nic": "npf", "host": "npf", "firmware": "npf"}


class Gather:
    """Two RC QPs on one device: ``a`` with on-demand memory of ``pages`` pages, ``b`` with pinned memory."""

    def __init__(self, pages: int) -> None:
        self.ctx = Context(name="nicemu0")
        self.pd, self.cq = PD(self.ctx), CQ(self.ctx, 64)
        self.size = pages * PAGE
        self.cold = mmap(length=self.size, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
        self.mr = MR(self.pd, self.size, ACCESS | e.IBV_ACCESS_ON_DEMAND, address=self.cold)
        self.warm = MR(self.pd, self.size, ACCESS)
        cap = QPCap(max_send_wr=16, max_recv_wr=16)
        self.a, self.b = (
            QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap)) for _ in range(2)
        )
        for qp, peer in ((self.a, self.b), (self.b, self.a)):
            self._connect(qp, peer)

    def _connect(self, qp: QP, peer: QP) -> None:
        attr = QPAttr(path_mtu=e.IBV_MTU_4096)
        attr.qp_access_flags, attr.dest_qp_num = ACCESS, peer.qp_num
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 18, 7, 7, 12
        route = GlobalRoute(dgid=self.ctx.query_gid(1, 1), sgid_index=1)
        attr.ah_attr = AHAttr(is_global=1, gr=route)
        qp.to_rts(attr)

    @property
    def lab(self) -> Any:
        return session.current()

    @property
    def faults(self) -> list[dict[str, Any]]:
        """What the driver noted of each page fault."""
        return list(self.lab.driver.stages.faults)

    @property
    def invalidations(self) -> list[dict[str, Any]]:
        return list(self.lab.driver.stages.invalidations)

    def cool(self, pages: int | None = None) -> None:
        """Take the pages away from NIC and CPU, and let the program write to them again."""
        length = self.size if pages is None else pages * PAGE
        madvise(self.cold, length, MADV_DONTNEED)
        write(self.cold, b"x" * length, length)

    def send(self, pages: int, offset: int = 0) -> int:
        """One SEND of the first pages; gives its status."""
        self.b.post_recv(RecvWR(2, 1, [SGE(self.warm.buf, self.size, self.warm.lkey)]))
        wr = SendWR(1, num_sge=1, sg=[SGE(self.cold + offset, pages * PAGE, self.mr.lkey)])
        self.a.post_send(wr)
        return max(wc.status for wc in poll(self.cq, 2))

    def write(self, remote: int, length: int = 8) -> int:
        """One RDMA WRITE from pinned memory to byte ``remote`` of the cold pages; gives its status."""
        wr = SendWR(1, opcode=e.IBV_WR_RDMA_WRITE, num_sge=1, sg=[SGE(self.warm.buf, length, self.warm.lkey)])
        wr.set_wr_rdma(self.mr.rkey, self.cold + remote)
        self.b.post_send(wr)
        return max(wc.status for wc in poll(self.cq, 1))


@contextmanager
def gathering(pages: int, **config: Any) -> Iterator[Gather]:
    """A lab of this configuration with a :class:`Gather`."""
    session.reset()
    session.configure(load_config(None, config))
    bench = Gather(pages)
    try:
        yield bench
    finally:
        bench.ctx.close()
        session.reset()
