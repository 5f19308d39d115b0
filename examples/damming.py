"""Packet damming: a READ finds its page missing at the responder, and a second one is posted while the first waits.

Plain pyverbs: it knows nothing of nicemu and runs on any device with ODP. Each line is two READs of on-demand memory
that the device has not seen yet, the second so long after the first. Where a NIC answers a missing page with an RNR
NAK, both should be there when the page is. On a device that sends only the request again that was NAKed, the second one
is lost until the ACK timer runs out: "Pitfalls of InfiniBand with On-Demand Paging" (Fukuoka et al., ISPASS'21).

    nicemu run examples/damming.py [DEVICE]
    nicemu run --config connectx4 examples/damming.py     # a floor of 500 ms under the ACK timer
    nicemu run --config connectx5 examples/damming.py     # 30 ms
"""

import errno
import sys

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQEX, CqInitAttrEx, PollCqAttr
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, mmap, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

PAGE = 4096
PORT, GID_INDEX = 1, 1
READ = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_READ
APART_US = (0, 100, 300, 1000, 3000, 10_000)
TIMEOUT, MIN_RNR_TIMER = 12, 14
"""Codes for 16.8 ms and 1.28 ms."""


def connected_pair(ctx, pd, cq):
    """Two QPs of this process in RTS."""
    cap = QPCap(max_send_wr=16, max_recv_wr=1, max_send_sge=1, max_recv_sge=1)
    init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=cap, sq_sig_all=1)
    pair = [QP(pd, init) for _ in range(2)]
    for qp, peer in (pair, reversed(pair)):
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags, attr.dest_qp_num, attr.path_mtu = READ, peer.qp_num, e.IBV_MTU_1024
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.timeout, attr.min_rnr_timer, attr.retry_cnt, attr.rnr_retry = TIMEOUT, MIN_RNR_TIMER, 7, 7
        route = GlobalRoute(dgid=ctx.query_gid(PORT, GID_INDEX), sgid_index=GID_INDEX)
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=route, dlid=0)
        qp.to_rts(attr)
    return pair


class Reader:
    """A QP that READs its peer's memory into a pinned page of its own."""

    def __init__(self, ctx):
        self.ctx, self.pd = ctx, PD(ctx)
        self.cq = CQEX(ctx, CqInitAttrEx(cqe=16, wc_flags=e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP))
        self.ticks_per_us = ctx.query_device_ex().hca_core_clock / 1000
        self.qp, self.peer = connected_pair(ctx, self.pd, self.cq)
        self.mine = MR(self.pd, PAGE, READ)

    def now_us(self):
        """The device's clock."""
        return self.ctx.query_rt_values_ex()[1] / self.ticks_per_us

    def pass_time(self, until_us):
        """Busy until then, with calls into the driver."""
        while self.now_us() < until_us:
            self.qp.query(e.IBV_QP_STATE)

    def read(self, number, address, rkey):
        """Post a READ of a few bytes."""
        sge = SGE(self.mine.buf, 8, self.mine.lkey)
        wr = SendWR(wr_id=number, num_sge=1, sg=[sge], opcode=e.IBV_WR_RDMA_READ)
        wr.set_wr_rdma(rkey, address)
        self.qp.post_send(wr)

    def completion_us(self):
        """When the next completion was there, by its timestamp."""
        while self.cq.start_poll(PollCqAttr()) == errno.ENOENT:
            pass
        status, ticks = self.cq.status, self.cq.read_timestamp()
        self.cq.end_poll()
        assert status == e.IBV_WC_SUCCESS, f"READ: status {status}"
        return ticks / self.ticks_per_us

    def two_reads(self, apart_us):
        """How long a READ of a page that is missing takes, and one posted ``apart_us`` later, us."""
        address = mmap(length=PAGE, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
        target = MR(self.pd, PAGE, READ | e.IBV_ACCESS_ON_DEMAND, address=address)
        write(address, bytes(PAGE), PAGE)
        begin = self.now_us()
        self.read(1, address, target.rkey)
        self.pass_time(begin + apart_us)
        second = self.now_us()
        self.read(2, address + PAGE // 2, target.rkey)
        took = self.completion_us() - begin, self.completion_us() - second
        target.close()
        return took


def main(device=None):
    reader = Reader(Context(name=device or get_device_list()[0].name.decode()))
    print("second READ after   first took   second took")
    for apart_us in APART_US:
        first, second = reader.two_reads(apart_us)
        print(f"{apart_us / 1000:14.1f} ms {first / 1000:9.3f} ms {second / 1000:10.3f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:2])
