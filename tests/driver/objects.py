"""Objects of the driver on the bench, one call each."""

from __future__ import annotations

from typing import Any

from nicemu.abi.verbs import QpType, SrqType
from nicemu.driver import cq, pd, qp, srq, xrcd
from nicemu.driver.context import Context
from nicemu.driver.cq import Cq
from nicemu.driver.pd import Pd
from nicemu.driver.qp import Qp
from nicemu.driver.srq import Srq
from nicemu.driver.xrcd import Xrcd
from nicemu.uverbs.messages import Capabilities
from tests.driver.bench import Bench

CAPS = Capabilities(16, 16, 2, 2, 0)
INODE = (3, 77)


class Objects:
    """A context with a PD and a CQ, and what tests make in it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.context: Context = bench.open()
        self.pd: Pd = pd.allocate(self.context)
        self.cq: Cq = bench.call(cq.create(self.context, 10, 0, None))

    def qp(self, kind: int = QpType.RC, shared: Srq | None = None, caps: Any = CAPS) -> Qp:
        queues = (self.cq, self.cq) if shared is None else (self.cq, self.cq, shared)
        made: Qp = self.bench.call(qp.create(self.pd, kind, queues, caps, 0))
        return made

    def srq(self, max_wr: int = 8, max_sge: int = 1) -> Srq:
        made: Srq = self.bench.call(srq.create(self.pd, SrqType.BASIC, (max_wr, max_sge)))
        return made

    def xrcd(self, flags: int = 64, inode: xrcd.Inode | None = INODE) -> Xrcd:
        return xrcd.open_domain(self.context, inode, flags)

    def xrc_srq(self, domain: Xrcd) -> Srq:
        made: Srq = self.bench.call(srq.create(self.pd, SrqType.XRC, (8, 1), domain, self.cq))
        return made

    def target(self, domain: Xrcd) -> Qp:
        made: Qp = self.bench.call(qp.create(domain, QpType.XRC_RECV, (), CAPS, 0))
        return made
